"""Have torchvision download the files of a published data set: `dataset.download=true`. Nothing else here uses a network."""

import errno
import http.client
import os
import socket
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path

from darts_lite.data.files import why
from darts_lite.errors import Exit, UserError

TIMEOUT = 30  # seconds without a byte; torchvision waits for ever
_FAILURES = (OSError, RuntimeError, EOFError, ValueError, http.client.HTTPException, tarfile.TarError, zlib.error)
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EFBIG}


@dataclass(frozen=True)
class Download:
    """A file that is fetched from the first address that has it, and unpacked where it is a package."""

    addresses: tuple[str, ...]
    name: str
    md5: str


def download(packages: Sequence[Download], root: Path, folder: Path) -> None:
    """Fetch the packages: a .tar.gz, which holds its folder, is unpacked in `root`, any other file in `folder`.

    torchvision checks the MD5 sums and keeps what is whole. Raises UserError (ENVIRONMENT); then no empty folder stays.
    """
    made = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        for package in packages:
            _fetch(package, root if package.name.endswith(".tar.gz") else folder)
    except BaseException:
        for place in made:
            with suppress(OSError):
                place.rmdir()
        raise


def _fetch(package: Download, target: Path) -> None:
    """From the first address that works."""
    from torchvision.datasets.utils import download_and_extract_archive, download_url

    fetch = download_and_extract_archive if package.name.endswith(".gz") else download_url
    failure: Exception | None = None
    for address in package.addresses:
        print(f"darts_lite: downloading {address} to {target}", file=sys.stderr, flush=True)
        try:
            with _impatient(), _progress():
                fetch(address, os.fspath(target), filename=package.name, md5=package.md5)
            return
        except _FAILURES as error:
            failure = error
            if isinstance(error, OSError) and error.errno in _DISK:
                fix = "free space, or name a folder that can be written (dataset.root=...)"
                raise UserError(target, f"cannot be written: {why(error)}", fix, code=Exit.ENVIRONMENT) from error
    cause = getattr(failure, "reason", failure)  # of an URLError, what lies below
    if isinstance(failure, RuntimeError):  # torchvision's word for a wrong MD5 sum
        cause = "what came is not the published file, or only a part of it"
    reason = f"{package.name} could not be downloaded from {package.addresses[-1]} ({why(cause)})"
    fix = f"try again, or bring the files to {target} yourself; offline: dataset=npz dataset.path=<file>.npz"
    raise UserError("dataset.download", reason, fix, code=Exit.ENVIRONMENT) from failure


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _progress() -> Iterator[None]:
    """torchvision's bar is for a terminal: elsewhere it would be a long line of carriage returns."""
    if sys.stderr.isatty():
        yield
    else:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            yield
