"""Data sets: where images come from. `load` returns uint8 arrays; parts.py keeps them on the device and augments them.

A new data set is a function `DatasetConfig -> Dataset` in its own file and a line in `DATASETS`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from darts_lite.data import arrays, cifar, digits, idx, image_folder, npz, svhn
from darts_lite.data.arrays import Arrays, from_torch
from darts_lite.data.dataset import Dataset
from darts_lite.data.fetch import ROOT
from darts_lite.data.published import PUBLISHED
from darts_lite.errors import Exit, UserError, all_of
from darts_lite.options import DatasetConfig
from darts_lite.places import unknown_name

__all__ = ["DATASETS", "USED_BY", "USUAL", "Arrays", "Dataset", "from_torch", "load", "moved", "problems", "usual"]

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


# Settings of data sets that have them; elsewhere they would be typed in vain, and the data would be other than was meant.
USED_BY: dict[str, tuple[str, ...]] = {
    "path": ("npz",),
    "root": ("image_folder", *PUBLISHED),
    "download": tuple(PUBLISHED),
    "image_size": ("image_folder",),
    "channels": ("image_folder",),
    "test_fraction": ("image_folder",),
    "test_center": ("image_folder",),
}


def moved(config: DatasetConfig, place: str | None) -> DatasetConfig:
    """The settings for data that lies at `place` now (None: where it was): a file, or the folder of a set that has one.

    Raises UserError (CONFIGURATION) for a data set that lies nowhere.
    """
    if place is None:
        return config
    if config.name in USED_BY["path"]:
        return replace(config, path=place)
    if config.name in USED_BY["root"]:
        return replace(config, root=place)
    raise UserError("dataset_path", f"dataset={config.name} reads no file", "leave it out", value=place)


def problems(config: DatasetConfig, given: Arrays | None = None) -> list[UserError]:
    """What is wrong with the settings alone: found before any file is touched. `given`: images from Python."""
    found = []
    if (config.name == arrays.NAME) != (given is not None):
        if given is None:
            fix = "give them again, from Python: dataset=Arrays(...)"
            return [UserError("dataset", "its images were given from Python", fix, code=Exit.DATA)]
        fix = "leave one of them out"
        return [UserError("dataset.name", "cannot be given beside images and labels", fix, value=config.name)]
    if given is None and config.name not in DATASETS:
        return [unknown_name("dataset.name", config.name, DATASETS)]
    if config.name == "npz" and not config.path:
        found.append(UserError("dataset.path", "dataset=npz needs a file", "give dataset.path=<file>.npz"))
    if config.name == "image_folder":
        found += image_folder.problems(config)
    found += _unused(config)
    if (config.mean is None) != (config.std is None):
        there, missing = ("mean", "std") if config.std is None else ("std", "mean")
        fix = f"give dataset.{missing} too, or neither of them (computed from the training part)"
        found.append(
            UserError(f"dataset.{there}", f"given without dataset.{missing}", fix, value=getattr(config, there))
        )
    return found


def _unused(config: DatasetConfig) -> list[UserError]:
    """What was given in vain, with the word that is missing beside it."""
    found, default = [], DatasetConfig()
    for key, names in USED_BY.items():
        value = getattr(config, key)
        if config.name in names or value == getattr(default, key):
            continue
        whose = f"dataset={names[0]}" if len(names) == 1 else f"dataset={names[0]}, {', '.join(names[1:])}"
        more = "" if config.name == default.name else f" in place of dataset={config.name}"
        reason = f"dataset={config.name} does not use it"
        found.append(UserError(f"dataset.{key}", reason, f"add {whose}{more}, or leave it out", value=value))
    return found


def load(config: DatasetConfig, given: Arrays | None = None) -> Dataset:
    """The data set that `config` names, or what is `given` from Python.

    Raises UserError: CONFIGURATION for the settings, DATA for what is wrong with the files.
    """
    error = all_of(problems(config, given))
    if error:
        raise error
    return given.load(config) if given is not None else DATASETS[config.name](config)
