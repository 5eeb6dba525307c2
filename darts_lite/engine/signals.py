"""SIGTERM and SIGINT set a flag; the training loop reads it between two steps, saves and leaves.

with Signals() as signals:
    for step in steps:
        if signals.raised: run.save(...)
        signals.check()                       # raises Interrupted; its code is the exit code
"""

import os
import signal
import threading
from types import FrameType


class Interrupted(Exception):
    """A run that was asked to stop, after its last checkpoint; `code` is 130 (SIGINT) or 143 (SIGTERM)."""

    def __init__(self, number: int, advice: str = ""):
        self.number = number
        self.code = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name}{f'; {advice}' if advice else ''}")


class Signals:
    """Context that turns SIGTERM and SIGINT into a flag; a second SIGINT ends the process at once with 130.

    `farewell` is written to stderr in that case. Outside the main thread, where Python allows no handlers, nothing is
    installed.
    """

    def __init__(self, farewell: str = ""):
        self.farewell = farewell
        self.raised: int | None = None
        self._interrupts = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python; it cannot be put back, the default is nearest.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._previous.clear()

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.raised is not None:
            raise Interrupted(self.raised)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            # Not sys.exit: that runs finally blocks and waits for threads, and the user has asked twice.
            os.write(2, self.farewell.encode("ascii", "backslashreplace"))
            os._exit(128 + signal.SIGINT)
        if self.raised is None:
            self.raised = int(number)
