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
from typing import ClassVar

from darts_lite.errors import Interrupted


class Signals:
    """Context that turns SIGTERM and SIGINT into a flag; a second SIGINT ends the process at once with 130.

    `farewell` is written to stderr in that case. Outside the main thread, where Python allows no handlers, nothing is
    installed. Inside another one, as of a run of several runs, it shares the flag and the farewell of that.
    """

    _installed: ClassVar["Signals | None"] = None

    def __init__(self, farewell: str = ""):
        self.farewell = farewell
        self._raised: int | None = None
        self._interrupts = 0
        self._previous: dict[int, object] = {}
        self._outer: Signals | None = None

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._outer = Signals._installed
            if self._outer is None:
                for number in (signal.SIGTERM, signal.SIGINT):
                    self._previous[number] = signal.signal(number, self._note)
                Signals._installed = self
        return self

    def __exit__(self, *_: object) -> None:
        if Signals._installed is self:
            Signals._installed = None
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python; it cannot be put back, the default is nearest.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._previous.clear()

    @property
    def raised(self) -> int | None:
        """Number of the signal that came first; None before."""
        return self._raised if self._outer is None else self._outer.raised

    def check(self, advice: str = "") -> None:
        """Raise `Interrupted`, with the advice, if a signal has come."""
        if self.raised is not None:
            raise Interrupted(self.raised, advice)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            # Not sys.exit: that runs finally blocks and waits for threads, and the user has asked twice.
            os.write(2, self.farewell.encode("ascii", "backslashreplace"))
            os._exit(128 + signal.SIGINT)
        if self._raised is None:
            self._raised = int(number)
