"""Checkpoints: one file, `step_00000042.<first 16 hex digits of its SHA-256>.pt`; one rename commits data and hash.

`torch.load` does not notice a flipped byte, and `torch.save` on a full disk raises an unclear RuntimeError; so the
state is serialized to memory, and hash and bytes are handled here. Content: tensors and plain containers, nothing else.
Reading checks the hash, loads with `weights_only=True`, checks the content, and falls back to the file before; what is
damaged is only reported, the caller sets it aside.
"""

import hashlib
import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from darts_lite.errors import Exit, UserError
from darts_lite.storage.files import TEMPORARY, make_folders, refusing, sync_folder, write_atomic

FORMAT_VERSION = 2  # 2: a genotype is plain data, it was JSON text; a part of a method has options
KEEP = 2  # the newest, and the one before in case the newest is damaged
SECTIONS = ("run", "config", "env", "files", "time")  # JSON objects that every checkpoint has beside the state itself
_NAME = re.compile(r"step_(\d{8,18})\.([0-9a-f]{16})\.pt")
_SCALARS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read, and the newer ones that could not be."""

    path: Path
    state: dict[str, Any]
    damaged: tuple[Path, ...]


def pack(state: Mapping[str, Any]) -> memoryview:
    """The bytes of a state: containers copied to plain ones, tensors detached, compact and on the CPU.

    TypeError (a bug of the caller) for anything that `unpack` would refuse.
    """
    buffer = io.BytesIO()
    torch.save(_plain(state, "state"), buffer)
    return buffer.getbuffer()


def unpack(data: bytes | memoryview) -> dict[str, Any]:
    """The state in untrusted bytes, on the CPU; ValueError when they hold anything but tensors and plain containers."""
    try:
        if bytes(data[:4]) != b"PK\x03\x04":
            raise ValueError("not the zip format of torch.save; older ones have more ways to go wrong")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > len(data):
                raise ValueError("compressed, or with entries that overlap: torch.save writes neither")
        with warnings.catch_warnings(action="ignore"):  # torch's advice is for files of one's own
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # the unpickler raises all kinds
        raise ValueError("holds more than tensors and plain containers, or is cut off") from error
    _check_plain(state)
    return state


def save(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of `step` into `folder`, durable on return, and prune older ones. Raises UserError (6)."""
    state = {"format_version": FORMAT_VERSION, "step": step, **state}
    if problem := _schema(state, step):
        raise TypeError(problem)
    data = pack(state)
    path = folder / f"step_{step:08d}.{hashlib.sha256(data).hexdigest()[:16]}.pt"
    make_folders(folder)
    write_atomic(path, data)
    _prune(folder, path)
    return path


