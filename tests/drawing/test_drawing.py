"""Pictures of cells: nothing overlaps, whatever the cell; both back ends are deterministic; text stays text."""

import itertools
import random
import xml.etree.ElementTree as ElementTree

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont

from darts_lite.drawing import cells as drawing
from darts_lite.drawing.canvas import PAPER, Box, Curve, Text
from darts_lite.drawing.cells import COLORS, LETTER, OTHER, describe, short
from darts_lite.drawing.layered import heights, ordered, settle
from darts_lite.genotypes.genotype import Cell, Edge, Genotype, to_plain
from darts_lite.genotypes.schema import OPERATION_NAMES
from darts_lite.genotypes.text import published, published_table


def painted(paint):
    """A picture of a cell with two inputs."""
    return lambda cell, title="": paint(cell, title, 2)


layout, raster, svg = map(painted, (drawing.layout, drawing.raster, drawing.svg))
ONE = Cell((Edge("skip_connect", 0, 2),), (2,))
ODD = Cell(  # two edges from one source, twice the same edge, a node without edges
    (
        Edge("max_pool_3x3", 0, 2),
        Edge("skip_connect", 0, 2),
        Edge("sep_conv_5x5", 1, 4),
        Edge("sep_conv_5x5", 1, 4),
        Edge("dil_conv_5x5", 2, 4),
    ),
    (2, 3, 4),
)


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    nodes = draw(st.integers(1, 16))
    edge = st.integers(2, nodes + 1).flatmap(
        lambda node: st.builds(Edge, st.sampled_from(OPERATION_NAMES[1:]), st.integers(0, node - 1), st.just(node))
    )
    concat = draw(st.lists(st.integers(2, nodes + 1), min_size=1, unique=True))
    return Cell(tuple(draw(st.lists(edge, min_size=1, max_size=3 * nodes))), tuple(concat))


def sides(box: Box) -> tuple[float, float, float, float]:
    (x, y), (width, height) = box.center, box.size
    return x - width / 2, x + width / 2, y - height / 2, y + height / 2


def check_nothing_overlaps(cell: Cell) -> None:
    picture = layout(cell, "title")
    boxes = [shape for shape in picture.shapes if isinstance(shape, Box)]
    assert len(boxes) == len(cell.edges) + cell.last + 2
    for a, b in itertools.combinations(map(sides, boxes), 2):
        apart = max(a[0] - b[1], b[0] - a[1], a[2] - b[3], b[2] - a[3])
        assert apart > 4
    for left, right, top, bottom in map(sides, boxes):
        assert left > 20 and top > 20 and right < picture.size[0] - 20 and bottom < picture.size[1] - 20
    for shape in picture.shapes:
        if isinstance(shape, Curve):
            for p, q, r, s in zip(*(shape.points[first::3] for first in range(3)), shape.points[3::3], strict=False):
                for t in (0.1, 0.3, 0.5, 0.7, 0.9):
                    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
                    x, y = (
                        sum(w * point[axis] for w, point in zip(weights, (p, q, r, s), strict=True)) for axis in (0, 1)
                    )
                    assert not any(a < x < b and c < y < d for a, b, c, d in map(sides, boxes))


@settings(max_examples=40, deadline=None)
@given(cells())
def test_no_box_meets_another_one_and_no_wire_crosses_a_box(cell: Cell):
    check_nothing_overlaps(cell)


@pytest.mark.parametrize("nodes", range(1, 17))
def test_random_cells_of_every_size(nodes: int):
    genotype = tiny.random_genotype(nodes, OPERATION_NAMES, random.Random(nodes))
    for cell in genotype.cells.values():
        check_nothing_overlaps(cell)


def test_wires_are_straight_where_they_can_be():
    """In the published cells each lane is level with what it leads to or comes from, within the room there is."""
    picture = layout(published("darts_v2").cells["reduce"])
    levels = [shape.points for shape in picture.shapes if isinstance(shape, Curve) and len(shape.points) > 4]
    assert sum(points[-1][1] == pytest.approx(points[3][1]) for points in levels) >= 2


@pytest.mark.parametrize("operation", OPERATION_NAMES[1:])
def test_labels_fit_their_chips_and_can_be_read(operation: str):
    assert ImageFont.load_default(12).getlength(short(operation).replace("\u00d7", "x")) < LETTER * len(
        short(operation)
    )


def test_white_text_stands_out_from_every_colour():
    def luminance(color: str) -> float:
        parts = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for color in (*COLORS.values(), OTHER):
        assert (luminance(PAPER) + 0.05) / (luminance(color) + 0.05) > 4.5  # WCAG AA


def test_short_names():
    names = {
        "sep_conv_5x5": "sep 5\u00d75",
        "max_pool_3x3": "max pool 3\u00d73",
        "skip_connect": "skip",
        "nor_conv_3x3": "conv 3\u00d73",
        "conv_7x1_1x7": "conv 7\u00d71 1\u00d77",
    }
    assert {name: short(name) for name in names} == names


def test_svg_is_xml_and_says_every_operation():
    cell = published("darts_v2").cells["normal"]
    root = ElementTree.fromstring(svg(cell, "normal"))
    words = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for edge in cell.edges:
        assert words.count(short(edge.operation)) == sum(other.operation == edge.operation for other in cell.edges)
    inputs = {"c" + "k\u22122", "c" + "k\u22121", "ck"}
    assert set(words) - set(map(short, OPERATION_NAMES)) == {*inputs, *"012345", "normal"}
    assert svg(cell, "normal") == svg(cell, "normal")


def test_titles_are_text_and_nothing_else():
    title = "</text><script>alert('1')</script>&\"\x00\x1b\ud800\n größe"
    document = svg(ONE, title)
    assert "<script" not in document and "\x00" not in document
    root = ElementTree.fromstring(document.encode())
    assert root[0].text == title.replace("\x00", "?").replace("\x1b", "?").replace("\ud800", "?").replace("\n", "?")
    assert raster(ONE, title).size[0] > 0


