"""Reporting while a run works: lines, warnings and progress, as plain text on stdout and stderr."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

PERIOD = 10.0  # seconds between two lines of progress


class Reporter(Protocol):
    """Listener to the lines and the progress of a run: Plain, the command line's bar, or an object of the user's own."""

    def line(self, text: str) -> None: ...
    def warning(self, text: str) -> None: ...
    def progress(self, done: int, total: int, text: str) -> None: ...


class Plain:
    """The reporter of logs and of the Python API: whole lines, at most one line of progress every 10 seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.pace = Pace(clock)
        self.said = 0.0

    def line(self, text: str) -> None:
        """One line on stdout. A reader that has gone away (`| head`) does not end the run."""
        write(text)

    def warning(self, text: str) -> None:
        """One line on stderr."""
        warn(text)

    def progress(self, done: int, total: int, text: str) -> None:
        """`done` of `total` steps; may be called at every step. Prints the first, the last, one in 10 seconds.

        `text` stands beside the bar of a terminal; here it has been said in a line of its own.
        """
        left = self.pace.left(done, total)
        now = self.clock()
        if self.pace.fresh or done >= total or now - self.said >= PERIOD:
            self.said = now
            write(f"[{100 * done // max(total, 1):3d}%] {done}/{total}" + (f", {duration(left)} left" if left else ""))

    def close(self) -> None:
        """Do nothing: nothing is held."""


class Pace:
    """How long the rest will take, at the mean speed since the first call. Steps that go back start anew."""

    def __init__(self, clock: Callable[[], float]):
        self.clock = clock
        self.first: tuple[int, int] | None = None  # (done, total) of the first call
        self.started = 0.0
        self.last = 0
        self.fresh = True  # whether the last call began a count

    def left(self, done: int, total: int) -> float | None:
        """Seconds to the end, 0 there; None while nothing is known."""
        self.fresh = self.first is None or done < self.last or total != self.first[1]
        if self.fresh:
            self.first, self.started = (done, total), self.clock()
        self.last = done
        if done >= total:
            return 0.0
        steps = done - self.first[0] if self.first else 0
        return (self.clock() - self.started) / steps * (total - done) if steps > 0 else None


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table: rows of words, each column as wide as its longest word."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def write(text: str) -> None:
    """One line on stdout; from the first broken pipe on, stdout goes nowhere."""
    try:
        print(writable(text, sys.stdout), flush=True)
    except BrokenPipeError:
        silence()


def writable(text: str, stream: Any) -> str:
    """`text` with what the stream's encoding lacks as escapes: some terminals know only ASCII."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def warn(text: str) -> None:
    """One line on stderr, marked as a warning."""
    with contextlib.suppress(OSError):  # nobody reads stderr any more
        print(f"darts_lite: warning: {ascii(text)[1:-1]}", file=sys.stderr, flush=True)


def silence() -> None:
    """Point stdout at nothing: the interpreter would otherwise complain about the broken pipe when it ends."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
