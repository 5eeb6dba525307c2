"""Layered drawings of directed graphs: which order and which height the things in each column take (pure geometry).

A wire from column a to column b is a path with one item in each of them: its source, a lane of its own in every column
between, its target. `ordered` sorts the columns by the mean row of their neighbours (Sugiyama, Tagawa, Toda 1981), so that few wires
cross; `heights` then brings neighbours to equal height, by isotonic regression.
"""

from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean

SWEEPS = 24
FIRM = 1e6  # weight of what has its place already

Item = Hashable
Columns = list[list[Item]]


def ordered(columns: Columns, paths: Iterable[Sequence[Item]]) -> Columns:
    """The columns, each sorted by the mean row of what leads to its items from the column before; the first keeps its order.

    One pass: on the cells of all published genotypes 24 passes to and fro leave as many wires crossing, 37.
    """
    sources: dict[Item, list[Item]] = defaultdict(list)
    for path in paths:
        for first, second in pairwise(path):
            sources[second].append(first)
    rows: dict[Item, float] = {item: row for row, item in enumerate(columns[0])}
    made = [list(columns[0])]
    for column in columns[1:]:
        # A node without an edge stays about where it is.
        place = {
            item: fmean(rows[one] for one in sources[item]) if sources[item] else row for row, item in enumerate(column)
        }
        made.append(sorted(column, key=place.__getitem__))
        rows |= {item: row for row, item in enumerate(made[-1])}
    return made


def settle(wanted: Sequence[float], room: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The positions nearest to `wanted` in weighted least squares that keep room[i] between i - 1 and i.

    Pool adjacent violators: after subtracting the summed room, positions only have to ascend.
    """
    blocks: list[tuple[float, float, int]] = []  # weighted sum, weight and number of neighbours that move together
    offset = 0.0
    offsets: list[float] = []
    for want, distance, weight in zip(wanted, room, weights, strict=True):
        offset += distance if offsets else 0.0
        offsets.append(offset)
        total, mass, count = (want - offset) * weight, weight, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / mass:
            last = blocks.pop()
            total, mass, count = total + last[0], mass + last[1], count + last[2]
        blocks.append((total, mass, count))
    shifts = [total / mass for total, mass, count in blocks for _ in range(count)]
    return [shift + offset for shift, offset in zip(shifts, offsets, strict=True)]


def heights(
    columns: Columns, paths: Sequence[Sequence[Item]], ports: Sequence[float], size: Mapping[Item, float], gap: float
) -> dict[Item, float]:
    """The height (downwards) of each item's middle: near its neighbours', `gap` apart from those above and below.

    `ports[i]` is how far below the middle of its last item path i ends.
    """
    near: dict[Item, list[tuple[Item, float]]] = defaultdict(list)  # neighbours, how far below them an item wants to be
    for path, port in zip(paths, ports, strict=True):
        for first, second in pairwise(path):
            shift = port if second == path[-1] else 0.0
            near[second].append((first, -shift))
            near[first].append((second, shift))
    rooms = [[(size[a] + size[b]) / 2 + gap for a, b in pairwise([column[0], *column])] for column in columns]
    y: dict[Item, float] = dict.fromkeys(size, 0.0)

    def sweep(near: Mapping[Item, Sequence[tuple[Item, float]]], order: Iterable[int], lanes: Container[Item]) -> None:
        for index in order:
            wanted = [
                fmean(y[other] + shift for other, shift in near[item]) if near.get(item) else y[item]
                for item in columns[index]
            ]
            weights = [1.0 if not lanes or item in lanes else FIRM for item in columns[index]]
            y.update(zip(columns[index], settle(wanted, rooms[index], weights), strict=True))

    forward, backward = range(len(columns)), range(len(columns) - 1, -1, -1)
    for _ in range(SWEEPS):
        sweep(near, backward, ())
        sweep(near, forward, ())
    # Least squares spread a bend over all columns. Now that the rest stands, lanes run level into an end that is theirs
    # alone, or else level out of their start, so that a wire bends in one place.
    shared = Counter((path[-1], port) for path, port in zip(paths, ports, strict=True))
    level: dict[Item, list[tuple[Item, float]]] = {}
    for path, port in zip(paths, ports, strict=True):
        for before, lane, after in zip(path, path[1:], path[2:], strict=False):
            own = shared[path[-1], port] == 1
            level[lane] = [(after, port if after == path[-1] else 0.0)] if own else [(before, 0.0)]
    for order in (forward, backward, forward):
        sweep(level, order, level)
    return y
