"""The space of NAS-Bench-201 (Dong & Yang 2020): one cell type of six edges over four states, five operations, 15,625 cells.

Every edge has exactly one operation, `none` included, and the last state is the output. `cells` counts the two residual blocks between the
stages, too: N cells a stage are 3 N + 2 (N=5, C=16: cells=17, channels=16), with the blocks where a skeleton halves by itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import torch
from torch import Tensor

from darts_lite.costs import Costs, count
from darts_lite.drawing import cells as drawing
from darts_lite.errors import UserError, all_of, choice
from darts_lite.genotypes.genotype import Cell, Edge, Genotype
from darts_lite.genotypes.schema import SPACE_RULES
from darts_lite.operations.layers import Form
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces.nasbench201_cells import KERNELS, DenseCopies
from darts_lite.spaces.nasbench201_network import CELL, NasBench201Network
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.plan import CellPlan
from darts_lite.spaces.table import Table

NAME = "nasbench201"
RULES = SPACE_RULES[NAME]
EDGES = RULES.edges or ()
NODES = EDGES[-1][1]
# In a search BatchNorm uses the statistics of its batch, in evaluations too (AutoDL search-cell: affine and track_running_stats are 0).
FORMS = {
    "search": Form(affine=False, pool_norm=False, statistics=False),
    "final": Form(affine=True, pool_norm=False, statistics=True),
}


class NasBench201Space:
    """Tables, supernet, networks, costs, random genotypes, mutations and pictures."""

    forms = FORMS
    usual_selection = "argmax"  # the rule of the space

    def __init__(self, config: SpaceConfig):
        self.name = config.name
        usual = SpaceConfig()  # of the DARTS space, where Python gave a name alone
        self.nodes = NODES if config.nodes == usual.nodes else config.nodes
        own = list(config.candidates) == usual.candidates
        self.columns = tuple(RULES.operations if own else config.candidates)
        self.allowed = (config.edge_candidates or {}).get(CELL)
        problem = all_of(self._problems(config))
        if problem:
            raise problem

    def tables(self, *, weighs_edges: bool = False, alive: dict[str, Tensor] | None = None) -> dict[str, Table]:
        """The table of the cell; `alive` (E, O) replaces the configured candidates, where a later phase has fewer."""
        rows = (
            alive[CELL] if alive else torch.tensor([[name in row for name in self.columns] for row in self._choices()])
        )
        return {CELL: Table(EDGES, self.columns, rows, weighs_edges)}

    def supernet(self, skeleton: Skeleton, tables: dict[str, Table], *, partial: int = 1) -> NasBench201Network:
        """The network of all live candidates, to be called with a mixing."""
        if partial != 1:
            raise UserError("space", "operations see all channels here", "give space=darts", value=self.name)
        table = tables[CELL]
        return NasBench201Network(_plan(table.operations, tuple(table.live())), skeleton, self.forms["search"])

    def network(
        self, genotype: Genotype, skeleton: Skeleton, *, form: str = "final", auxiliary: bool = False
    ) -> NasBench201Network:
        """The network that a genotype describes: `form='final'` as it is retrained, `'search'` as it was in the supernet."""
        live = tuple(enumerate(operations(genotype)))
        return NasBench201Network(_plan(RULES.operations, live), skeleton, self.forms[form], auxiliary=auxiliary)

    def costs(self, tables: dict[str, Table], skeleton: Skeleton, form: str = "final") -> dict[str, list[list[Costs]]]:
        """Costs of each operation on each edge, summed over the cells: (E, O) nested lists.

        The costs of a network are those of its operations and of what is around them, which the cell of six `none` has, too.
        """

        @cache
        def single(name: str, channels: int, positions: int) -> Costs:
            if name not in KERNELS:
                return Costs(0, 0)
            with torch.device("meta"):
                return count(DenseCopies(KERNELS[name], channels, 1, self.forms[form]), positions)

        totals = dict.fromkeys(tables[CELL].operations, Costs(0, 0))
        for halves, channels, (height, width) in zip(
            skeleton.reduces(), skeleton.widths(), skeleton.sizes()[1:], strict=True
        ):
            if not halves:
                totals = {name: total + single(name, channels, height * width) for name, total in totals.items()}
        return {CELL: [list(totals.values()) for _ in EDGES]}

    def random(self, rng: Random) -> Genotype:
        """A genotype uniform over all: an operation for each edge, `none` included."""
        return genotype_of([rng.choice(row) for row in self._choices()])

    def heaviest(self, skeleton: Skeleton, macs: int) -> tuple[Genotype, int]:
        """The constant that a found genotype has to beat: each edge its candidate with most parameters; and the skeleton's channels.

        The benchmark trained every cell with the same channels, so they do not follow `macs`.
        """
        rows = self.costs(self.tables(), skeleton)[CELL]
        known = [dict(zip(self.columns, (one.parameters for one in row), strict=True)) for row in rows]
        chosen = [max(names, key=costs.__getitem__) for names, costs in zip(self._choices(), known, strict=True)]
        return genotype_of(chosen), skeleton.channels

    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        """The genotype with another operation on one edge, uniform over all such changes. ValueError where there is none."""
        now = operations(genotype)
        changes = [(edge, name) for edge, row in enumerate(self._choices()) for name in row if name != now[edge]]
        if not changes:
            raise ValueError("the space has no other genotype one change away")
        edge, name = rng.choice(changes)
        return genotype_of([*now[:edge], name, *now[edge + 1 :]])

    def picture(self, cell: Cell, title: str, paint: Callable[[Cell, str, int], Any] = drawing.svg) -> Any:
        """The picture of a cell, without its edges of `none`: SVG text, or what else `paint` makes."""
        drawn = tuple(edge for edge in cell.edges if edge.operation != "none")
        return paint(replace(cell, edges=drawn), title, RULES.inputs)

    def _choices(self) -> list[list[str]]:
        """Candidates of each edge, in the order of the columns."""
        return [[name for name in self.columns if name in (row or self.columns)] for row in self.allowed or [None] * 6]

    def _problems(self, config: SpaceConfig) -> Iterator[UserError]:
        if self.nodes != NODES:
            fix = f"leave it out, or give {NODES}"
            yield UserError("space.nodes", f"a cell of {NAME} has {NODES} nodes", fix, value=config.nodes)
        lists = [("space.candidates", self.columns, RULES.operations)]
        for cell, rows in (config.edge_candidates or {}).items():
            key = f"space.edge_candidates.{cell}"
            if cell != CELL:
                yield choice("space.edge_candidates", cell, (CELL,))
            elif not isinstance(rows, (list, tuple)) or len(rows) != len(EDGES):
                fix = "one list an edge, in the order (0->1), (0->2), (1->2), ...; null for all candidates"
                yield UserError(key, f"a cell has {len(EDGES)} edges, so as many lists are needed", fix, value=rows)
            else:
                lists += [(f"{key}.{i}", row, self.columns) for i, row in enumerate(rows) if row is not None]
        for key, names, valid in lists:
            wrong = [name for name in names if name not in valid] if isinstance(names, (list, tuple)) else [names]
            if wrong:
                yield choice(key, wrong[0], valid)
            elif not names or len(set(names)) < len(names):
                yield UserError(key, "must name at least one operation, each once", "or null for all", value=names)


def operations(genotype: Genotype) -> list[str]:
    """Operation of each of the six edges of a genotype of this space, in the order of the tables."""
    return [edge.operation for edge in genotype.cells[CELL].edges]


def genotype_of(names: list[str]) -> Genotype:
    """Genotype with these operations, one an edge in the order of the tables."""
    edges = tuple(Edge(name, *ends) for name, ends in zip(names, EDGES, strict=True))
    return Genotype(NAME, {CELL: Cell(edges, (NODES,))})


def _plan(columns: tuple[str, ...], live: tuple[tuple[int, str], ...]) -> CellPlan:
    return CellPlan(EDGES, columns, live, NODES, (NODES,), RULES.inputs)
