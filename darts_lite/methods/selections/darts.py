"""The DARTS rule (Liu et al. 2019, section 2.4): the two strongest incoming edges of every node, each with its strongest operation.

The strength of an edge is its largest mixing weight among the operations except `none`, times its edge weight where edges have one.
`none` keeps its share of the softmax and is excluded only here. Ties go to the earlier operation of the table and to the
edge from the earlier state.
"""

import torch

from darts_lite.genotypes.genotype import Cell, Edge, Genotype
from darts_lite.methods.views import Judge, SelectionView
from darts_lite.operations import NONE
from darts_lite.spaces.table import Mixing, Table

EDGES_A_NODE = 2


def darts(view: SelectionView, judge: Judge | None = None) -> Genotype:
    """The genotype of an expected mixing. Fails with ValueError where a mixing is not finite."""
    return Genotype(view.space, {cell: _cell(table, view.mixing[cell]) for cell, table in view.tables.items()})


def _cell(table: Table, mixing: Mixing) -> Cell:
    weights = mixing.operations.double().cpu()
    if mixing.edges is not None:
        weights = weights * mixing.edges.double().cpu()[:, None]
    if not torch.isfinite(weights).all():
        raise ValueError("the mixing holds a number that is not finite")
    eligible = table.alive.cpu() & torch.tensor([operation != NONE for operation in table.operations])
    strengths = weights.masked_fill(~eligible, -torch.inf).tolist()

    edges: list[Edge] = []
    for node in sorted({target for _, target in table.edges}):
        incoming = []
        for (source, target), row in zip(table.edges, strengths, strict=True):
            best = max(range(len(row)), key=row.__getitem__)  # the first of equals
            if target == node and row[best] > -torch.inf:
                incoming.append((-row[best], source, table.operations[best]))
        strongest = sorted(incoming)[:EDGES_A_NODE]
        edges += [Edge(operation, source, node) for _, source, operation in sorted(strongest, key=lambda edge: edge[1])]
    return Cell(tuple(edges), tuple(sorted({target for _, target in table.edges})))
