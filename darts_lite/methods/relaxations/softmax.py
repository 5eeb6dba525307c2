"""The continuous relaxation of DARTS: a softmax over the live operations of each edge (Liu et al. 2019, eq. 2)."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from darts_lite.spaces.table import Table


@dataclass(frozen=True)
class Softmax:
    """Softmax without noise: training and selection see the same mixing."""

    def sample(self, logits: Tensor, table: Table, progress: Tensor, generator: Generator) -> Tensor:
        """(E, O) logits -> (E, O) mixing whose rows sum to 1; exactly 0 where a candidate is dead."""
        return self.expected(logits, table, progress)

    def expected(self, logits: Tensor, table: Table, progress: Tensor) -> Tensor:
        """Mixing without noise (E, O): equal to `sample`, which has none."""
        return torch.softmax(logits.masked_fill(~table.alive, -torch.inf), dim=-1)


def softmax_over_groups(logits: Tensor, groups: Tensor) -> Tensor:
    """Softmax of (E,) logits over the rows with equal (E,) `groups`: the edges into one node (PC-DARTS, Xu et al. 2020, eq. 3)."""
    same = groups[:, None] == groups[None, :]  # (E, E)
    return (logits - torch.logsumexp(logits.expand_as(same).masked_fill(~same, -torch.inf), dim=1)).exp()
