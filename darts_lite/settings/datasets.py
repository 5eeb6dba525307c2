"""Settings of a data set: their defaults, the values that `dataset=<name>` chooses, and the data sets that use them."""

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from darts_lite.errors import UserError, choice
from darts_lite.settings.options import option

ROOT = "data"  # the folder of published data sets, where dataset.root is null


@dataclass
class DatasetConfig:
    """Source of the images, and variation of the training images."""

    name: str = option("digits")  # a name of darts_lite.data.DATASETS
    path: str | None = option(None)  # npz: the file
    root: str | None = option(None)  # folder of data sets that have one
    download: bool = option(False, without_effect=True)  # fetch what is missing there
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
    # Where images wait for their step.
    storage: str = option("auto", choices=("auto", "device", "stream"), without_effect=True)
    # Processes that load a stream; None: cores - 1, at most 8.
    workers: int | None = option(None, low=0, high=256, without_effect=True)


# What conf/dataset/<name>.yaml says beside the defaults of DatasetConfig, which know nothing of single data sets.
PRESETS: dict[str, dict[str, Any]] = {
    "cifar10": {"root": ROOT, "crop_padding": 4, "flip": True},
    "cifar100": {"root": ROOT, "crop_padding": 4, "flip": True},
    "mnist": {"root": ROOT},
    "fashion_mnist": {"root": ROOT, "flip": True},
    "svhn": {"root": ROOT, "crop_padding": 4},
}

# Settings of data sets that have them; elsewhere they would be typed in vain, and the data would be other than was meant.
USED_BY: dict[str, tuple[str, ...]] = {
    "path": ("npz",),
    "root": ("image_folder", *PRESETS),
    "download": tuple(PRESETS),
    "image_size": ("image_folder",),
    "channels": ("image_folder",),
    "test_fraction": ("image_folder",),
    "test_center": ("image_folder",),
}


def preset_config(name: str, **changes: Any) -> DatasetConfig:
    """Settings that `dataset=<name>` chooses on the command line, with `changes`."""
    return DatasetConfig(**{"name": name, **PRESETS.get(name, {}), **changes})


def unknown_name(key: str, value: str, names: Iterable[str]) -> UserError:
    """Error for a value that names no data set; for a folder or an .npz file it says how to give that."""
    value = os.path.expanduser(value)
    if os.path.isdir(value):
        words = f"dataset=image_folder dataset.root={shlex.quote(value)}"
    elif value.lower().endswith(".npz"):
        words = f"dataset=npz dataset.path={shlex.quote(value)}"
    else:
        return choice(key, value, names)
    return UserError(key, "is no name of a data set", f"write {words}", value=value)
