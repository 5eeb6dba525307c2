"""Networks for users of a result: one from a genotype, and a trained one from a run folder.

Examples:

    from darts_lite.models import create_network, load_model
    network = create_network("darts_v2", cells=20, channels=36, classes=10)
    model = load_model("outputs/retrain/digits/<run>")        # eval mode, on the CPU
    names, probabilities = model.predict(["photo.jpg"])       # or uint8 arrays, or images of Pillow
"""

from collections.abc import Sequence
from pathlib import Path

from darts_lite.classifier import Classifier
from darts_lite.genotypes.genotype import Genotype
from darts_lite.runs.stored import stored_part
from darts_lite.runs.trained import restore_model
from darts_lite.settings.datasets import DatasetConfig
from darts_lite.spaces import find_genotype, space_of
from darts_lite.spaces.network import Network, Skeleton


def create_network(
    genotype: Genotype | str,
    *,
    cells: int,
    channels: int,
    classes: int,
    input_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    reductions: Sequence[int] | None = None,
    auxiliary: bool = False,
    form: str = "final",
    stem: str = "cifar",
) -> Network:
    """The network of a genotype, with fresh weights: images (N, input_channels, H, W) -> logits (N, classes).

    `genotype` is a Genotype or whatever `find_genotype` understands. `channels` are those of the first cells' nodes; each reduction
    (default: at one and two thirds of the cells) doubles them. `stem`: `cifar`, or `imagenet` for large images. Raises UserError (2) for a
    genotype that is none.
    """
    if isinstance(genotype, str):
        genotype = find_genotype(genotype)
    places = None if reductions is None else tuple(reductions)
    skeleton = Skeleton(cells, channels, classes, input_channels, image_size, places, stem=stem)
    return space_of(genotype).network(genotype, skeleton, form=form, auxiliary=auxiliary)


def load_model(run: str | Path) -> Classifier:
    """The trained network of a finished retraining, on the CPU, in eval mode, with its class names and what is done to an image.

    Raises UserError (4) for anything else.
    """
    network, state = restore_model(run)
    model = state["model"]
    center = stored_part(state, "dataset", DatasetConfig, run).test_center
    return Classifier(network, model["class_names"], model["mean"], model["std"], center).eval()
