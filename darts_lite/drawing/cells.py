"""Pictures of cells, as SVG text or as a Pillow image; and the cells as lines of text.

States have the numbers that genotype.json and TensorBoard give them: first the inputs (as many as `inputs` says), then the nodes.

A node stands one column right of the last state that it reads, and its operations are chips stacked before it, so no
label can meet another one or a node. A wire has a lane of its own in each column that it passes (see `layered`).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from darts_lite.drawing.canvas import PAPER, Box, Curve, Picture, Point, Shape, Text, to_image, to_svg
from darts_lite.drawing.layered import Item, heights, ordered
from darts_lite.genotypes.genotype import Cell, Genotype

if TYPE_CHECKING:
    from PIL.Image import Image

# Lengths in pixels of the SVG.
MARGIN, TITLE = 28.0, 34.0
RADIUS, LINK = 15.0, 24.0  # of a node; between its chips and it
CHIP, CHIP_GAP = 22.0, 6.0  # height of a chip; between two of a node
STATE = (74.0, 34.0)  # the boxes of the inputs and of the output
LANE, GAP = 4.0, 10.0  # height of a lane; between two things in a column
SPREAD, WIRE_SPREAD, MOST_SPREAD = 44.0, 5.0, 160.0  # between two columns: least, for each wire, most
LETTER = 6.7  # about the width of a letter on a chip
RIM = 6.0  # width of the white below a wire that makes a crossing read as over and under

# Number of a cell's inputs -> what they are.
READ = {1: "input: 0 from the cell before", 2: "inputs: 0 from two cells before, 1 from the cell before"}

INK, FAINT = "#1f2937", "#c3cad5"
COLORS = {
    "sep": "#2563eb",
    "nor": "#2563eb",
    "dil": "#7c3aed",
    "max": "#c2410c",
    "avg": "#a16207",
    "skip": "#0f766e",
}  # by first word
OTHER = "#475569"


def short(operation: str) -> str:
    """Label of an operation: `sep 3x3` (with a multiplication sign) for sep_conv_3x3, `conv 3x3` for nor_conv_3x3, `skip`."""
    first, *others = operation.split("_")
    words = ["conv" if first == "nor" else first, *(word for word in others if word not in ("conv", "connect"))]
    return " ".join(word.replace("x", "\u00d7") if word[:1].isdigit() else word for word in words)


def color(operation: str) -> str:
    """The colour of the operation's kind; white text on it has a contrast above 4.5."""
    return COLORS.get(operation.split("_")[0], OTHER)


@dataclass(frozen=True)
class _Plan:
    """Positions of everything in a picture. A wire is (source, target, operation); empty operation: the concatenation."""

    inputs: int  # states 0 to inputs - 1
    wires: list[tuple[int, int, str]]
    lanes: list[list[tuple[int, int]]]  # of each wire, one (wire, column) for each column that it passes
    chips: dict[int, list[int]]  # of each state, its incoming wires that have an operation, from top to bottom
    ports: list[float]  # how far below the middle of its target a wire ends
    depth: dict[int, int]  # column of each state
    spans: list[Point]  # left and right end of each column
    y: dict[Item, float]
    size: Point
    chip: float  # width


def layout(cell: Cell, title: str, inputs: int) -> Picture:
    """The picture of a cell, a pure function of it."""
    plan = _plan(cell, TITLE if title else 0.0, inputs)
    shapes = [*_wire_shapes(plan), *_state_shapes(plan)]
    if title:
        shapes.append(Text((MARGIN, MARGIN + 6), title, INK, size=16.0, left=True))
    return Picture(plan.size, tuple(shapes))


def _plan(cell: Cell, head: float, inputs: int) -> _Plan:
    output = cell.last + 1
    depth = dict.fromkeys(range(inputs), 0)
    for node in range(inputs, output):
        depth[node] = 1 + max((depth[edge.source] for edge in cell.into(node)), default=0)
    depth[output] = 1 + max(depth.values())
    wires = [(edge.source, edge.target, edge.operation) for edge in cell.edges]
    wires += [(node, output, "") for node in cell.concat]
    lanes = [[(wire, column) for column in range(depth[a] + 1, depth[b])] for wire, (a, b, _) in enumerate(wires)]
    paths: list[list[Item]] = [[a, *lane, b] for lane, (a, b, _) in zip(lanes, wires, strict=True)]
    columns: list[list[Item]] = [[] for _ in range(depth[output] + 1)]
    for state, column in depth.items():
        columns[column].append(state)
    for item in itertools.chain.from_iterable(lanes):
        columns[item[1]].append(item)
    columns = ordered(columns, paths)

    # The chips of a node lie in the order in which their wires arrive.
    rows = {item: row for column in columns for row, item in enumerate(column)}
    chips: dict[int, list[int]] = {state: [] for state in depth}
    for wire in sorted(range(len(wires)), key=lambda wire: rows[paths[wire][-2]]):
        if wires[wire][2]:
            chips[wires[wire][1]].append(wire)
    ports = [0.0] * len(wires)
    for stack in chips.values():
        for row, wire in enumerate(stack):
            ports[wire] = (row - (len(stack) - 1) / 2) * (CHIP + CHIP_GAP)
    tall: dict[Item, float] = dict.fromkeys(rows, LANE)
    tall.update({state: max(STATE[1], len(stack) * (CHIP + CHIP_GAP) - CHIP_GAP) for state, stack in chips.items()})
    y = heights(columns, paths, ports, tall, GAP)
    down = MARGIN + head - min(y[item] - tall[item] / 2 for item in y)
    y = {item: middle + down for item, middle in y.items()}

    chip = 22 + LETTER * max((len(short(edge.operation)) for edge in cell.edges), default=0)
    spans = [(MARGIN, MARGIN + STATE[0])]
    for column in range(1, len(columns)):
        passing = sum(depth[a] < column <= depth[b] for a, b, _ in wires)
        left = spans[-1][1] + min(MOST_SPREAD, SPREAD + WIRE_SPREAD * passing)
        spans.append((left, left + (STATE[0] if column == depth[output] else chip + LINK + 2 * RADIUS)))
    size = (spans[-1][1] + MARGIN, max(y[item] + tall[item] / 2 for item in y) + MARGIN)
    return _Plan(inputs, wires, lanes, chips, ports, depth, spans, y, size, chip)


