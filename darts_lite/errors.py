"""What goes wrong in a user's hands: one exception, one line, one exit code (no torch here)."""

import difflib
import os
import signal
import sys
from collections.abc import Iterable
from enum import IntEnum

LINE_LIMIT = 400  # characters of one error line
VALUE_LIMIT = 100  # characters of a value or path in it
_MISSING = object()


class Exit(IntEnum):
    """Exit codes of every verb."""

    FINISHED = 0
    BUG = 1
    CONFIGURATION = 2
    DATA = 3
    RUN = 4
    NUMERIC = 5
    ENVIRONMENT = 6
    IN_USE = 7
    SIGINT = 130
    SIGTERM = 143


class UserError(Exception):
    """Something the user can mend: which key or path, what is wrong with which value, and the fix.

    `problems` lists the single errors where several were found at once; a single error is its own list.
    """

    def __init__(
        self, key: object, reason: str, fix: str, *, value: object = _MISSING, code: Exit = Exit.CONFIGURATION
    ):
        self.key, self.reason, self.fix, self.code = key, reason, fix, code
        self.value = value
        self.problems: list[UserError] = [self]
        super().__init__(key, reason, fix)

    def __str__(self) -> str:
        got = "" if self.value is _MISSING else f", got {show(self.value)}"
        line = f"{show(self.key, quote=False)}: {_plain(self.reason)}{got}; fix: {_plain(self.fix)}"
        limit = LINE_LIMIT - len("darts_lite: error: ")
        return line if len(line) <= limit else _cut(line, limit)


def all_of(problems: Iterable[UserError]) -> UserError | None:
    """One exception that carries every problem found, or None when there is none."""
    found = [single for problem in problems for single in problem.problems]
    if not found:
        return None
    first = found[0]
    error = UserError(first.key, first.reason, first.fix, value=first.value, code=first.code)
    error.problems = found
    return error


def raise_all(problems: Iterable[UserError]) -> None:
    """Raise one exception that carries every problem found; none where there is no problem."""
    if error := all_of(problems):
        raise error


def show(value: object, quote: bool = True) -> str:
    """`value` as safe, short, single-line text: ASCII-escaped and cut in the middle beyond 100 characters."""
    if isinstance(value, (str, os.PathLike)):
        value = os.fspath(value) if not isinstance(value, str) else value
        return _cut(ascii(value) if quote else _plain(str(value)), VALUE_LIMIT)
    try:
        return _cut(ascii(value), VALUE_LIMIT)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "an enormous integer"
    except Exception:  # the `__repr__` of an object of the user's own
        return f"an object of {type(value).__qualname__}"


def printable(text: str) -> str:
    """`text` for a terminal's own lines: printable characters as they are, all else escaped; cut like any value."""
    return _cut("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text), VALUE_LIMIT)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The valid name that begins with the same word (darts: darts_first_order), else the closest one, else the first that has `word` in it.

    None when nothing is close.
    """
    words, low = list(words), word[:VALUE_LIMIT].lower()
    lower = {name.lower(): name for name in reversed(words)}
    begun = [name for name in words if name.lower().startswith(f"{low}_")]
    close = difflib.get_close_matches(low, list(lower), n=1, cutoff=0.5)
    if begun or close:
        return begun[0] if begun else lower[close[0]]
    return next((name for name in words if len(low) > 2 and low in name.lower()), None)


def did_you_mean(word: object, words: Iterable[str]) -> str:
    """The nearest valid name as the beginning of a fix; empty when nothing is close."""
    close = nearest(word, words) if isinstance(word, str) else None
    return f"did you mean {close!r}? " if close else ""


def choice(key: str, value: object, names: Iterable[str], *, code: Exit = Exit.CONFIGURATION) -> UserError:
    """The error for a name that is not in a table, with the nearest valid one."""
    names = list(names)
    known = f"one of: {', '.join(names)}" if names else "leave it out, there is none yet"
    return UserError(key, "unknown name", did_you_mean(value, names) + known, value=value, code=code)


def out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left."""
    torch = sys.modules.get("torch")  # where it was never loaded, it raised nothing
    refused = isinstance(error, (MemoryError, torch.OutOfMemoryError) if torch else MemoryError)
    # The allocator of the CPU raises a RuntimeError, and so does a GPU that has no room for a CUDA graph.
    return refused or any(text in str(error) for text in ("can't allocate memory", "CUDA error: out of memory"))


def _plain(text: str) -> str:
    return ascii(text)[1:-1].replace("\\'", "'").replace("\\n", " ")


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = (limit - 3) // 2
    return f"{text[:head]}...{text[len(text) - (limit - 3 - head) :]}"


class Interrupted(Exception):
    """A run that was asked to stop, after its last checkpoint; `code` is 130 (SIGINT) or 143 (SIGTERM)."""

    def __init__(self, number: int, advice: str = ""):
        self.number = number
        self.code = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name}{f'; {advice}' if advice else ''}")
