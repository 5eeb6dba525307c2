"""Published data sets: found below dataset.root, downloaded where that is asked for, and read; published.json lists their files.

Names, addresses, MD5 sums and layout there are those of torchvision.datasets (0.29: cifar.py, mnist.py, svhn.py), which downloads them.
The class names were read off the archives once, so that no file has to be unpickled for them.
CIFAR-10 and -100 (Krizhevsky 2009) are 32x32 photographs in pickles of Python 2. SVHN (Netzer et al. 2011) has 32x32 house numbers in
MATLAB's files, which scipy's compiled code reads. Neither is made for hostile files: the MD5 sum is compared before a byte is parsed.
"""

import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from darts_lite.data.dataset import Dataset, assemble
from darts_lite.data.download import Download, download
from darts_lite.data.files import damage, data_error, open_regular
from darts_lite.errors import Exit, UserError, show
from darts_lite.settings.datasets import ROOT, DatasetConfig


@dataclass(frozen=True)
class File:
    """A file that is read: `holds` says which part or array it is; `md5` None: it is judged by its own header."""

    name: str
    holds: str
    md5: str | None = None


@dataclass(frozen=True)
class Published:
    """Files, origin and class names (of labels 0, 1, 2, ...) of a data set; `folder` lies below dataset.root."""

    folder: str
    files: tuple[File, ...]
    downloads: tuple[Download, ...]
    classes: tuple[str, ...]


Read = Callable[[Path, File], Mapping[str, np.ndarray]]
AGAIN = "add dataset.download=true to fetch it again, or copy it again"
LARGEST = 1 << 29  # bytes of a file that is read whole; the largest published one has 182 MB


def published(plain: dict[str, Any]) -> Published:
    """Published data set made of an entry of published.json; MNIST's MD5 sums there are of the .gz files on offer."""
    downloads = (
        Download(tuple(f"{mirror}{name}" for mirror in plain["mirrors"]), name, md5) for name, md5 in plain["downloads"]
    )
    files = tuple(File(*file) for file in plain["files"])
    return Published(plain["folder"], files, tuple(downloads), tuple(plain["classes"]))


_FACTS = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
PUBLISHED = {name: published(plain) for name, plain in _FACTS.items()}


def load_cifar(config: DatasetConfig) -> Dataset:
    """Images uint8 (N, 32, 32, 3). Raises UserError: DATA for the files, ENVIRONMENT for their download."""

    def read(path: Path, file: File) -> dict[str, np.ndarray]:
        content = contents(path, file)
        with damage(path, AGAIN):
            batch = unpickled(content)
            labels = batch["fine_labels" if config.name == "cifar100" else "labels"]
            if not all(type(label) is int for label in labels):
                raise ValueError("a label is no integer")
            images = uint8_array(batch["data"]).reshape(len(labels), 3, 32, 32).transpose(0, 2, 3, 1)
        return {f"x_{file.holds}": np.ascontiguousarray(images), f"y_{file.holds}": np.array(labels, np.int64)}

    return load_published(config, read)