def files(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first; other names (temporary, set aside) are ignored."""
    with refusing(folder, "cannot be read"):
        try:
            found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
            # Two of one step differ in wall-clock values only; the later one first.
            return sorted(found, key=lambda path: (_step(path), os.lstat(path).st_mtime_ns), reverse=True)
        except (FileNotFoundError, NotADirectoryError):
            return []


def load_newest(folder: Path, warn: Callable[[str], None]) -> Loaded:
    """The newest checkpoint that is whole; one warning if newer ones are damaged. Changes nothing.

    Raises UserError: 4 when none can be loaded, 6 when the system refuses to read.
    """
    damaged: list[Path] = []
    reasons: list[str] = []
    for path in files(folder):
        try:
            state = _read(path)
        except ValueError as error:
            damaged.append(path)
            reasons.append(f"{path.name} {error}")
            continue
        if damaged:
            warn(f"damaged checkpoint: {'; '.join(reasons)}; going on from step {state['step']} ({path.name})")
        return Loaded(path, state, tuple(damaged))
    reason = f"no checkpoint can be loaded: {'; '.join(reasons)}" if reasons else "holds no checkpoint"
    raise UserError(folder, reason, "start a new run with another run_dir", code=Exit.RUN)


def set_aside(damaged: tuple[Path, ...]) -> None:
    """Rename damaged checkpoints to `*.corrupt`, once an older one has been loaded. Raises UserError (environment)."""
    for path in damaged:
        with refusing(path, "cannot be renamed"):
            os.replace(path, path.with_name(path.name + ".corrupt"))
            sync_folder(path.parent)


def _read(path: Path) -> dict[str, Any]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with refusing(path, "cannot be read"), open(os.open(path, flags), "rb") as file:
        data = file.read()
    match = _NAME.fullmatch(path.name)
    if match is None or hashlib.sha256(data).hexdigest()[:16] != match[2]:
        raise ValueError("does not have the hash in its name")
    try:
        state = unpack(data)
    except MemoryError as error:
        raise UserError(path, "does not fit into memory", "free memory", code=Exit.ENVIRONMENT) from error
    version = state.get("format_version")
    if type(version) is int and version != FORMAT_VERSION:
        fix = "use the version of darts_lite that wrote it, or start a new run"
        raise UserError(path, f"has format {version}, this version reads {FORMAT_VERSION}", fix, code=Exit.RUN)
    if problem := _schema(state, _step(path)):
        raise ValueError(problem)
    return state


def _prune(folder: Path, newest: Path) -> None:
    with refusing(folder):
        older = [path for path in files(folder) if path != newest]
        leftovers = [path for path in folder.iterdir() if path.name.startswith(".") and path.name.endswith(TEMPORARY)]
        for path in (*older[KEEP - 1 :], *leftovers):
            path.unlink()


def _step(path: Path) -> int:
    return int(path.name[len("step_") :].split(".")[0])


def _schema(state: Mapping[str, Any], step: int) -> str | None:
    """The first fault in the outer shape of a checkpoint; None: there is none."""
    if type(state.get("format_version")) is not int or state["format_version"] != FORMAT_VERSION:
        return "has no known format_version"
    if type(state.get("step")) is not int or state["step"] != step:
        return "is not of the step in its name"
    for name in SECTIONS:
        if not isinstance(state.get(name), dict):
            return f"lacks {name}"
        try:
            json.dumps(state[name], allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return f"has a value in {name} that is not plain data"
    return None


def _plain(value: Any, where: str) -> Any:
    if type(value) in _SCALARS:
        return value
    if isinstance(value, torch.Tensor):
        value = value.detach()
        # A view would be stored with all of the storage it looks into.
        return value.cpu() if value.untyped_storage().nbytes() == value.nbytes else value.cpu().clone()
    if isinstance(value, Mapping):
        if wrong := [key for key in value if type(key) not in (str, int)]:
            raise TypeError(f"{where}: key {wrong[0]!r} is neither text nor a whole number")
        return {key: _plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(entry, f"{where}[{index}]") for index, entry in enumerate(value))
    raise TypeError(f"{where}: {type(value).__name__} is neither a tensor nor a plain container")


def _has_its_bytes(tensor: torch.Tensor) -> bool:
    """Whether all of its numbers are there, as in all that `pack` writes: a tensor on `meta` or of stride 0 can have any size."""
    return tensor.device.type == "cpu" and tensor.untyped_storage().nbytes() == tensor.nbytes


def _check_plain(state: Any) -> None:
    """ValueError unless `state` is a tree of dicts, lists, tuples, scalars and dense tensors with text keys at the top.

    Whole numbers are keys further down, since `Optimizer.state_dict` has them. A container that occurs twice is
    refused: `pack` writes none, and nested sharing (or a cycle) would make a small file an endless tree.
    """
    if type(state) is not dict or any(type(key) is not str for key in state):
        raise ValueError("is not a dictionary with text keys")
    seen: set[int] = set()
    pending: list[Any] = [state]
    while pending:
        value = pending.pop()
        kind = type(value)
        if kind in _SCALARS or (kind is tuple and not value):
            continue
        if kind is torch.Tensor and value.layout == torch.strided and not value.is_quantized and _has_its_bytes(value):
            continue
        if kind not in (dict, list, tuple) or id(value) in seen:
            raise ValueError(f"holds more than tensors and plain containers ({kind.__name__})")
        seen.add(id(value))
        if kind is dict:
            if any(type(key) not in (str, int) for key in value):
                raise ValueError("holds a dictionary key that is neither text nor a whole number")
            pending.extend(value.values())
        else:
            pending.extend(value)
