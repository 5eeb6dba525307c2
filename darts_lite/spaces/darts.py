"""The DARTS space: normal and reduction cells of N nodes, each the sum of mixed operations on all earlier states (Liu et al. 2019)."""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from darts_lite.costs import Costs, count
from darts_lite.errors import UserError, all_of, choice
from darts_lite.genotypes.genotype import Genotype
from darts_lite.operations import NONE, OPERATIONS
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces.cell import Plan
from darts_lite.spaces.network import Network, Skeleton
from darts_lite.spaces.table import Table

CELLS = ("normal", "reduce")


class DartsSpace:
    """Tables, supernet, networks and costs."""

    def __init__(self, config: SpaceConfig):
        self.name = config.name
        self.nodes = config.nodes
        self.edges = tuple((source, target) for target in range(2, config.nodes + 2) for source in range(target))
        self.columns = tuple(config.candidates)
        self.allowed = {cell: (config.edge_candidates or {}).get(cell) for cell in CELLS}
        problem = all_of(_problems(config, len(self.edges)))
        if problem:
            raise problem

    def tables(self, *, weighs_edges: bool = False, alive: dict[str, Tensor] | None = None) -> dict[str, Table]:
        """What is to be decided: one table a cell type; edges node by node, operations in the configured order.

        `alive` (E, O) of a cell type replaces the configured candidates, where a later phase has fewer.
        """
        alive = alive or {cell: self._configured(rows) for cell, rows in self.allowed.items()}
        return {cell: Table(self.edges, self.columns, alive[cell], weighs_edges) for cell in CELLS}

    def _configured(self, rows: list | None) -> Tensor:
        return torch.tensor(
            [[name in (row or self.columns) for name in self.columns] for row in rows or [None] * len(self.edges)]
        )

    def supernet(self, skeleton: Skeleton, tables: dict[str, Table]) -> Network:
        """The network of all live candidates, to be called with a mixing."""
        concat = tuple(range(2, self.nodes + 2))
        return Network(
            {
                cell: Plan(table.edges, table.operations, tuple(table.live()), self.nodes, concat)
                for cell, table in tables.items()
            },
            skeleton,
            "search",
        )


def network(genotype: Genotype, skeleton: Skeleton, *, form: str = "final", auxiliary: bool = False) -> Network:
    """The network that a genotype of this space describes: `form='final'` as it is retrained, `'search'` as it was in the supernet."""
    plans = {}
    for name, cell in genotype.cells.items():
        edges = tuple((edge.source, edge.target) for edge in cell.edges)
        live = tuple((i, edge.operation) for i, edge in enumerate(cell.edges))
        nodes = max([*cell.concat, *(target for _, target in edges)]) - 1
        plans[name] = Plan(edges, tuple(dict.fromkeys(operation for _, operation in live)), live, nodes, cell.concat)
    return Network(plans, skeleton, form, auxiliary=auxiliary)


def operation_costs(tables: dict[str, Table], skeleton: Skeleton, form: str = "final") -> dict[str, list[list[Costs]]]:
    """What each operation costs on each edge, summed over the cells of the type: (E, O) nested lists a cell type.

    The costs of a network are those of its chosen operations and of what is around them (stem, preprocessing, classifier).
    """

    @cache
    def single(name: str, channels: int, stride: int, positions: int, halfway: int) -> Costs:
        if name == NONE:
            return Costs(0, 0)
        with torch.device("meta"):
            return count(OPERATIONS[name].build(channels, stride, 1, form, skeleton.activation), positions, halfway)

    costs = {cell: [[Costs(0, 0)] * len(table.operations) for _ in table.edges] for cell, table in tables.items()}
    sizes = skeleton.sizes()
    for i, (kind, channels) in enumerate(zip(skeleton.types(), skeleton.widths(), strict=True)):
        (above, _), (height, width) = sizes[i], sizes[i + 1]
        for row, (source, _) in enumerate(tables[kind].edges):
            stride = 2 if kind == "reduce" and source < 2 else 1
            for column, name in enumerate(tables[kind].operations):
                costs[kind][row][column] += single(name, channels, stride, height * width, above * width)
    return costs


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
