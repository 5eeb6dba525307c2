"""Forecast of a long run: after its first steps, one line says how long the rest takes and how much memory was needed so far."""

import time
from collections.abc import Callable

import torch

from darts_lite.hardware.device import GIB, peak_memory, synchronize
from darts_lite.runs.report import Pace, duration

WARM, MEASURED = 3, 5  # steps: the first ones choose kernels and fill caches
LONG = 60.0  # seconds; of a shorter run nothing is said


class Forecast:
    """The pace of this session's steps, from the last warm one on. It waits for the device twice, and no number depends on it."""

    def __init__(self, total: int, device: torch.device, clock: Callable[[], float] = time.monotonic):
        self.total, self.device, self.pace = total, device, Pace(clock)
        self.steps = 0

    def after(self, done: int) -> str | None:
        """The line, once, after step `done` of the run, if the rest is long."""
        self.steps += 1
        if self.steps not in (WARM, WARM + MEASURED):
            return None
        synchronize(self.device)
        left = self.pace.left(done, self.total)
        if left is None or left < LONG:
            return None
        peak = peak_memory(self.device) / GIB
        return f"about {duration(left)} for {self.total - done:,} more steps; peak memory so far {peak:.2f} GiB"