def load_svhn(config: DatasetConfig) -> Dataset:
    """Images uint8 (N, 32, 32, 3). Raises UserError: DATA for the files, ENVIRONMENT for their download or without scipy."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        reason = f"dataset=svhn needs scipy, which cannot be imported ({error})"
        raise UserError("scipy", reason, "python -m pip install scipy", code=Exit.ENVIRONMENT) from error

    def read(path: Path, file: File) -> dict[str, np.ndarray]:
        content = contents(path, file)
        with damage(path, AGAIN):
            stored = loadmat(io.BytesIO(content), variable_names=["X", "y"])
            images, labels = stored["X"].transpose(3, 0, 1, 2), stored["y"].reshape(-1).astype(np.int64)
            if labels.min(initial=1) < 1 or labels.max(initial=1) > 10:
                raise ValueError("a label is outside 1..10")
        # The digit 0 has the label 10.
        return {f"x_{file.holds}": np.ascontiguousarray(images), f"y_{file.holds}": labels % 10}

    return load_published(config, read)


def load_published(config: DatasetConfig, read: Read) -> Dataset:
    """Data set `config.name`; `read(path, file)` gives the arrays of a file by name, equal names are joined in order.

    With `dataset.download=true` files that are missing or damaged are fetched first. Raises UserError: DATA, or
    ENVIRONMENT for a download that fails.
    """
    source, root = PUBLISHED[config.name], Path(config.root or ROOT)
    try:
        folder, arrays = _read_all(config.name, root, read)
    except UserError as error:
        if not config.download or error.code != Exit.DATA:
            raise
        download(source.downloads, root, root / source.folder)
        folder, arrays = _read_all(config.name, root, read)
    for name in ("y_train", "y_test"):
        if len(wrong := np.flatnonzero((arrays[name] < 0) | (arrays[name] >= len(source.classes)))):
            reason = f"label {arrays[name][wrong[0]]} at index {wrong[0]} is outside 0..{len(source.classes) - 1}"
            raise data_error(f"{folder}:{name}", reason, AGAIN)
    # A subset, which only idx files can hold, may lack the last classes.
    classes = source.classes[: int(arrays["y_train"].max(initial=0)) + 1]
    return assemble(config.name, arrays, config, where=str(folder), class_names=classes)


def contents(path: Path, file: File) -> bytes:
    """Bytes of a file whose MD5 sum is the published one. Raises UserError (DATA) for any other file."""
    with damage(path, AGAIN), open_regular(path, "the file itself", AGAIN) as stream:
        content = stream.read(LARGEST)
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != file.md5:
        reason = f"is not the published file, or only a part of it: its MD5 sum is {found}, not {file.md5}"
        raise data_error(path, reason, AGAIN)
    return content


def actual(path: Path, file: File) -> Path | None:
    """The file itself, or, where no MD5 sum says which bytes it has, the .gz beside it; or None."""
    places = (path, path.with_name(f"{path.name}.gz")) if file.md5 is None else (path,)
    return next((place for place in places if os.path.exists(place)), None)


def _read_all(name: str, root: Path, read: Read) -> tuple[Path, dict[str, np.ndarray]]:
    """The folder that holds all the files, the usual one or `root` itself, and their arrays. Raises UserError (DATA)."""
    source = PUBLISHED[name]

    def missing(folder: Path) -> list[str]:
        return [file.name for file in source.files if actual(folder / file.name, file) is None]

    folder = min((root / source.folder, root), key=lambda place: len(missing(place)))
    if absent := missing(folder):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        reason = f"{name} is not in {show(os.path.abspath(folder), quote=False)}: no {absent[0]}{more}"
        below = f" that {source.folder}/ lies in" if source.folder else " they lie in"
        fix = f"add dataset.download=true, or name the folder{below} (dataset.root=...); offline: dataset=npz dataset.path=<file>.npz"
        raise data_error("dataset.root", reason, fix)
    pieces: dict[str, list[np.ndarray]] = {}
    for file in source.files:
        for array_name, array in read(folder / file.name, file).items():
            pieces.setdefault(array_name, []).append(array)
    return folder, {name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for name, arrays in pieces.items()}


class Described:
    """Description of a numpy array or dtype in a pickle: its arguments and state, kept without calling numpy."""

    state: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class PlainUnpickler(pickle.Unpickler):
    """Reads containers, text, numbers and descriptions of numpy's arrays; any other name that the bytes ask for is refused."""

    def find_class(self, module: str, name: str) -> type[Described]:
        if (module, name) not in {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}:
            raise pickle.UnpicklingError(f"it asks for {module} {name}, which is never done")
        return Described


def unpickled(content: bytes) -> Any:
    """The value of a pickle whose MD5 sum is right; arrays are `Described`. Raises UnpicklingError and other exceptions."""
    return PlainUnpickler(io.BytesIO(content), encoding="latin-1").load()


def uint8_array(value: Any) -> np.ndarray:
    """uint8 array of a `Described` value. Raises ValueError and others for anything else."""
    if not isinstance(value, Described) or not value.state:
        raise ValueError("there is no array where one should be")
    _, shape, dtype, fortran, raw = value.state
    if dtype.arguments[0] != "u1":
        raise ValueError("the array is not one of uint8")
    return np.frombuffer(raw.encode("latin-1"), np.uint8).reshape(shape, order="F" if fortran else "C")
