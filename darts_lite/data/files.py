"""Files that are not ours: regular ones only, no more memory than there is, and whatever is wrong with them as one line (3)."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

from darts_lite.errors import Exit, UserError
from darts_lite.hardware.machine import available_memory

data_error = partial(UserError, code=Exit.DATA)


def open_regular(path: str | os.PathLike, kind: str, missing: str) -> BinaryIO:
    """The file at `path`, open for reading; never a pipe, which would wait for a writer. Raises UserError (DATA).

    `kind`: what it should be, such as "the .npz file"; `missing`: what to do where there is no such file.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            reason = "is a directory" if stat.S_ISDIR(mode) else "is not a regular file"
            raise data_error(path, reason, f"name {kind}")
        return open(path, "rb")
    except FileNotFoundError as error:
        raise data_error(path, "there is no such file", missing) from error
    except (OSError, ValueError) as error:
        fix = "check the path and its permissions"
        raise data_error(path, f"cannot be read ({why(error)})", fix) from error


@contextmanager
def damage(key: object, fix: str) -> Iterator[None]:
    """Whatever zip, zlib and parsers raise on hostile bytes (TokenError, RecursionError, ...), as one UserError (DATA)."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise data_error(key, f"cannot be read ({why(error)})", fix) from error


def why(error: object) -> str:
    """The first line of what an exception says, without the number and the path of an OSError."""
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return text.splitlines()[0][:100]


def check_memory(size: int, key: object) -> None:
    """Whether `size` bytes of arrays, and the copy that training makes of them, fit: a small file can declare terabytes."""
    needed, free = 2 * size, available_memory()
    if free is not None and needed > free:
        reason = f"unpacked and copied once it takes {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
        raise data_error(key, reason, "store fewer or smaller images")
