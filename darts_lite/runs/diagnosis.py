"""Diagnosis of an architecture after an epoch, as numbers of `metrics.jsonl`, from a line of `alphas.jsonl`.

For each cell type, with p the mixing weights of an edge among its live candidates, normalized to 1:

    architecture/entropy/<cell>              mean over edges of H(p) / log(number of candidates): 1 undecided, 0 decided
    architecture/margin/<cell>               mean over edges of first - second weight, `none` aside: what decides the operation
    architecture/edge_margin/<cell>          mean over nodes of second - third strongest edge: what decides the edges
    architecture/argmax_<kind>/<cell>        share of all edges whose strongest candidate is a skip, a pool, `none`
    architecture/derived_<kind>/<cell>       the same share of the edges of the derived genotype
    architecture/longest_path/<cell>         edges on the longest way from an input to the output of the derived cell

An edge with one candidate has no entropy and no margin, a node with two edges no edge margin; a cell without any of them lacks the value.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from darts_lite.genotypes.genotype import Cell, Genotype
from darts_lite.operations import NONE
from darts_lite.spaces.table import Mixing, Table

KINDS: dict[str, Callable[[str], bool]] = {
    "skip": lambda operation: operation == "skip_connect",
    "pool": lambda operation: "_pool_" in operation,
    "none": lambda operation: operation == NONE,
}


def diagnose(tables: dict[str, Table], mixing: dict[str, Mixing], genotype: Genotype) -> dict[str, float]:
    """The values that the head of this file lists, from tables, expected mixing (E, O) and the genotype derived from them."""
    values: dict[str, float] = {}
    for cell, table in tables.items():
        found = {**relaxed(table, mixing[cell]), **derived(genotype.cells[cell])}
        values |= {f"architecture/{name}/{cell}": value for name, value in found.items()}
    return values


def relaxed(table: Table, mixing: Mixing) -> dict[str, float]:
    """Entropy, margin, edge_margin and the shares of the strongest candidates, from the mixing of one cell type."""
    rows = [
        {table.operations[column]: weight for column, (weight, live) in enumerate(zip(*row, strict=True)) if live}
        for row in zip(mixing.operations.tolist(), table.alive.tolist(), strict=True)
    ]
    factors = [1.0] * len(rows) if mixing.edges is None else mixing.edges.tolist()
    choices = [sorted((w for name, w in row.items() if name != NONE), reverse=True) for row in rows]
    entering: dict[int, list[float]] = {}  # node -> strengths of its edges, strongest first
    for (_, target), choice, factor in zip(table.edges, choices, factors, strict=True):
        entering.setdefault(target, []).extend(factor * weight for weight in choice[:1])
    means = {
        "entropy": [entropy(list(row.values())) for row in rows if len(row) > 1],
        "margin": [choice[0] - choice[1] for choice in choices if len(choice) > 1],
        "edge_margin": [_second_to_third(strengths) for strengths in entering.values() if len(strengths) > 2],
    }
    strongest = [max(row, key=row.__getitem__) for row in rows]  # the first of equals
    return {name: fmean(values) for name, values in means.items() if values} | shares(strongest, "argmax")


def derived(cell: Cell) -> dict[str, float]:
    """Shares of the operations of one derived cell, and its longest path."""
    return shares([edge.operation for edge in cell.edges], "derived") | {"longest_path": longest_path(cell)}


def entropy(weights: Sequence[float]) -> float:
    """H(p) / log(n) of n > 1 weights, p being their shares of the sum; weights that are 0 or less count as 0."""
    positive = [weight for weight in weights if weight > 0]
    shares = [weight / sum(positive) for weight in positive]
    return -sum(share * math.log(share) for share in shares) / math.log(len(weights)) + 0.0  # + 0.0: no negative zero


def shares(operations: Sequence[str], prefix: str) -> dict[str, float]:
    """{"<prefix>_skip": share of these operations, ...}, 0 of none at all."""
    return {f"{prefix}_{kind}": sum(map(is_it, operations)) / max(1, len(operations)) for kind, is_it in KINDS.items()}


def longest_path(cell: Cell) -> int:
    """Edges on the longest way from an input to a node of `concat`; `none` is no way, nor is what begins in a node without edges."""
    ways = [edge for edge in cell.edges if edge.operation != NONE]
    first_node = min((edge.target for edge in cell.edges), default=0)
    lengths = dict.fromkeys(range(first_node), 0)  # state -> edges from an input
    for edge in sorted(ways, key=lambda edge: edge.target):
        if edge.source in lengths:
            lengths[edge.target] = max(lengths.get(edge.target, 0), lengths[edge.source] + 1)
    return max(_known(cell.concat, lengths), default=0)


def _known(states: Iterable[int], lengths: dict[int, int]) -> list[int]:
    """The lengths of those states that an input reaches."""
    return [lengths[state] for state in states if state in lengths]


def _second_to_third(strengths: Sequence[float]) -> float:
    """The second largest number less the third largest."""
    _, second, third = sorted(strengths, reverse=True)[:3]
    return second - third
