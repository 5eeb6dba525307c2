"""Candidates: the most promising genotypes of finished searches, or random ones, for a selection that lets them compete.

    score       the genotype that a search found, then those one choice away from it, least weight lost first
    margin      of its least certain edge all other operations, then of the next one
    epoch       the genotypes of the epochs before, newest first
    consensus   of several searches: the genotype of their mean mixing, then its alternatives by margin
    random      genotypes of the space, which no search has to find

The weight of a genotype is the sum of the mixing weights of its operations. The margin of an edge is its first less its second weight,
`none` aside. A choice is tried by the rule itself, on a mixing in which one operation has all the weight of its edge.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from darts_lite.genotypes.genotype import Genotype
from darts_lite.methods.views import SelectionView
from darts_lite.operations import NONE
from darts_lite.spaces.table import Mixing, Table

DRAWS = 10_000  # of random genotypes at most, where a space has fewer than are wanted
Rule = Callable[[SelectionView, Any], Genotype]
Place = tuple[str, int]  # cell type, row of its table


@dataclass(frozen=True)
class Finished:
    """A finished search."""

    name: str
    genotype: Genotype  # that it found
    epoch: int  # whose architecture that is of
    views: dict[int, SelectionView]  # by epoch


@dataclass(frozen=True)
class Origin:
    """What candidates are made of."""

    searches: Sequence[Finished]
    rule: Rule  # makes a genotype of a view
    draw: Callable[[], Genotype]  # a random genotype of the space


@dataclass(frozen=True)
class Candidate:
    """A genotype, and where it comes from."""

    genotype: Genotype
    run: str | None  # name of the search; of a consensus the first one; of a random one None
    source: str


def most_promising(origin: Origin, sources: Sequence[str], number: int) -> list[Candidate]:
    """At most `number` distinct candidates, one in turn from each source of each search."""
    streams = [(name, source, stream) for source in sources for name, stream in SOURCES[source](origin)]
    chosen: dict[Genotype, Candidate] = {}
    while streams and len(chosen) < number:
        name, source, stream = streams.pop(0)
        genotype = next((genotype for genotype in stream if genotype not in chosen), None)
        if genotype is not None:
            chosen[genotype] = Candidate(genotype, name, source)
            streams.append((name, source, stream))
    return list(chosen.values())


def survivors(scores: dict[int, tuple[float, float]], number: int) -> list[int]:
    """The best `number` of candidate -> (accuracy, loss), ascending; ties: the lower loss, then the lower candidate."""
    return sorted(sorted(scores, key=lambda one: (-scores[one][0], scores[one][1], one))[:number])


# Sources: an origin -> (name of a search, its genotypes, most promising first) of each stream.

Streams = Iterator[tuple[str | None, Iterator[Genotype]]]


def _by_score(origin: Origin) -> Streams:
    for one in origin.searches:
        yield one.name, _found_then(one, origin.rule)


def _found_then(one: Finished, rule: Rule) -> Iterator[Genotype]:
    yield one.genotype
    view = one.views[one.epoch]
    others = [
        genotype
        for cell, table in view.tables.items()
        for row in range(len(table.edges))
        for genotype in alternatives(view, rule, (cell, row))
    ]
    yield from sorted(others, key=lambda genotype: -weight(view, genotype))  # stable: ties go to the earlier edge


def _by_margin(origin: Origin) -> Streams:
    for one in origin.searches:
        yield one.name, least_certain(one.views[one.epoch], origin.rule, one.genotype)


def _by_epoch(origin: Origin) -> Streams:
    for one in origin.searches:
        # In epoch 0 nothing is learned.
        before = sorted((epoch for epoch in one.views if 0 < epoch < one.epoch), reverse=True)
        yield one.name, (origin.rule(one.views[epoch], None) for epoch in before if prefers(one.views[epoch]))


def _by_consensus(origin: Origin) -> Streams:
    if len(origin.searches) > 1:
        view = mean([one.views[one.epoch] for one in origin.searches])
        yield origin.searches[0].name, _agreed_then(view, origin.rule)


def _agreed_then(view: SelectionView, rule: Rule) -> Iterator[Genotype]:
    if not prefers(view):
        return
    genotype = rule(view, None)
    yield genotype
    yield from least_certain(view, rule, genotype)


def _by_chance(origin: Origin) -> Streams:
    yield None, (origin.draw() for _ in range(DRAWS))


SOURCES = {
    "score": _by_score,
    "margin": _by_margin,
    "epoch": _by_epoch,
    "consensus": _by_consensus,
    "random": _by_chance,
}


# What they are made of


def weight(view: SelectionView, genotype: Genotype) -> float:
    """Sum of the mixing weights of the operations of a genotype."""
    total = 0.0
    for name, cell in genotype.cells.items():
        table, weights = view.tables[name], view.mixing[name].weights()
        total += sum(
            float(weights[table.edges.index((edge.source, edge.target)), table.operations.index(edge.operation)])
            for edge in cell.edges
        )
    return total


def least_certain(view: SelectionView, rule: Rule, genotype: Genotype) -> Iterator[Genotype]:
    """Alternatives of a genotype: on its edge with the smallest margin, the strongest operation first, then on the next edge."""
    places = [
        (name, view.tables[name].edges.index((edge.source, edge.target)))
        for name, cell in genotype.cells.items()
        for edge in cell.edges
    ]
    for place in sorted(places, key=lambda place: margin(view, place)):
        yield from alternatives(view, rule, place)


def margin(view: SelectionView, place: Place) -> float:
    """First less second weight of an edge, `none` aside; infinite where it has one candidate."""
    cell, row = place
    weights = view.mixing[cell].operations[row].tolist()
    kept = sorted(
        (weights[column] for column in _live(view.tables[cell], row) if view.tables[cell].operations[column] != NONE),
        reverse=True,
    )
    return next((first - second for first, second in pairwise(kept)), float("inf"))


def alternatives(view: SelectionView, rule: Rule, place: Place) -> Iterator[Genotype]:
    """What the rule makes of a view where one operation has all the weight of an edge; the strongest operation first.

    An edge whose weights are all alike says nothing, and gives none. Where the rule cannot take the operation, it may leave the edge out.
    """
    cell, row = place
    table, weights = view.tables[cell], view.mixing[cell].operations[row]
    live = _live(table, row)
    if not unlike(view, place):
        return
    for column in sorted(live, key=lambda column: -float(weights[column])):
        genotype = rule(forced(view, place, column), None)
        taken = [edge for edge in genotype.cells[cell].edges if (edge.source, edge.target) == table.edges[row]]
        if all(edge.operation == table.operations[column] for edge in taken):
            yield genotype


def prefers(view: SelectionView) -> bool:
    """Whether a view ranks anything; that of a relaxation that learns nothing does not."""
    return any(unlike(view, (cell, row)) for cell, table in view.tables.items() for row in range(len(table.edges)))


def unlike(view: SelectionView, place: Place) -> bool:
    """Whether the candidates of an edge have different weights."""
    cell, row = place
    return len({float(view.mixing[cell].operations[row, column]) for column in _live(view.tables[cell], row)}) > 1


def forced(view: SelectionView, place: Place, column: int) -> SelectionView:
    """The view with all the weight of one edge on the operation in `column`."""
    cell, row = place
    mixing = view.mixing[cell]
    operations = mixing.operations.clone()
    operations[row] = torch.nn.functional.one_hot(torch.tensor(column), operations.shape[1]).to(operations)
    return replace(view, mixing=view.mixing | {cell: replace(mixing, operations=operations)})


def mean(views: Sequence[SelectionView]) -> SelectionView:
    """The view of the mean mixing; a candidate is alive where it is in one of them, with weight 0 in the others."""
    first = views[0]

    def average(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(tensors)).mean(dim=0)

    tables, mixing = {}, {}
    for cell, table in first.tables.items():
        all_alive = torch.stack([view.tables[cell].alive for view in views]).any(dim=0)
        edges = [one.edges for one in (view.mixing[cell] for view in views) if one.edges is not None]
        operations = average([view.mixing[cell].operations for view in views])
        tables[cell] = replace(table, alive=all_alive)
        mixing[cell] = Mixing(operations, average(edges) if edges else None)
    return replace(first, tables=tables, mixing=mixing)


def _live(table: Table, row: int) -> list[int]:
    """Columns of the candidates of an edge."""
    return table.alive[row].nonzero().flatten().tolist()
