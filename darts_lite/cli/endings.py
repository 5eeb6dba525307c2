"""Bad ends of a run: every exception becomes lines on stderr and an exit code, and only a bug of ours has a traceback."""

import contextlib
import errno
import os
import sys
import traceback

from darts_lite.errors import Exit, UserError, out_of_memory

ENVIRONMENT_ERRORS = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.EDQUOT}


class Stop(BaseException):
    """An interruption on its way out: Hydra catches `Exception` and would go on with the next job of a sweep."""


def tell(error: BaseException) -> int:
    """Say on stderr what went wrong, one line a problem; returns the exit code."""
    cause = error.__cause__ if isinstance(error, Stop) and error.__cause__ else error
    known = _known(cause)
    if known is None or os.environ.get("DARTS_LITE_DEBUG") == "1":
        traceback.print_exception(cause)
    if isinstance(known, str):
        with contextlib.suppress(OSError):
            print(f"darts_lite: {known}", file=sys.stderr, flush=True)
        return getattr(cause, "code", Exit.SIGINT)
    if known is None:
        fix = "this is a bug of darts_lite; please report it with the lines above"
        known = UserError(type(cause).__name__, str(cause) or "no message", fix, code=Exit.BUG)
    for problem in known.problems:
        print_error(problem)
    return known.code


def print_error(problem: UserError) -> None:
    """Print one problem as one line on stderr."""
    with contextlib.suppress(OSError):  # nobody reads stderr any more
        print(f"darts_lite: error: {problem}", file=sys.stderr, flush=True)


def reason(error: BaseException) -> str:
    """The error as one short line for the table of a sweep."""
    known = _known(error)
    return str(known) if known is not None else f"{type(error).__name__}: {error}"


def disk_error(error: OSError) -> UserError:
    """UserError (6) for what the operating system refused."""
    path = error.filename if isinstance(error.filename, (str, os.PathLike)) else "disk"
    said = (error.strerror or str(error)).lower()
    return UserError(path, said, "free space, or give another place, e.g. run_dir=...", code=Exit.ENVIRONMENT)


def interruption(error: BaseException) -> Exit | None:
    """Exit code of a run that was asked to stop, and has; else None."""
    from darts_lite.errors import Interrupted

    return Exit(error.code) if isinstance(error, Interrupted) else None


def _known(error: BaseException) -> UserError | str | None:
    """The error as a user's error, as the text of an interruption, or None: a bug of ours."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if out_of_memory(error):  # outside a job: of a training the batch size is named, see runs/out_of_memory.py
        return UserError("memory", "out of memory", "free memory, or use a machine with more", code=Exit.ENVIRONMENT)
    if isinstance(error, OSError) and error.errno in ENVIRONMENT_ERRORS:
        return disk_error(error)
    return str(error) if interruption(error) else None
