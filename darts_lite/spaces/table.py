"""`Table`: the open choices of one cell type. `Mixing`: the factors that stand for them in one step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from darts_lite.genotypes.genotype import Cell, Genotype
from darts_lite.spaces.plan import Pairs


@dataclass(frozen=True)
class Table:
    """Rows are edges, columns operations; E edges, O operations."""

    edges: tuple[tuple[int, int], ...]  # (source, target) of each row
    operations: tuple[str, ...]  # of each column
    alive: Tensor  # (E, O) bool: the candidates still in the race
    weighs_edges: bool = False  # whether edges have logits too, normalized over the edges into one node (PC-DARTS)

    def __post_init__(self) -> None:
        if self.alive.shape != (len(self.edges), len(self.operations)) or self.alive.dtype != torch.bool:
            raise ValueError(
                f"alive: (edges, operations) of bool expected, got {tuple(self.alive.shape)} {self.alive.dtype}"
            )
        if not self.alive.any(dim=1).all():
            raise ValueError("alive: every edge needs at least one candidate")

    def live(self) -> list[tuple[int, str]]:
        """The (row, operation) pairs still in the race, row by row (one transfer from the device)."""
        return [(row, self.operations[column]) for row, column in self.alive.nonzero().tolist()]


@dataclass(frozen=True)
class Mixing:
    """The weights of one cell type's mixed operations.

    A leading dimension, where present, is the index of the cell among the cells of its type; without it they share one mixing.
    """

    operations: Tensor  # (..., E, O): factor of each operation's output
    edges: Tensor | None = None  # (..., E): factor of each edge; also scales what bypasses the operations

    def of_cell(self, number: int) -> "Mixing":
        """The mixing of one cell among those of its type: (E, O) and (E,)."""
        operations, edges = self.operations, self.edges
        return Mixing(
            operations[number] if operations.dim() == 3 else operations,
            edges[number] if edges is not None and edges.dim() == 2 else edges,
        )

    def weights(self) -> Tensor:
        """(..., E, O): factor of each operation's output times that of its edge."""
        return self.operations if self.edges is None else self.operations * self.edges[..., None]


def drawn_pairs(tables: dict[str, Table], mixing: dict[str, Mixing]) -> dict[str, Pairs]:
    """The (edge, operation) pairs of each cell type whose factor is not zero; one transfer from the device for all."""
    factors = [mixing[cell].operations for cell in tables]
    used = [one if one.dim() == 2 else one.abs().amax(dim=0) for one in factors]
    flags = iter(torch.cat([one.ne(0).flatten() for one in used]).tolist())
    return {
        cell: frozenset((edge, name) for edge in range(len(table.edges)) for name in table.operations if next(flags))
        for cell, table in tables.items()
    }


def single_path(tables: dict[str, Table], mixing: dict[str, Mixing]) -> bool:
    """Whether no edge mixes two operations: what the mixing stands for is a cell, no blend of many."""
    return all(bool((mixing[cell].operations.ne(0).sum(-1) <= 1).all()) for cell in tables)


def mixing_of(genotype: Genotype, tables: dict[str, Table]) -> dict[str, Mixing]:
    """The mixing that computes a genotype, see `projection`."""
    return projection(genotype.cells, tables)


def projection(cells: dict[str, Cell], tables: dict[str, Table]) -> dict[str, Mixing]:
    """The mixing with the factor 1 for each operation of derived cells, else 0; edges, where they have weights, have 1.

    ValueError where an operation is no live candidate of its edge.
    """
    found = {}
    for cell, table in tables.items():
        factors = torch.zeros(table.alive.shape, device=table.alive.device)
        for edge in cells[cell].edges:
            row, column = table.edges.index((edge.source, edge.target)), table.operations.index(edge.operation)
            factors[row, column] += 1
        if (factors.bool() & ~table.alive).any():
            raise ValueError(f"an operation of the genotype is no candidate of its edge in {cell}")
        found[cell] = Mixing(factors, factors.new_ones(len(table.edges)) if table.weighs_edges else None)
    return found
