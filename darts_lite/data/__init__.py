"""Data sets: where images come from. `load` returns uint8 arrays; parts.py keeps them on the device and augments them.

A new data set is a function `DatasetConfig -> Dataset` in its own file and a line in `DATASETS`.
"""

from collections.abc import Callable
from dataclasses import replace

from darts_lite.data import arrays, digits, idx, image_folder, npz, published
from darts_lite.data.arrays import Arrays as Arrays
from darts_lite.data.arrays import from_torch as from_torch
from darts_lite.data.dataset import Dataset
from darts_lite.data.files import data_error
from darts_lite.errors import UserError, raise_all
from darts_lite.settings.datasets import USED_BY, DatasetConfig, unknown_name

DATASETS: dict[str, Callable[[DatasetConfig], Dataset]] = {
    "digits": digits.load,
    "npz": npz.load,
    "image_folder": image_folder.load,
    "cifar10": published.load_cifar,
    "cifar100": published.load_cifar,
    "mnist": idx.load,
    "fashion_mnist": idx.load,
    "svhn": published.load_svhn,
}


def relocated(config: DatasetConfig, place: str | None) -> DatasetConfig:
    """Settings for data that lies at `place` now, a file or a folder; None: unchanged.

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
    """Errors of the settings alone, found before any file is touched. `given`: images from Python."""
    found = []
    if (config.name == arrays.NAME) != (given is not None):
        if given is None:
            fix = "give them again, from Python: dataset=Arrays(...)"
            return [data_error("dataset", "its images were given from Python", fix)]
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
    """Errors for keys that the data set does not use, each with the word that would make it used."""
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
    raise_all(problems(config, given))
    return given.load(config) if given is not None else DATASETS[config.name](config)
