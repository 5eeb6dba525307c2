"""The plan of a cell: what it computes, as pure data that a space makes of its tables or of a genotype."""

from dataclasses import dataclass

# Whose weights one copy of a stack holds: operation, source, target (None: all edges out of the source).
Key = tuple[str, int, int | None]
Pairs = frozenset[tuple[int, str]]  # (edge, operation)


@dataclass(frozen=True)
class CellPlan:
    """The graph of a cell. States are counted from 0, inputs first, then nodes."""

    edges: tuple[tuple[int, int], ...]  # (source, target)
    columns: tuple[str, ...]  # operations, in the order of the mixing's columns
    live: tuple[tuple[int, str], ...]  # (edge, operation)
    nodes: int
    concat: tuple[int, ...]  # states whose concatenation is the output
    inputs: int
    partial: int = 1  # K: operations see the first C / K channels, the rest bypasses them (PC-DARTS)
