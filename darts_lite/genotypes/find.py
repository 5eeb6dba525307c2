"""The genotype that a text means: a published name, `random`, a file, a run folder, or the field's form itself."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from darts_lite.errors import Exit, UserError, did_you_mean
from darts_lite.genotypes.arch_string import looks_like_arch, parse_arch
from darts_lite.genotypes.genotype import Genotype, from_result
from darts_lite.genotypes.text import looks_like_text, parse_text, published, published_table
from darts_lite.storage.files import is_folder, is_there

SOURCES = ("genotype.json", "result.json")  # what a folder's genotype is read from, in this order
MOST_BYTES = 1_000_000  # of a file


def find_genotype(value: str, draw: Callable[[], Genotype]) -> Genotype:
    """The genotype that a text means: a published name, `random` (what `draw()` returns), the folder of a search, a retraining or several
    runs, a file (genotype.json, result.json or text), its JSON, the field's `Genotype(...)` text, or an arch string of NAS-Bench-201.
    """
    if value == "random":
        return draw()
    if value in published_table():
        return published(value)
    if is_folder(value):
        for name in SOURCES:
            if os.path.lexists(os.path.join(value, name)):
                return read(os.path.join(value, name))
        reason = f"this folder holds neither {' nor '.join(SOURCES)}"
        raise UserError("genotype", reason, "give the folder of a finished search or retraining", value=value)
    if is_there(value):
        return read(value)
    if value.startswith("{"):
        return from_result(value)
    if looks_like_text(value):
        return parse_text(value)
    if looks_like_arch(value):
        return parse_arch(value)
    names = [*published_table(), "random"]
    fix = f"{did_you_mean(value, names)}give a file, a run folder, or one of: {', '.join(names)}"
    raise UserError("genotype", "no such file, folder or name", fix, value=value)


def genotype_folder(value: str | None) -> Path | None:
    """The run folder that `genotype=` names, by itself or through one of its files; None where the genotype comes from elsewhere."""
    if value is None or value == "random" or value in published_table():
        return None
    path = Path(value)
    folder = path.parent if path.name in SOURCES and is_there(path) else path
    return folder if is_folder(folder) else None


def read(path: str | os.PathLike[str]) -> Genotype:
    """The genotype in a regular file of at most 1 MB, in either form. Raises UserError that names the file."""
    fix = "give a genotype.json or a text file with Genotype(...)"
    try:
        # O_NONBLOCK: opening a pipe must not wait for its writer. O_NOFOLLOW: not a symbolic link.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(path, "is not a regular file", fix)
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
        if number == errno.ELOOP:
            raise UserError(path, "is a symbolic link, not a regular file", "give the file that it points to") from None
        known = number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO)
        code = Exit.CONFIGURATION if known else Exit.ENVIRONMENT
        raise UserError(path, f"cannot be read ({os.strerror(number)})", fix, code=code) from None
    if len(content) > MOST_BYTES:
        raise UserError(path, f"is larger than {MOST_BYTES:,} bytes, too large for a genotype", fix)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(path, f"is not UTF-8 text (byte {error.start})", fix) from None
    first = text.lstrip()[:1]  # a line of a log may begin with a bracket, too
    json_form = first in ("{", "") or (first == "[" and not looks_like_text(text))
    parse = from_result if json_form else parse_arch if looks_like_arch(text) else parse_text
    return parse(text, os.fspath(path))
