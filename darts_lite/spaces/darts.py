"""The DARTS space: normal and reduction cells of N nodes, each the sum of mixed operations on all earlier states (Liu et al. 2019).

A cell reads the outputs of the two cells before it: states 0 and 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import torch
from torch import Tensor

from darts_lite.costs import Costs, count, nearest
from darts_lite.drawing import cells as drawing
from darts_lite.errors import UserError, all_of, choice
from darts_lite.genotypes.genotype import Cell, Edge, Genotype
from darts_lite.operations import NONE, OPERATIONS
from darts_lite.operations.layers import FORMS
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces.network import Network, Skeleton
from darts_lite.spaces.plan import CellPlan
from darts_lite.spaces.table import Table

CELLS = ("normal", "reduce")
INPUTS = 2
EDGES_A_NODE = 2  # of a random genotype
HEAVY = "sep_conv_3x3"  # at equal MACs the network is wider than with sep_conv_5x5


class DartsSpace:
    """Tables, supernet, networks, costs, random genotypes, mutations and pictures."""

    usual_selection = "darts"  # the rule of the space
    forms = FORMS  # how operations normalize, in a search and in its result

    def __init__(self, config: SpaceConfig):
        self.name = config.name
        self.nodes = config.nodes
        self.edges = tuple(
            (source, target) for target in range(INPUTS, config.nodes + INPUTS) for source in range(target)
        )
        self.columns = tuple(config.candidates)
        self.allowed = {cell: (config.edge_candidates or {}).get(cell) for cell in CELLS}
        problem = all_of(_problems(config, len(self.edges)))
        if problem:
            raise problem

    def tables(self, *, weighs_edges: bool = False, alive: dict[str, Tensor] | None = None) -> dict[str, Table]:
        """One table for each cell type; edges node by node, operations in the configured order.

        `alive` (E, O) of a cell type replaces the configured candidates, where a later phase has fewer.
        """
        alive = alive or {cell: self._configured(rows) for cell, rows in self.allowed.items()}
        return {cell: Table(self.edges, self.columns, alive[cell], weighs_edges) for cell in CELLS}

    def _configured(self, rows: list | None) -> Tensor:
        return torch.tensor(
            [[name in (row or self.columns) for name in self.columns] for row in rows or [None] * len(self.edges)]
        )

    def supernet(self, skeleton: Skeleton, tables: dict[str, Table], *, partial: int = 1) -> Network:
        """The network of all live candidates, to be called with a mixing; its operations see one of `partial` parts of the channels."""
        if skeleton.channels % partial:
            fix = f"give channels={-(-skeleton.channels // partial) * partial}"
            reason = f"is no multiple of {partial}, so operations cannot see a part of 1/{partial} of the channels"
            raise UserError("channels", reason, fix, value=skeleton.channels)
        concat = tuple(range(INPUTS, self.nodes + INPUTS))
        plans = {
            cell: CellPlan(table.edges, table.operations, tuple(table.live()), self.nodes, concat, INPUTS, partial)
            for cell, table in tables.items()
        }
        return Network(plans, types(skeleton), skeleton, self.forms["search"])

    def network(
        self, genotype: Genotype, skeleton: Skeleton, *, form: str = "final", auxiliary: bool = False
    ) -> Network:
        """The network that a genotype describes: `form='final'` as it is retrained, `'search'` as it was in the supernet."""
        plans = {}
        for name, cell in genotype.cells.items():
            edges = tuple((edge.source, edge.target) for edge in cell.edges)
            live = tuple((i, edge.operation) for i, edge in enumerate(cell.edges))
            columns = tuple(dict.fromkeys(operation for _, operation in live))
            plans[name] = CellPlan(edges, columns, live, cell.last - INPUTS + 1, cell.concat, INPUTS)
        return Network(plans, types(skeleton), skeleton, self.forms[form], auxiliary=auxiliary)

    def costs(self, tables: dict[str, Table], skeleton: Skeleton, form: str = "final") -> dict[str, list[list[Costs]]]:
        """Costs of each operation on each edge, summed over the cells of the type: (E, O) nested lists for each cell type.

        The costs of a network are those of its chosen operations and of what is around them (stem, preprocessing, classifier).
        """

        @cache
        def single(name: str, channels: int, stride: int, positions: int, halfway: int) -> Costs:
            if name == NONE:
                return Costs(0, 0)
            with torch.device("meta"):
                operation = OPERATIONS[name].build(channels, stride, 1, self.forms[form], skeleton.activation)
                return count(operation, positions, halfway)

        costs = {cell: [[Costs(0, 0)] * len(table.operations) for _ in table.edges] for cell, table in tables.items()}
        sizes = skeleton.sizes()
        for i, (kind, channels) in enumerate(zip(types(skeleton), skeleton.widths(), strict=True)):
            (above, _), (height, width) = sizes[i], sizes[i + 1]
            for row, (source, _) in enumerate(tables[kind].edges):
                stride = 2 if kind == "reduce" and source < INPUTS else 1
                for column, name in enumerate(tables[kind].operations):
                    costs[kind][row][column] += single(name, channels, stride, height * width, above * width)
        return costs

    def random(self, rng: Random) -> Genotype:
        """A genotype with two edges from distinct states into each node, operations uniform over the candidates without `none`.

        Where the candidates of its edges leave a node fewer than two, it has those.
        """

        def cell(name: str) -> Cell:
            edges = []
            for node in range(INPUTS, INPUTS + self.nodes):
                sources = [source for source in range(node) if self._choices(name, source, node)]
                for source in sorted(rng.sample(sources, min(EDGES_A_NODE, len(sources)))):
                    edges.append(Edge(rng.choice(self._choices(name, source, node)), source, node))
            return Cell(tuple(edges), tuple(range(INPUTS, INPUTS + self.nodes)))

        return Genotype(self.name, {name: cell(name) for name in CELLS})

    def heaviest(self, skeleton: Skeleton, macs: int) -> tuple[Genotype, int]:
        """The constant that a found genotype has to beat, and the channels with which its MACs (an image) are nearest to `macs`.

        Every node adds up its first two edges, each `sep_conv_3x3` where that is a candidate, else its candidate with most parameters.
        """
        tables = self.tables()
        costs = self.costs(tables, skeleton)

        def cell(name: str) -> Cell:
            edges: list[Edge] = []
            for row, (source, target) in enumerate(self.edges):
                known = {self.columns[i]: one.parameters for i, one in enumerate(costs[name][row])}
                choices = self._choices(name, source, target)
                if choices and sum(edge.target == target for edge in edges) < EDGES_A_NODE:
                    edges.append(
                        Edge(HEAVY if HEAVY in choices else max(choices, key=known.__getitem__), source, target)
                    )
            return Cell(tuple(edges), tuple(range(INPUTS, INPUTS + self.nodes)))

        genotype = Genotype(self.name, {name: cell(name) for name in CELLS})

        def macs_with(channels: int) -> int:
            with torch.device("meta"):
                return self.network(genotype, replace(skeleton, channels=channels)).costs().macs

        return genotype, nearest(macs_with, macs, 4 * skeleton.channels)

    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        """The genotype with one change, uniform over all there are: another operation on an edge, or another state that it comes from.

        A state that the node already reads is no other one. ValueError where the space allows no change.
        """
        changes = [
            (name, place, changed)
            for name, cell in genotype.cells.items()
            for place, edge in enumerate(cell.edges)
            for changed in self._changes(name, cell, edge)
        ]
        if not changes:
            raise ValueError("the space has no other genotype one change away")
        name, place, changed = rng.choice(changes)
        edges = list(genotype.cells[name].edges)
        edges[place] = changed
        return replace(genotype, cells=genotype.cells | {name: replace(genotype.cells[name], edges=tuple(edges))})

    def _changes(self, name: str, cell: Cell, edge: Edge) -> Iterator[Edge]:
        for operation in self._choices(name, edge.source, edge.target):
            if operation != edge.operation:
                yield replace(edge, operation=operation)
        read = {other.source for other in cell.into(edge.target)}
        for source in range(edge.target):
            if source not in read and edge.operation in self._choices(name, source, edge.target):
                yield replace(edge, source=source)

    def _choices(self, cell: str, source: int, target: int) -> list[str]:
        """Candidates of an edge, without `none`."""
        rows = self.allowed[cell]
        row = None if rows is None else rows[self.edges.index((source, target))]
        return [name for name in (row or self.columns) if name != NONE]

    def picture(self, cell: Cell, title: str, paint: Callable[[Cell, str, int], Any] = drawing.svg) -> Any:
        """The picture of a cell: SVG text, or what else `paint` makes."""
        return paint(cell, title, INPUTS)


def types(skeleton: Skeleton) -> list[str]:
    """The cell type of each cell, from the input to the output."""
    return ["reduce" if reduces else "normal" for reduces in skeleton.reduces()]


def _problems(config: SpaceConfig, edges: int) -> Iterator[UserError]:
    """Everything that makes a space impossible."""
    lists = [("space.candidates", config.candidates)]
    for cell, rows in (config.edge_candidates or {}).items():
        if cell not in CELLS:
            yield choice("space.edge_candidates", cell, CELLS)
        elif not isinstance(rows, (list, tuple)) or len(rows) != edges:
            yield UserError(
                f"space.edge_candidates.{cell}",
                f"a cell of {config.nodes} nodes has {edges} edges, so {edges} lists are needed",
                "one list an edge, in the order (0->2), (1->2), (0->3), ...; null for all candidates",
                value=rows,
            )
        else:
            if all(isinstance(names, (list, tuple)) and list(names) == [NONE] for names in rows):
                reason = f"no edge of the cell has an operation besides {NONE}"
                yield UserError(f"space.edge_candidates.{cell}", reason, "give one edge more, or null", value=rows)
            lists += [
                (f"space.edge_candidates.{cell}.{row}", names) for row, names in enumerate(rows) if names is not None
            ]
    for key, names in lists:
        if not isinstance(names, (list, tuple)):
            yield UserError(
                key, "must be a list of names", "write e.g. [skip_connect,sep_conv_3x3], or null for all", value=names
            )
            continue
        valid = [*OPERATIONS, NONE] if key == "space.candidates" else config.candidates
        wrong = [name for name in names if name not in valid]
        if wrong:
            yield choice(key, wrong[0], valid)
        elif len(set(names)) < len(names):
            yield UserError(key, "an operation is named twice", "name each operation once", value=names)
        elif not set(names) - ({NONE} if key == "space.candidates" else set()):
            yield UserError(
                key, "no operation is left to choose from", f"name at least one of {', '.join(OPERATIONS)}", value=names
            )
