"""Thresholds: every number at which the package begins to compute in another way, in one table that the doctor's proof walks.

A row is one line. The code reads `ROW.value` at each call, so a test or the proof may set it for a while:

    with LARGE.at(1): ...                               # every tensor is a large one
    monkeypatch.setattr(thresholds.LARGE, "value", 1)   # the same in a test
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TABLE: "list[Threshold]" = []


@dataclass(eq=False)
class Threshold:
    """One row."""

    name: str
    value: Any  # a number
    unit: str  # "channels": both sides are reached by images with value - 1, value and value + 1 of them; others by setting the value
    begins: str  # what is done from there on

    @contextmanager
    def at(self, value: float) -> Iterator[None]:
        """Inside, the threshold lies at `value`."""
        before, self.value = self.value, value
        try:
            yield
        finally:
            self.value = before


def row(name: str, value: float, unit: str, begins: str) -> Threshold:
    """A new last row of the table."""
    TABLE.append(Threshold(name, value, unit, begins))
    return TABLE[-1]


LARGE = row("LARGE", 1 << 20, "bytes", "pointwise convolution and BatchNorm keep one tensor, and may be folded")
CACHE = row("CACHE", 3 << 20, "bytes", "a CPU computes fewer copies of a stack at a time: they stay in its cache")
ALL = row("ALL", 1 << 30, "copies", "so many of a stack are computed at a time on a GPU")
WIDEST = row(
    "WIDEST", 48, "channels", "above, nothing is folded: products grow with the square, what they save does not"
)
VECTOR = row("VECTOR", 16, "channels", "multiples of it make whole vectors, as many floats as an instruction takes")
KERNEL = row("KERNEL", 5, "pixels", "the widest depthwise kernel whose weight gradient a CPU takes from 3 wide ones")
STEM = row("STEM", 96, "pixels", "of the shorter side; the imagenet stem, whose first cell then sees at least 12x12")
