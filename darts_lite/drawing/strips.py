"""A plot of numbers in rows: a dot for each number, a bar at the mean of a row, and named vertical lines through all rows."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from darts_lite.drawing.canvas import Box, Curve, Picture, Shape, Text

MARGIN, ROW, WIDTH = 20.0, 30.0, 560.0  # around all; height of a row; of the axis
LETTER = 6.7  # about the width of a letter of a label
DOT, BAR = 9.0, 16.0  # width of a dot, height of the bar
MOST_SPAN = 8.0  # of the axis, below its largest value; what is less is drawn at the left edge, which says so
TICKS = (0.1, 0.2, 0.5, 1.0, 2.0)  # between two numbers below the axis: the first that gives at most ten
INK, FAINT, DOTS = "#1f2937", "#c3cad5", "#2563eb"


@dataclass(frozen=True)
class Strip:
    """A row: its label and its numbers."""

    label: str
    values: Sequence[float]


def strips(rows: Sequence[Strip], lines: Mapping[str, float]) -> Picture:
    """The plot of one row or more, from top to bottom, and of `lines`, whose names stand above, the largest number first."""
    every = [value for row in rows for value in row.values] + list(lines.values())
    highest = max(every)
    lowest = max(min(every), highest - MOST_SPAN)
    clipped = min(every) < lowest
    step = next((tick for tick in TICKS if (highest - lowest) / tick <= 10), TICKS[-1])
    left = MARGIN + LETTER * max(len(row.label) for row in rows) + MARGIN
    top = MARGIN + ROW * len(lines)
    bottom = top + ROW * len(rows)

    def at(value: float) -> float:
        return left + WIDTH * (max(value, lowest) - lowest) / ((highest - lowest) or 1.0)

    shapes: list[Shape] = []
    for number in range(round(lowest / step), round(highest / step) + 1):
        if lowest + (step / 2 if clipped else 0) <= number * step <= highest:
            shapes += _tick(at(number * step), bottom, f"{number * step:.1f}")
    if clipped:
        shapes += _tick(left, bottom, f"\N{LESS-THAN OR EQUAL TO} {lowest:.1f}")
    shapes.append(_curve((left, bottom), (left + WIDTH, bottom), INK))
    for place, (name, value) in enumerate(sorted(lines.items(), key=lambda line: -line[1])):
        y, words = MARGIN + ROW * (place + 0.5), f"{name} {value:.2f}"
        beside = min(at(value) + 6, left + WIDTH - LETTER * len(words))  # inside the sheet
        shapes += [_vertical(at(value), y + 8, bottom, FAINT), Text((beside, y), words, INK, left=True)]
    for place, row in enumerate(rows):
        y = top + ROW * (place + 0.5)
        shapes.append(Text((MARGIN, y), row.label, INK, left=True))
        for value in row.values:
            shapes.append(Box((at(value), y), (DOT, DOT), DOT / 2, DOTS, DOTS, f"{value:.2f}"))
        if row.values:
            shapes.append(_vertical(at(statistics.fmean(row.values)), y - BAR / 2, y + BAR / 2, INK, 3.0))
    return Picture((left + WIDTH + MARGIN, bottom + 16 + MARGIN), tuple(shapes))


def _tick(x: float, bottom: float, word: str) -> list[Shape]:
    return [_vertical(x, bottom, bottom + 5, INK), Text((x, bottom + 16), word, INK)]


def _vertical(x: float, above: float, below: float, color: str, width: float = 1.0) -> Curve:
    """A straight line downwards."""
    return _curve((x, above), (x, below), color, width)


def _curve(start: tuple[float, float], end: tuple[float, float], color: str, width: float = 1.0) -> Curve:
    return Curve((start, start, end, end), color, width)
