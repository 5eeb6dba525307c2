"""Uniform single paths (Guo et al. 2020; Li & Talwalkar 2020): each step trains one random operation an edge; no choice is learned.

What is found is chosen by the shared weights alone, so it needs a selection that asks them.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from darts_lite.spaces.table import Table


@dataclass(frozen=True)
class UniformPath:
    """One live operation an edge, all with the same chance; no step of the alphas is made."""

    sparse: ClassVar[bool] = True
    learns: ClassVar[bool] = False

    def sample(self, logits: Tensor, table: Table, progress: Tensor, generator: Generator) -> Tensor:
        """(E, O) logits, of which only shape, type and device matter -> (E, O) with a single 1 in each row, without a gradient."""
        numbers = torch.empty_like(logits).exponential_(generator=generator).masked_fill(~table.alive, -1)
        return F.one_hot(numbers.argmax(dim=-1), logits.shape[-1]).to(logits)

    def expected(self, logits: Tensor, table: Table, progress: Tensor) -> Tensor:
        """Chance of each operation (E, O): 1 / number of live candidates of its edge."""
        alive = table.alive.to(logits)
        return alive / alive.sum(dim=-1, keepdim=True)
