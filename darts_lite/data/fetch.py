"""From `dataset.root` to a data set: find the files of a published one, download them where that is asked for, have them read.

The files are untrusted until their MD5 sum is the published one, or, for idx files, until their header fits their size.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from darts_lite.data.dataset import Dataset, assemble
from darts_lite.data.download import download
from darts_lite.data.files import damage, open_regular
from darts_lite.data.published import PUBLISHED, File, Published
from darts_lite.errors import Exit, UserError, show
from darts_lite.settings.datasets import ROOT, DatasetConfig

AGAIN = "add dataset.download=true to fetch it again, or copy it again"
LARGEST = 1 << 29  # bytes of a file that is read whole; the largest published one has 182 MB
Read = Callable[[Path, File], Mapping[str, np.ndarray]]


def load_published(config: DatasetConfig, read: Read) -> Dataset:
    """The data set `config.name`; `read(path, file)` gives what arrays a file holds, and those of one name are joined in order.

    With `dataset.download=true` files that are missing or damaged are fetched first. Raises UserError: DATA, or
    ENVIRONMENT for a download that fails.
    """
    source, root = PUBLISHED[config.name], Path(config.root or ROOT)
    try:
        folder, arrays = _read_all(source, root, read)
    except UserError as error:
        if not config.download or error.code != Exit.DATA:
            raise
        download(source, root)
        folder, arrays = _read_all(source, root, read)
    for part in ("train", "test"):
        _check_classes(arrays[f"y_{part}"], source, f"{folder}:y_{part}")
    # A subset, which only idx files can hold, may lack the last classes.
    classes = source.classes[: int(arrays["y_train"].max(initial=0)) + 1]
    return assemble(config.name, arrays, config, where=str(folder), class_names=classes)


def contents(path: Path, file: File) -> bytes:
    """All of a file with a published MD5 sum, once that is the right one. Raises UserError (DATA)."""
    with damage(path, AGAIN), open_regular(path, "the file itself", AGAIN) as stream:
        content = stream.read(LARGEST)
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != file.md5:
        reason = f"is not the published file, or only a part of it: its MD5 sum is {found}, not {file.md5}"
        raise UserError(path, reason, AGAIN, code=Exit.DATA)
    return content


def actual(path: Path, file: File) -> Path | None:
    """The file itself, or, where no MD5 sum says which bytes it has, the .gz beside it; or None."""
    places = (path, path.with_name(f"{path.name}.gz")) if file.md5 is None else (path,)
    return next((place for place in places if os.path.exists(place)), None)


def _read_all(source: Published, root: Path, read: Read) -> tuple[Path, dict[str, np.ndarray]]:
    folder = _find(source, root)
    pieces: dict[str, list[np.ndarray]] = {}
    for file in source.files:
        for name, array in read(folder / file.name, file).items():
            pieces.setdefault(name, []).append(array)
    return folder, {name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for name, arrays in pieces.items()}


def _find(source: Published, root: Path) -> Path:
    """The folder that holds all the files: the usual one, or `root` itself. Raises UserError (DATA)."""

    def missing(folder: Path) -> list[str]:
        return [file.name for file in source.files if actual(folder / file.name, file) is None]

    usual = root / source.folder
    folder = min((usual, root), key=lambda place: len(missing(place)))
    if absent := missing(folder):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        reason = f"{source.name} is not in {show(os.path.abspath(folder), quote=False)}: no {absent[0]}{more}"
        below = f" that {source.folder}/ lies in" if source.folder else " they lie in"
        fix = f"add dataset.download=true, or name the folder{below} (dataset.root=...); offline: dataset=npz dataset.path=<file>.npz"
        raise UserError("dataset.root", reason, fix, code=Exit.DATA)
    return folder


def _check_classes(labels: np.ndarray, source: Published, key: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(source.classes)))
    if len(wrong):
        reason = f"label {labels[wrong[0]]} at index {wrong[0]} is outside 0..{len(source.classes) - 1}"
        raise UserError(key, reason, AGAIN, code=Exit.DATA)