@pytest.mark.parametrize("cell", [ONE, ODD, published("p_darts").cells["reduce"]], ids=["one", "odd", "p_darts"])
def test_images_are_deterministic(cell: Cell):
    image = raster(cell, "normal")
    assert image.mode == "RGB"
    assert image.tobytes() == raster(cell, "normal").tobytes()
    width, height = layout(cell, "normal").size
    assert image.size[0] == pytest.approx(2 * width, abs=1) and image.size[1] == pytest.approx(2 * height, abs=1)
    assert len(image.resize((64, 64)).getcolors(64 * 64)) > 20  # something is drawn


def test_images_of_very_full_cells_are_bounded():
    edges = [
        Edge(name, source, node) for node in range(2, 14) for source in range(node) for name in OPERATION_NAMES[4:6]
    ]
    width, height = raster(Cell(tuple(edges), tuple(range(2, 14)))).size
    assert width * height < 6.1e6


def test_nodes_without_edges_are_pale():
    texts = {shape.word: shape.color for shape in layout(ODD).shapes if isinstance(shape, Text)}
    assert texts["3"] != texts["2"] == texts["4"]


def test_description():
    genotype = Genotype("darts", {"normal": ODD, "reduce": ONE})
    inputs = " (inputs: 0 from two cells before, 1 from the cell before)\n"
    assert describe(genotype) == (
        f"normal{inputs}"
        "  node 2  = max_pool_3x3(0) + skip_connect(0)\n"
        "  node 3  = zeros (no edge)\n"
        "  node 4  = sep_conv_5x5(1) + sep_conv_5x5(1) + dil_conv_5x5(2)\n"
        "  output  = concat(2, 3, 4)\n"
        f"reduce{inputs}"
        "  node 2  = skip_connect(0)\n"
        "  output  = concat(2)\n"
    )


@given(cells())
def test_picture_text_and_json_have_one_numbering(cell: Cell):
    numbers = {str(state) for state in range(cell.last + 1)}
    shown = [shape.word for shape in layout(cell).shapes if isinstance(shape, Text) and shape.word.isdecimal()]
    assert sorted(shown) == sorted(numbers)
    genotype = Genotype("darts", dict.fromkeys(("reduce", "normal"), cell))
    text, stored = describe(genotype).partition("reduce")[2], to_plain(genotype)["cells"]["reduce"]
    for edge in stored["edges"]:
        (line,) = (line for line in text.splitlines() if line.startswith(f"  node {edge['target']:<2} ="))
        assert f"{edge['operation']}({edge['source']})" in line
    assert text.endswith(f"concat({', '.join(map(str, stored['concat']))})\n")
    assert not set("{}\\_^$") & set(text.replace("_", "")), "no LaTeX"


positions = st.lists(st.tuples(st.floats(-99, 99), st.floats(1, 20), st.floats(0.1, 10)), min_size=1, max_size=8)


@given(positions, st.randoms(use_true_random=False))
def test_settle_is_the_best_position(rows: list[tuple[float, float, float]], rng: random.Random):
    wanted, room, weights = zip(*rows, strict=True)

    def cost(places: list[float]) -> float:
        return sum(weight * (place - want) ** 2 for place, want, weight in zip(places, wanted, weights, strict=True))

    best = settle(wanted, room, weights)
    assert all(b - a >= space - 1e-9 for a, b, space in zip(best, best[1:], room[1:], strict=False))
    for _ in range(20):  # a step towards any other allowed position costs, as the problem is convex
        other = sorted(rng.uniform(-99, 99) for _ in wanted)
        other = [place + space for place, space in zip(other, itertools.accumulate(room), strict=True)]
        step = [0.99 * a + 0.01 * b for a, b in zip(best, other, strict=True)]
        assert cost(step) >= cost(best) - 1e-6


def crossings(columns, paths) -> int:
    """How many pairs of path pieces between the same two columns cross."""
    places = {item: (index, row) for index, column in enumerate(columns) for row, item in enumerate(column)}
    pieces = [(places[a], places[b]) for path in paths for a, b in itertools.pairwise(path)]
    return sum(
        a[0] == c[0] and (a[1] - c[1]) * (b[1] - d[1]) < 0 for (a, b), (c, d) in itertools.combinations(pieces, 2)
    )


def test_few_wires_cross_in_published_cells(monkeypatch: pytest.MonkeyPatch):
    """As few as after many passes over the columns, to and fro (0 to 6 a cell), where the order of edges has 122."""
    found = []

    def noted(columns, paths):
        found.append((crossings(columns, paths), crossings(ordered(columns, paths), paths)))
        return ordered(columns, paths)

    monkeypatch.setattr(drawing, "ordered", noted)
    for name in published_table():
        for cell in published(name).cells.values():
            layout(cell)
    before, after = map(sum, zip(*found, strict=True))
    assert (before, after) == (122, 37)


def test_columns_keep_their_items_and_the_first_its_order():
    columns = [["a", "b", "c"], ["d", "e", "f", "alone"]]
    paths = [["a", "f"], ["b", "e"], ["c", "d"]]
    assert ordered(columns, paths)[0] == columns[0]
    assert ordered(columns, paths)[1] == ["f", "e", "d", "alone"]


def test_a_lone_path_is_level():
    columns = [["a"], ["lane"], ["b"]]
    y = heights(columns, [["a", "lane", "b"]], [5.0], dict.fromkeys(("a", "lane", "b"), 10.0), 4.0)
    assert y["a"] == pytest.approx(y["lane"]) == pytest.approx(y["b"] + 5.0)
