"""One run at a time in a folder: an advisory lock that the kernel drops when the process dies, however it dies.

`fcntl.lockf` (POSIX record locks), not `flock`: a lock of `flock` would live on in forked workers of a killed run. Its
two traps: a second lock by the same process always succeeds, and closing any descriptor of the file drops the lock.
Hence the set of held files, which is asked before the file is opened.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from darts_lite.errors import Exit, UserError, show
from darts_lite.storage.files import refusing

NAME = ".lock"
_HELD: set[tuple[int, int]] = set()  # (device, inode) of the lock files this process holds


class FolderLock:
    """The lock of one run folder: `acquire`, `release`. The file stays: removing it would open a race."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / NAME
        self._descriptor: int | None = None
        self._key: tuple[int, int] | None = None
        self._made = False  # the file was not there, and nothing depends on it until it is signed

    def acquire(self, warn: Callable[[str], None]) -> None:
        """Take the lock, or raise UserError: in use (7) with host and process id, or environment (6).

        Changes no content, so that a run which is refused later has changed nothing; `sign` writes who holds it.
        """
        with refusing(self.path):
            if os.path.lexists(self.path):
                status = os.lstat(self.path)
                if not stat.S_ISREG(status.st_mode):
                    raise UserError(self.path, "is not a regular file", "remove it", code=Exit.RUN)
                if _identity(status) in _HELD:
                    raise self._in_use(f"this process (pid {os.getpid()})")
            else:
                self._made = True
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o666)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                holder = self._holder()
                self.release()
                raise self._in_use(holder) from error
            warn(f"{self.folder}: no lock on this file system ({error.strerror}); start no second run in this folder")
        self._key = _identity(os.fstat(self._descriptor))
        _HELD.add(self._key)
        if not os.path.lexists(self.path) or _identity(os.lstat(self.path)) != self._key:
            self._made = False
            self.release()  # somebody removed the file between open and lock
            raise self._in_use("another process")

    def sign(self) -> None:
        """Write host and process id into the lock file, for the message that a second run gets."""
        if self._descriptor is None:
            raise RuntimeError("the lock is not held")
        with refusing(self.path):
            text = f"{socket.gethostname()} {os.getpid()}\n".encode()
            os.pwrite(self._descriptor, text, 0)
            os.ftruncate(self._descriptor, len(text))
            self._made = False

    def release(self) -> None:
        """Give the lock back; harmless when it is not held. A file that was made here and never signed goes."""
        if self._made and self._key is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            self._made = False
        if self._descriptor is not None:
            os.close(self._descriptor)  # drops the lock
            self._descriptor = None
        if self._key is not None:
            _HELD.discard(self._key)
            self._key = None

    def _holder(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            host, process = os.pread(self._descriptor or -1, 300, 0).decode().split()
            return f"pid {int(process)} on {show(host, quote=False)}"
        return "another process"

    def _in_use(self, holder: str) -> UserError:
        fix = "wait for it to end, or choose another run_dir"
        return UserError(self.folder, f"is in use by {holder}", fix, code=Exit.IN_USE)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
