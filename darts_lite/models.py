"""What a user of the result imports: a network from a genotype, and a trained network from a run folder.

Examples:

    from darts_lite.models import create_network, load_model
    network = create_network("darts_v2", cells=20, channels=36, classes=10)
    model = load_model("outputs/retrain/digits/<run>")        # eval mode, on the CPU
    names, probabilities = model.predict(["photo.jpg"])       # or uint8 arrays, or images of Pillow
"""

import hashlib
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_lite import genotype as genotypes
from darts_lite.classifier import Classifier
from darts_lite.data.dataset import Dataset, size_in_words
from darts_lite.engine import checkpoint
from darts_lite.engine.files import is_folder, is_there, read_json
from darts_lite.engine.fit import check_fit
from darts_lite.engine.folder import existing, silent
from darts_lite.engine.resume import stored_part
from darts_lite.engine.several import refuse_several
from darts_lite.errors import Exit, UserError, did_you_mean, show
from darts_lite.genotype import Genotype
from darts_lite.genotype_text import looks_like_text
from darts_lite.options import DatasetConfig, SpaceConfig
from darts_lite.seeds import derive
from darts_lite.spaces.darts import network as build
from darts_lite.spaces.network import Network, Skeleton

SOURCES = ("genotype.json", "result.json")  # what a folder's genotype is read from, in this order


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
    return build(genotype, skeleton, form=form, auxiliary=auxiliary)


def find_genotype(value: str, *, seed: int = 0) -> Genotype:
    """The genotype that a text means: a published name, `random` (drawn from `seed`), the folder of a search, a retraining or several runs,
    a file (genotype.json, result.json or text), or the field's `Genotype(...)` text itself.
    """
    if value == "random":
        space = SpaceConfig()
        return genotypes.random_genotype(space.nodes, space.candidates, random.Random(derive(seed, "genotype")))
    if value in genotypes.published_table():
        return genotypes.published(value)
    if is_folder(value):
        for name in SOURCES:
            if os.path.lexists(os.path.join(value, name)):
                return genotypes.read(os.path.join(value, name))
        reason = f"this folder holds neither {' nor '.join(SOURCES)}"
        raise UserError("genotype", reason, "give the folder of a finished search or retraining", value=value)
    if is_there(value):
        return genotypes.read(value)
    if looks_like_text(value):
        return genotypes.parse_text(value)
    names = [*genotypes.published_table(), "random"]
    fix = f"{did_you_mean(value, names)}give a file, a run folder, or one of: {', '.join(names)}"
    raise UserError("genotype", "no such file, folder or name", fix, value=value)


def genotype_folder(value: str | None) -> Path | None:
    """The run folder that `genotype=` names, by itself or through one of its files; None where the genotype comes from elsewhere."""
    if value is None or value == "random" or value in genotypes.published_table():
        return None
    path = Path(value)
    folder = path.parent if path.name in SOURCES and is_there(path) else path
    return folder if is_folder(folder) else None


def describe_model(
    genotype: Genotype, skeleton: Skeleton, mean: Sequence[float], std: Sequence[float], names: Sequence[str]
) -> dict[str, Any]:
    """All that `load_model` needs to build the network again, and how to feed it: plain data for the checkpoint."""
    return {
        "genotype": genotypes.to_json(genotype),
        **skeleton.describe(),
        "mean": list(mean),
        "std": list(std),
        "class_names": list(names),
    }


def load_model(run: str | Path) -> Classifier:
    """The trained network of a finished retraining, on the CPU, in eval mode, with its class names and what is done to an image.

    Raises UserError (4) for anything else.
    """
    network, state = restore_model(run)
    model = state["model"]
    center = stored_part(state, "dataset", DatasetConfig, run).test_center
    return Classifier(network, model["class_names"], model["mean"], model["std"], center).eval()


def restore_model(run: str | Path | None, key: str = "run") -> tuple[Network, dict[str, Any]]:
    """The bare network, in eval mode, and the run's checkpoint: its configuration, environment and `model` (see `describe_model`).

    Errors name `key`.
    """
    folder = existing(run, "retrain", key)
    state = checkpoint.load_newest(folder / "checkpoints", silent).state
    if state["run"].get("verb") != "retrain":
        fix = "give the folder of a retraining (python -m darts_lite.retrain)"
        raise UserError(key, "is not a retraining", fix, value=folder, code=Exit.RUN)
    refuse_several(folder, state["config"], key)
    result = read_json(folder / "result.json")
    path = folder / "model.pt"
    if not path.is_file() or path.is_symlink():
        raise UserError(
            key, "is not finished: it has no model.pt", f"python -m darts_lite.retrain resume={folder}", code=Exit.RUN
        )
    data = path.read_bytes()
    try:
        if hashlib.sha256(data).hexdigest() != result.get("model_sha256"):
            raise ValueError("does not have the hash in result.json")
        weights = checkpoint.unpack(data)
        model = state["model"]
        _check_description(model)
        genotype, skeleton = genotypes.from_json(model["genotype"]), Skeleton.described(model)
        check_fit(lambda: build(genotype, skeleton), skeleton.cells, weights)
        network = build(genotype, skeleton)
        network.load_state_dict(weights)
    except (ValueError, LookupError, TypeError, RuntimeError, UserError) as error:
        reason = f"cannot be used: {error}"
        raise UserError(path, reason, "retrain again with another run_dir", code=Exit.RUN) from error
    return network.eval(), state


def _check_description(model: dict[str, Any]) -> None:
    """ValueError unless `model` has the form that `describe_model` gives it, around the skeleton: it may come from anywhere."""
    for values in (model["mean"], model["std"]):
        if len(values) != model["input_channels"] or not all(type(x) is float and math.isfinite(x) for x in values):
            raise ValueError("the model is described by an impossible mean or std")
    if len(model["class_names"]) != model["classes"] or not all(type(name) is str for name in model["class_names"]):
        raise ValueError("the model is described by class names that are no names")


def check_data(dataset: Dataset, model: dict[str, Any], trained_on: object) -> None:
    """Whether a network fits a data set. Raises UserError (3).

    Other data than it was `trained_on` (a fingerprint) must have classes of the same names in the same order: labels count them.
    """
    ours = (*model["image_size"], model["input_channels"]), tuple(model["class_names"])
    theirs = (*dataset.image_size, dataset.channels), dataset.class_names
    known = dataset.fingerprint == trained_on and len(ours[1]) == len(theirs[1])
    if ours[0] == theirs[0] and (known or ours[1] == theirs[1]):
        return
    words = [f"{size_in_words(shape)} (width x height) and {len(names)} classes" for shape, names in (ours, theirs)]
    if words[0] == words[1]:
        place = next(place for place, name in enumerate(ours[1]) if name != theirs[1][place])
        words = [f"{show(names[place])} as class {place}" for _, names in (ours, theirs)]
    reason = f"has {words[1]}, the network {words[0]}"
    raise UserError("dataset_path", reason, "give the data that the network was trained on", code=Exit.DATA)
