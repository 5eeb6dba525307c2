"""Data sets: where images come from. `load` returns uint8 arrays; parts.py keeps them on the device and augments them.

A new data set is a function `DatasetConfig -> Dataset` in its own file and a line in `DATASETS`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from darts_lite.data import cifar, digits, idx, image_folder, npz, svhn
from darts_lite.data.dataset import Dataset
from darts_lite.data.fetch import ROOT
from darts_lite.data.published import PUBLISHED
from darts_lite.errors import UserError, all_of, choice
from darts_lite.options import DatasetConfig

DATASETS: dict[str, Callable[[DatasetConfig], Dataset]] = {
    "digits": digits.load,
    "npz": npz.load,
    "image_folder": image_folder.load,
    "cifar10": cifar.load,
    "cifar100": cifar.load,
    "mnist": idx.load,
    "fashion_mnist": idx.load,
    "svhn": svhn.load,
}

# What conf/dataset/<name>.yaml says beside the defaults of DatasetConfig, which know nothing of single data sets.
USUAL: dict[str, dict[str, Any]] = {
    "cifar10": {"root": ROOT, "crop_padding": 4, "flip": True},
    "cifar100": {"root": ROOT, "crop_padding": 4, "flip": True},
    "mnist": {"root": ROOT},
    "fashion_mnist": {"root": ROOT, "flip": True},
    "svhn": {"root": ROOT, "crop_padding": 4},
}


def usual(name: str, **changes: Any) -> DatasetConfig:
    """The settings that `dataset=<name>` chooses on the command line, for Python."""
    return DatasetConfig(**{"name": name, **USUAL.get(name, {}), **changes})


def moved(config: DatasetConfig, place: str | None) -> DatasetConfig:
    """The settings for data that lies at `place` now (None: where it was): a file, or the folder of a set that has one."""
    if config.name == "npz":
        return replace(config, path=place or config.path)
    return replace(config, root=place or config.root)


def problems(config: DatasetConfig) -> list[UserError]:
    """What is wrong with the settings alone: found before any file is touched."""
    found = []
    if config.name not in DATASETS:
        found.append(choice("dataset.name", config.name, DATASETS))
    if config.name == "npz" and not config.path:
        found.append(UserError("dataset.path", "dataset=npz needs a file", "give dataset.path=<file>.npz"))
    if config.name == "image_folder":
        found += image_folder.problems(config)
    else:
        default = DatasetConfig()
        for key in ("image_size", "channels", "test_fraction"):
            if getattr(config, key) != getattr(default, key):
                fix = f"leave it out; dataset={config.name} has its own"
                found.append(
                    UserError(f"dataset.{key}", "is for dataset=image_folder", fix, value=getattr(config, key))
                )
    if config.name in PUBLISHED and config.path:
        fix = "give dataset.root=<the folder above its files>, or dataset=npz for a file of your own"
        found.append(UserError("dataset.path", f"dataset={config.name} lies in a folder", fix, value=config.path))
    if config.download and config.name not in PUBLISHED:
        fix = f"leave it out; these can be downloaded: {', '.join(PUBLISHED)}"
        found.append(UserError("dataset.download", f"dataset={config.name} is not downloaded", fix, value=True))
    if config.name == "digits" and config.path:
        fix = "give dataset=npz for a file of your own, or leave dataset.path out"
        found.append(UserError("dataset.path", "dataset=digits is bundled and reads no file", fix, value=config.path))
    if (config.mean is None) != (config.std is None):
        given, missing = ("mean", "std") if config.std is None else ("std", "mean")
        fix = f"give dataset.{missing} too, or neither of them (computed from the training part)"
        found.append(
            UserError(f"dataset.{given}", f"given without dataset.{missing}", fix, value=getattr(config, given))
        )
    return found


def load(config: DatasetConfig) -> Dataset:
    """The data set that `config` names.

    Raises UserError: CONFIGURATION for the settings, DATA for what is wrong with the files.
    """
    error = all_of(problems(config))
    if error:
        raise error
    return DATASETS[config.name](config)
