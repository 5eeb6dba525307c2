"""The rule of NAS-Bench-201 (Dong & Yang 2020): every edge keeps its strongest operation."""

from dataclasses import dataclass

import torch

from darts_lite.genotypes.genotype import Cell, Edge, Genotype
from darts_lite.genotypes.schema import SPACE_RULES
from darts_lite.methods.views import Judge, SelectionView
from darts_lite.operations import NONE
from darts_lite.settings.options import option
from darts_lite.spaces.table import Mixing, Table


@dataclass(frozen=True)
class Argmax:
    """The strongest live operation of each edge; ties go to the earlier one of the table.

    `none` may win, as published. Where the genotypes of the space hold no `none` (DARTS), the edge is left out then.
    """

    exclude_none: bool = option(False)  # leave `none` out, where an edge has anything else

    def __call__(self, view: SelectionView, judge: Judge | None = None) -> Genotype:
        """The genotype of an expected mixing. Fails with ValueError where a mixing is not finite."""
        rules = SPACE_RULES[view.space]
        cells = {}
        for name, table in view.tables.items():
            edges = self._edges(table, view.mixing[name])
            nodes = tuple(sorted({target for _, target in table.edges}))
            edges = tuple(edge for edge in edges if edge.operation in rules.operations)
            cells[name] = Cell(edges, nodes if rules.edges is None else nodes[-1:])
        return Genotype(view.space, cells)

    def _edges(self, table: Table, mixing: Mixing) -> tuple[Edge, ...]:
        weights = mixing.operations.double().cpu()
        if not torch.isfinite(weights).all():
            raise ValueError("the mixing holds a number that is not finite")
        eligible = table.alive.cpu()
        if self.exclude_none:
            others = eligible & torch.tensor([operation != NONE for operation in table.operations])
            eligible = torch.where(others.any(dim=1, keepdim=True), others, eligible)
        rows = weights.masked_fill(~eligible, -torch.inf).tolist()
        best = [max(range(len(row)), key=row.__getitem__) for row in rows]  # the first of equals
        return tuple(Edge(table.operations[i], *ends) for i, ends in zip(best, table.edges, strict=True))
