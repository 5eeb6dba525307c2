"""Data sets: where images come from. `load` returns uint8 arrays; parts.py keeps them on the device and augments them.

A new data set is a function `DatasetConfig -> Dataset` in its own file and a line in `DATASETS`.
"""

from collections.abc import Callable

from darts_lite.data import digits, npz
from darts_lite.data.dataset import Dataset
from darts_lite.errors import UserError, all_of, choice
from darts_lite.options import DatasetConfig

DATASETS: dict[str, Callable[[DatasetConfig], Dataset]] = {
    "digits": digits.load,
    "npz": npz.load,
}


def problems(config: DatasetConfig) -> list[UserError]:
    """What is wrong with the settings alone: found before any file is touched."""
    found = []
    if config.name not in DATASETS:
        found.append(choice("dataset.name", config.name, DATASETS))
    if config.name == "npz" and not config.path:
        found.append(UserError("dataset.path", "dataset=npz needs a file", "give dataset.path=<file>.npz"))
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
