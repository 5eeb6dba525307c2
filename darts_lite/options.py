"""Settings that several verbs share, and the field that carries a range: defaults and limits in one place (no torch here)."""

from dataclasses import dataclass, field
from typing import Any

LARGEST_SEED = 2**63 - 1
# What a printed command does not need to say: batch size of both trainings, and the part of the images that moves the weights of a search.
USUAL_BATCH, USUAL_FRACTION = 64, 0.5


def option(
    default: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    inert: bool = False,
) -> Any:
    """A dataclass field with its limits: `low` <= value, `above` < value, value <= `high`, value in `choices`.

    Limits of a list hold for each element. `inert` marks what cannot change a result, so that a resumed run may differ in it.
    """
    metadata = {"low": low, "above": above, "high": high, "choices": choices, "inert": inert}
    if isinstance(default, (list, dict)) or hasattr(default, "__dataclass_fields__"):
        kind = type(default)
        factory = kind if hasattr(default, "__dataclass_fields__") else lambda: kind(default)
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class DatasetConfig:
    """Where images come from and how training images are varied."""

    name: str = option("digits")  # a name of darts_lite.data.DATASETS
    path: str | None = option(None)  # npz: the file
    root: str | None = option(None)  # folder of data sets that have one
    download: bool = option(False, inert=True)  # fetch what is missing there
    # A random crop of the image with zeros around, or of a random part of it, which is resized to its size.
    crop: str = option("pad", choices=("pad", "resized"))
    crop_padding: int | None = option(None, low=0)  # crop=pad: pixels of zeros; None: an eighth of the side
    flip: bool = option(False)  # random horizontal flip
    # Strength of random brightness, contrast and saturation; of hue it is half as much of the circle.
    color_jitter: float = option(0.0, low=0, high=1)
    mean: list[float] | None = option(None)  # of each channel, in [0, 1]; None: computed from the training part
    std: list[float] | None = option(None, above=0)
    # image_folder: centre crop and resize to N x N; None: as they are
    image_size: int | None = option(None, low=1, high=4096)
    channels: int = option(3, low=1, high=3)  # image_folder: 3 (RGB) or 1 (grey)
    test_fraction: float = option(0.2, above=0, high=0.9)  # image_folder without test/: of train/, drawn from the names
    test_center: float = option(1.0, above=0, high=1)  # image_folder: what is kept of the shorter side of test images
    fraction: float = option(1.0, above=0, high=1)  # of the training images of each class, for search and retraining
    storage: str = option("auto", choices=("auto", "device", "stream"), inert=True)  # where images wait for their step
    # Processes that load a stream; None: cores - 1, at most 8.
    workers: int | None = option(None, low=0, high=256, inert=True)


@dataclass
class SpaceConfig:
    """Which cells can be found."""

    name: str = option("darts")  # a name of darts_lite.spaces.SPACES
    nodes: int = option(4, low=1, high=16)  # intermediate nodes of a cell
    candidates: list[str] = option(
        [
            "none",
            "max_pool_3x3",
            "avg_pool_3x3",
            "skip_connect",
            "sep_conv_3x3",
            "sep_conv_5x5",
            "dil_conv_3x3",
            "dil_conv_5x5",
        ]
    )
    edge_candidates: dict[str, list] | None = option(None)  # cell type -> a list of names an edge, null: all candidates


@dataclass
class RunConfig:
    """What every verb that runs has: device, numbers, folder, resume, logging."""

    seed: int = option(0, low=0, high=LARGEST_SEED)
    device: str = option("auto")  # auto | cuda | cuda:N | cpu
    precision: str = option("auto", choices=("auto", "fp32", "bf16"))  # auto: bf16 on a GPU that has it, else fp32
    deterministic: bool = option(False)  # on CUDA: only deterministic kernels, so that resume is bit-identical
    cuda_graph: bool = option(True, inert=True)  # on CUDA: record a whole step once and replay it; the same numbers
    run_dir: str | None = option(None, inert=True)  # None: outputs/<verb>/<dataset>/<time>
    resume: str | None = option(None, inert=True)  # a run folder, or auto
    debug: str | None = option(None, choices=("fast", "overfit", "profile"))  # a short run that looks for faults
    log_every: int = option(10, low=1, inert=True)  # steps between two lines of metrics
    checkpoint_minutes: float = option(5.0, above=0, inert=True)
    checkpoint_steps: int | None = option(None, low=1, inert=True)  # also every so many steps
