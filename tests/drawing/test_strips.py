"""The plot of numbers in rows."""

import pytest

from darts_lite.drawing.canvas import Box, Curve, Text, to_svg
from darts_lite.drawing.strips import WIDTH, Strip, strips

ROWS = [Strip("first", [93.0, 94.0]), Strip("second", [10.0, 90.0])]
LINES = {"best": 94.0, "random": 87.0}


def test_dots_lie_where_their_numbers_are_and_far_ones_at_the_edge():
    shapes = strips(ROWS, LINES).shapes
    dots = {shape.name: shape.center for shape in shapes if isinstance(shape, Box)}
    left, right = dots["10.00"][0], dots["94.00"][0]
    assert right - left == pytest.approx(WIDTH), "10 is farther below the largest number than the axis reaches"
    assert (dots["93.00"][0] - left) / WIDTH == pytest.approx(7 / 8) and (dots["90.00"][0] - left) / WIDTH == 0.5
    assert dots["93.00"][1] == dots["94.00"][1] < dots["10.00"][1]
    bars = [shape for shape in shapes if isinstance(shape, Curve) and shape.width == 3.0]
    assert [(bar.points[0][0] - left) / WIDTH for bar in bars] == pytest.approx([7.5 / 8, 0])


def test_labels_lines_and_ticks():
    picture = strips(ROWS, LINES)
    words = [shape.word for shape in picture.shapes if isinstance(shape, Text)]
    assert {"first", "second", "best 94.00", "random 87.00", "94.0", "88.0", "≤ 86.0"} <= set(
        words
    ) and "86.0" not in words
    assert not any("≤" in shape.word for shape in strips(ROWS[:1], LINES).shapes if isinstance(shape, Text))
    assert all(0 <= shape.at[0] <= picture.size[0] for shape in picture.shapes if isinstance(shape, Text))
    assert to_svg(picture, "a title") == to_svg(strips(ROWS, LINES), "a title")


@pytest.mark.parametrize("values", [[1.0], [0.5, 0.5], [0.0, -0.3]])
def test_any_numbers(values):
    assert to_svg(strips([Strip("one", values)], {}), "t").startswith("<svg")
