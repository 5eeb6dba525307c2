"""Files that are whole or absent (temporary file, fsync, rename, fsync of the folder), and refusals as one line."""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from darts_lite.errors import Exit, UserError

TEMPORARY = ".tmp"  # suffix of files that a killed process may leave; they are never read
JSON_LIMIT = 2**20  # bytes of a small JSON file (status, environment) that is read back

_FIXES = {
    errno.ENOSPC: "free disk space, or choose a folder on another disk",
    errno.EDQUOT: "free disk space (quota), or choose a folder on another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "choose a folder that can be written",
}


def is_folder(place: str | os.PathLike[str]) -> bool:
    """Whether any text names a folder. Path.is_dir raises where a text is too long for a name, holds a null, or may not be looked up."""
    return os.path.isdir(place)


def is_there(place: str | os.PathLike[str]) -> bool:
    """Whether any text names something that exists; see `is_folder`."""
    return os.path.exists(place)


def refused(path: Path, error: OSError, what: str = "cannot be written") -> UserError:
    """The one-line error for what the operating system refused at `path` (exit code 6)."""
    reason = error.strerror or type(error).__name__
    fix = _FIXES.get(error.errno or 0, "check the path and its permissions")
    return UserError(path, f"{what}: {reason}", fix, code=Exit.ENVIRONMENT)


@contextlib.contextmanager
def refusing(path: Path, what: str = "cannot be written") -> Iterator[None]:
    """Inside, a refusal of the operating system is the one-line error `refused`."""
    try:
        yield
    except OSError as error:
        raise refused(path, error, what) from error


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Put `data` at `path` in one rename, on disk when this returns; nothing is left behind on failure.

    Raises UserError (6). The temporary name is fixed, so that the remains of a killed process are overwritten.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    with refusing(path):
        try:
            temporary.unlink(missing_ok=True)
            # O_EXCL: never through a link that somebody has put there.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with open(descriptor, "wb", buffering=0) as file:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def append_line(path: Path, text: str) -> None:
    """Add a line to a file, which has reached the operating system on return. Raises UserError (6)."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with refusing(path), open(os.open(path, flags, 0o666), "ab") as file:
        file.write(text.encode("utf-8", "backslashreplace") + b"\n")


def sync_folder(path: Path) -> None:
    """Make renames and new names in a folder durable, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def make_folders(path: Path) -> list[Path]:
    """Create `path` and missing parents; the folders made, outermost first. On failure none is left. UserError (6)."""
    missing = [path]
    while not os.path.lexists(missing[-1].parent):
        missing.append(missing[-1].parent)
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            try:
                folder.mkdir()
                made.append(folder)
            except FileExistsError:
                if not folder.is_dir():
                    raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        remove_folders(made)
        error = error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))
        raise refused(path, error, "cannot be created") from error
    return made


def remove_folders(made: list[Path]) -> None:
    """Remove the given folders as far as they are empty, innermost first."""
    for folder in reversed(made):
        with contextlib.suppress(OSError):
            folder.rmdir()


def refuse_links(folder: Path, names: tuple[str, ...]) -> None:
    """Refuse (exit code 4) symbolic links, devices, pipes among the `names` in `folder` and one level below them; 6: no access."""
    for path in (folder / name for name in names):
        with refusing(folder, "cannot be read"):
            if not os.path.lexists(path):
                continue
            is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
            entries = [path, *((path / entry for entry in sorted(os.listdir(path))) if is_folder else ())]
            modes = {entry: os.lstat(entry).st_mode for entry in entries}
        for entry, mode in modes.items():
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
                raise UserError(entry, f"is {kind}; a run does not write through it", "remove it", code=Exit.RUN)
        if is_folder != ("." not in path.name):
            kind = "a folder" if is_folder else "a file"
            raise UserError(path, f"is {kind}; a run does not make that", "remove it", code=Exit.RUN)


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object from an untrusted file; {} where there is none that can be read."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return {}
        with open(path, "rb") as file:
            value = json.loads(file.read(JSON_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
