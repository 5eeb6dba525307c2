"""A NumPy archive of the user's own: `dataset=npz dataset.path=my.npz` with x_train, y_train, x_test, y_test.

Images are uint8 (N, H, W) or (N, H, W, C), labels integers (N,) or (N, 1). x_val and y_val may be there too, and `class_names`, text
(classes,), in which labels are then places. MedMNIST's names (train_images, train_labels, ...) are read as well. The file is untrusted:
what can be judged from the headers of the arrays is, before a byte of data is read or memory is taken; nothing is ever unpickled.
"""

import math
import os
import struct
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import IO, BinaryIO

import numpy as np

from darts_lite.data.dataset import ARRAYS, OPTIONAL, Dataset, assemble, check_class_names, check_forms
from darts_lite.data.files import check_memory, damage, open_regular, why
from darts_lite.errors import Exit, UserError, all_of
from darts_lite.settings.datasets import DatasetConfig

_WRITE = "write it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"
_MISSING = "check dataset.path; a relative path starts in the working directory"
_AGAIN = "copy or write the file again"
MEDMNIST = {
    f"{axis}_{part}": f"{part}_{kind}"
    for part in ("train", "val", "test")
    for axis, kind in (("x", "images"), ("y", "labels"))
}
NAMES = "class_names"
_CHUNK = 1 << 22  # bytes read at once
_error = partial(UserError, code=Exit.DATA)


@dataclass(frozen=True)
class Member:
    """One array of the archive, its header read and its stream standing at the first byte of data."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    stream: IO[bytes]

    @property
    def size(self) -> int:
        """Bytes of data."""
        return math.prod(self.shape) * self.dtype.itemsize


def load(config: DatasetConfig) -> Dataset:
    """Read and check the archive at `config.path`, once from its beginning to its end.

    Raises UserError: CONFIGURATION without a path, else DATA; the key is the path, or path:array.
    """
    if not config.path:
        raise UserError("dataset.path", "dataset=npz needs a file", "give dataset.path=<file>.npz")
    path = os.fspath(config.path)
    with ExitStack() as stack:
        file = stack.enter_context(open_regular(path, "the .npz file", _MISSING))
        archive = stack.enter_context(_open(file, path))
        present = set(archive.namelist())
        published = "x_train.npy" not in present and f"{MEDMNIST['x_train']}.npy" in present
        called = MEDMNIST if published else {name: name for name in ARRAYS + OPTIONAL}
        members = _members(archive, called, path, stack)
        check_forms(members, path, called)
        names = _member(archive, NAMES, f"{path}:{NAMES}", stack) if f"{NAMES}.npy" in present else None
        check_memory(sum(member.size for member in (*members.values(), *([names] if names else []))), path)
        class_names = None if names is None else _class_names(names, f"{path}:{NAMES}")
        arrays = {name: _read(member, f"{path}:{called[name]}") for name, member in members.items()}
    return assemble("npz", arrays, config, path, class_names, called=called)


def _open(file: BinaryIO, path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise _error(path, "is not an .npz archive, or only the beginning of one", _WRITE) from error
    except (OSError, ValueError, RuntimeError, OverflowError, struct.error) as error:
        raise _error(path, f"cannot be read ({why(error)})", "check the path and its permissions") from error


def _members(archive: zipfile.ZipFile, called: Mapping[str, str], path: str, stack: ExitStack) -> dict[str, Member]:
    present = set(archive.namelist())
    wanted = ARRAYS + OPTIONAL if any(f"{called[name]}.npy" in present for name in OPTIONAL) else ARRAYS
    missing = [called[name] for name in wanted if f"{called[name]}.npy" not in present]
    if missing:
        names = sorted(name.removesuffix(".npy") for name in present)
        reason = f"missing: {', '.join(missing)}; the archive has {', '.join(names)[:60] or 'nothing'}"
        raise _error(f"{path}:{missing[0]}", reason, _WRITE)
    members: dict[str, Member] = {}
    found: list[UserError] = []
    for name in wanted:
        try:
            members[name] = _member(archive, called[name], f"{path}:{called[name]}", stack)
        except UserError as problem:
            found.append(problem)
    error = all_of(found)
    if error:
        raise error
    return members


def _member(archive: zipfile.ZipFile, name: str, key: str, stack: ExitStack) -> Member:
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may take memory as they like
        raise _error(key, "unknown compression", "write it with numpy.savez or numpy.savez_compressed")
    with damage(key, _AGAIN):
        stream = stack.enter_context(archive.open(info))
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version} of the .npy format")
        member = Member(shape, dtype, fortran, stream)
        offset = stream.tell()
    if dtype.hasobject:
        raise _error(key, "holds pickled objects, which are never loaded", "store plain numbers", value=str(dtype))
    if any(length < 0 for length in shape):
        raise _error(key, "the header is damaged: negative shape", _AGAIN, value=shape)
    if info.file_size - offset != member.size:
        reason = f"holds {info.file_size - offset} bytes where its shape needs {member.size}"
        raise _error(key, reason, _AGAIN, value=shape)
    return member


def _read(member: Member, key: str) -> np.ndarray:
    """The data, read in pieces into its final place; the archive's CRC-32 is checked at the end."""
    array = np.empty(member.shape, member.dtype, order="F" if member.fortran else "C")
    target = (array.T if member.fortran else array).data.cast("B")
    with damage(key, _AGAIN):
        position = 0
        while piece := member.stream.read(_CHUNK):
            target[position : position + len(piece)] = piece
            position += len(piece)
        if position != len(target):
            raise EOFError(f"ends after {position} of {len(target)} bytes")
    return np.ascontiguousarray(array)


def _class_names(member: Member, key: str) -> list[str]:
    """The names of the classes. Raises UserError (DATA) unless they are distinct, and text that can be written down."""
    if member.dtype.kind not in "US" or len(member.shape) != 1 or member.shape[0] < 2:
        fix = "store them as numpy.array([...]) of text, in the order of the labels 0, 1, 2, ..."
        raise _error(key, "must be the names of at least two classes", fix, value=f"{member.dtype} {member.shape}")
    with damage(key, "store plain text"):
        array = np.frombuffer(member.stream.read(), member.dtype)
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in array.tolist()]
    check_class_names(names, key)
    return names
