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


CHANNELS = "channels"  # the unit of rows whose two sides are reached by images with `value` and `value + 1` of them


@dataclass(eq=False)
class Threshold:
    """One row."""

    name: str
    value: Any  # a number
    unit: str
    level: str  # of what begins there: operation | cell | network
    begins: str
    other: Any = 1  # a value that brings small images to the other side

    @contextmanager
    def at(self, value: Any) -> Iterator[None]:
        """Inside, the threshold lies at `value`."""
        before, self.value = self.value, value
        try:
            yield
        finally:
            self.value = before


def row(name: str, value: Any, unit: str, level: str, begins: str, other: Any = 1) -> Threshold:
    """A new last row of the table."""
    TABLE.append(Threshold(name, value, unit, level, begins, other))
    return TABLE[-1]


LARGE = row(
    "LARGE", 1 << 20, "bytes", "operation", "pointwise convolution and BatchNorm keep one tensor, or are folded"
)
CACHE = row(
    "CACHE", 3 << 20, "bytes", "cell", "a CPU computes fewer copies of a stack at a time: they stay in its cache"
)
ALL = row("ALL", 1 << 30, "copies", "cell", "so many copies of a stack are computed at a time on a GPU")
WIDEST = row(
    "WIDEST", 48, CHANNELS, "operation", "above, nothing is folded: products grow with the square, savings do not"
)
VECTOR = row(
    "VECTOR", 16, CHANNELS, "operation", "multiples make whole vectors, as many floats as an instruction takes"
)
KERNEL = row("KERNEL", 5, "pixels", "operation", "the widest kernel whose weight gradient a CPU takes from 3 wide ones")
STEM = row("STEM", 96, "pixels", "network", "the imagenet stem, whose first cell then sees at least 12x12 pixels")