def _wire_shapes(plan: _Plan) -> Iterator[Shape]:
    wires: dict[int, list[tuple[tuple[Point, ...], str]]] = {}
    for wire, (source, target, operation) in enumerate(plan.wires):
        points = [(plan.spans[plan.depth[source]][1], plan.y[source])]
        for item in plan.lanes[wire]:
            left, right = plan.spans[item[1]]
            points += [*_bend(points[-1], (left, plan.y[item])), *_bend((left, plan.y[item]), (right, plan.y[item]))]
        points += _bend(points[-1], (plan.spans[plan.depth[target]][0], plan.y[target] + plan.ports[wire]))
        if operation:
            wires.setdefault(source, []).append((tuple(points), color(operation)))
        else:
            yield Curve(tuple(points), FAINT)  # the concatenation lies below everything
    for fan in wires.values():  # wires out of one state do not cut each other
        yield from (Curve(_later(points), PAPER, RIM) for points, _ in fan)
        yield from (Curve(points, tone) for points, tone in fan)


def _state_shapes(plan: _Plan) -> Iterator[Shape]:
    output = max(plan.depth)
    for node in range(plan.inputs, output):
        left, right = plan.spans[plan.depth[node]]
        y = plan.y[node]
        for wire in plan.chips[node]:
            name, middle = plan.wires[wire][2], y + plan.ports[wire]
            start = (left + plan.chip, middle)
            yield Curve((start, *_bend(start, (right - 2 * RADIUS, y))), color(name))
            yield Box((left + plan.chip / 2, middle), (plan.chip, CHIP), CHIP / 2, color(name), color(name), name)
            yield Text((left + plan.chip / 2, middle), short(name), PAPER)
        ink = INK if plan.chips[node] else FAINT  # a node without edges contributes zeros
        yield Box((right - RADIUS, y), (2 * RADIUS, 2 * RADIUS), RADIUS, PAPER, ink, f"node {node}")
        yield Text((right - RADIUS, y), str(node), INK if plan.chips[node] else OTHER, size=13.0)
    read = [(state, f"k\u2212{plan.inputs - state}") for state in range(plan.inputs)]
    for state, sub in (*read, (output, "k")):
        center = (sum(plan.spans[plan.depth[state]]) / 2, plan.y[state])
        yield Box(center, STATE, 9.0, INK, INK, f"input {state}" if state < plan.inputs else "output")
        if state < plan.inputs:
            yield Text((center[0] - 22, center[1]), str(state), FAINT, size=13.0)
        yield Text((center[0] + 10 * (state < plan.inputs), center[1]), "c", PAPER, sub, 15.0)


def svg(cell: Cell, title: str, inputs: int) -> str:
    """The picture as an SVG document."""
    return to_svg(layout(cell, title, inputs), title or "cell")


def raster(cell: Cell, title: str, inputs: int) -> "Image":
    """The picture as a Pillow RGB image, for TensorBoard."""
    return to_image(layout(cell, title, inputs))


def describe(genotype: Genotype) -> str:
    """The cells as plain text, one line a node: each operation and the state that it reads."""
    blocks = []
    for title, cell in genotype.cells.items():
        nodes = range(genotype.inputs, cell.last + 1)
        rows = [[f"{edge.operation}({edge.source})" for edge in cell.into(node)] for node in nodes]
        width = max((len(term) for row in rows for term in row), default=0)
        lines = [" + ".join(f"{term:<{width}}" for term in row).rstrip() or "zeros (no edge)" for row in rows]
        heads = [f"  node {node:<2} = " for node in nodes]
        concat = ", ".join(map(str, cell.concat))
        inputs = f"{title} ({READ[genotype.inputs]})"
        blocks.append("\n".join([inputs, *map(str.__add__, heads, lines), f"  output  = concat({concat})"]))
    return "\n".join(blocks) + "\n"


def _bend(start: Point, end: Point) -> list[Point]:
    """The two controls and the end of a curve that leaves and arrives horizontally."""
    middle = (start[0] + end[0]) / 2
    return [(middle, start[1]), (middle, end[1]), end]


def _later(points: tuple[Point, ...], t: float = 0.3) -> tuple[Point, ...]:
    """The curve without the first `t` of its first segment (de Casteljau), where the wires of a state are still one."""

    def between(pairs: Sequence[Point]) -> list[Point]:
        return [(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t) for a, b in itertools.pairwise(pairs)]

    once = between(points[:4])
    twice = between(once)
    return (*between(twice), twice[1], once[2], *points[3:])
