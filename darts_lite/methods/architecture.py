"""The architecture: logits (alpha) of every table, and the relaxation that turns them into mixing once a step.

Only the logits live here and only the weights live in the supernet, so neither can leak into the other's optimizer.
"""

from typing import Any

import torch
from torch import Generator, Tensor, nn

from darts_lite.methods.method import said
from darts_lite.methods.relaxations.softmax import softmax_over_groups
from darts_lite.methods.relaxations.straight_through import straight_through
from darts_lite.spaces.table import Mixing, Table


class Architecture(nn.Module):
    """Logits `operations[cell]` (E, O), and `edges[cell]` (E,) where the table weighs edges; both start as small normal noise."""

    def __init__(
        self, tables: dict[str, Table], relaxation: Any, *, init_std: float = 1e-3, generator: Generator | None = None
    ):
        super().__init__()
        self.tables, self.relaxation = tables, relaxation

        def logits(*shape: int) -> nn.Parameter:
            return nn.Parameter(init_std * torch.randn(*shape, generator=generator))

        self.operations = nn.ParameterDict({cell: logits(*table.alive.shape) for cell, table in tables.items()})
        self.edges = nn.ParameterDict(
            {cell: logits(len(table.edges)) for cell, table in tables.items() if table.weighs_edges}
        )
        for cell, table in tables.items():
            self.register_buffer(
                f"{cell}_groups", torch.tensor([target for _, target in table.edges]), persistent=False
            )

    def sample(self, progress: Tensor, generator: Generator) -> dict[str, Mixing]:
        """Mixing of a training step: differentiable, with noise. `progress` (0-d) is the part of the phase that is done."""
        return {
            cell: Mixing(
                self.relaxation.sample(self.operations[cell], table, progress, generator), self._edge_factors(cell)
            )
            for cell, table in self.tables.items()
        }

    def expected(self, progress: Tensor) -> dict[str, Mixing]:
        """Mixing without noise, as selections, costs and logs read it."""
        return {
            cell: Mixing(self.relaxation.expected(self.operations[cell], table, progress), self._edge_factors(cell))
            for cell, table in self.tables.items()
        }

    def _edge_factors(self, cell: str) -> Tensor | None:
        if cell not in self.edges:
            return None
        logits = self.edges[cell]
        factors = softmax_over_groups(logits, self.get_buffer(f"{cell}_groups"))
        return straight_through(factors, logits) if said(self.relaxation, "identity_backward") else factors


def flatten(mixing: dict[str, Mixing]) -> tuple[Tensor, ...]:
    """Tensors of a mixing, in a fixed order, as solvers see them."""
    return tuple(tensor for one in mixing.values() for tensor in (one.operations, one.edges) if tensor is not None)


def unflatten(mixing: dict[str, Mixing], tensors: tuple[Tensor, ...]) -> dict[str, Mixing]:
    """Mixing with the structure of `mixing` and these tensors, in the order of `flatten`."""
    values = iter(tensors)
    return {cell: Mixing(next(values), None if one.edges is None else next(values)) for cell, one in mixing.items()}
