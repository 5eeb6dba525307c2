"""Before a long run: after its first steps one line that says how long it will take and how much memory it needed so far."""

import time
from collections.abc import Callable

import torch

from darts_lite.hardware.device import GIB, peak_memory, synchronize
from darts_lite.runs.report import duration

WARM, MEASURED = 3, 5  # steps: the first ones choose kernels and fill caches
LONG = 60.0  # seconds; of a shorter run nothing is said


class Forecast:
    """Counts the steps of this session. It waits for the device twice, and no number of the run depends on it."""

    def __init__(self, total: int, device: torch.device, clock: Callable[[], float] = time.monotonic):
        self.total, self.device, self.clock = total, device, clock
        self.steps, self.started = 0, 0.0

    def after(self, done: int) -> str | None:
        """After step `done` of the run: the line, once, if the rest is long."""
        self.steps += 1
        if self.steps == WARM:
            self.started = self._now()
        if self.steps != WARM + MEASURED:
            return None
        pace, left = (self._now() - self.started) / MEASURED, self.total - done
        if pace * left < LONG:
            return None
        peak = peak_memory(self.device) / GIB
        return f"about {duration(pace * left)} for {left:,} more steps; peak memory so far {peak:.2f} GiB"

    def _now(self) -> float:
        synchronize(self.device)
        return self.clock()
