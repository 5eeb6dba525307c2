"""The relaxation of GDAS (Dong & Yang 2019) and, without `hard`, of SNAS (Xie et al. 2019): a Gumbel softmax on each edge.

    theta = softmax((log softmax(alpha) + g) / temperature),    g = -log(-log U),    the argmax of alpha + g has the softmax's chances

The temperature goes from `start` to `end` with the progress of the phase, in a straight line.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from darts_lite.methods.relaxations.softmax import Softmax
from darts_lite.methods.relaxations.straight_through import straight_through
from darts_lite.settings.options import option
from darts_lite.spaces.table import Table


@dataclass(frozen=True)
class Gumbel:
    """One operation an edge is drawn and computed, with the gradient of the softmax (`hard`); or all are mixed by the softmax."""

    start: float = option(10.0, above=0)  # temperature
    end: float = option(0.1, above=0)
    hard: bool = option(True)

    @property
    def sparse(self) -> bool:
        """Whether only the drawn operations are computed."""
        return self.hard

    def sample(self, logits: Tensor, table: Table, progress: Tensor, generator: Generator) -> Tensor:
        """(E, O) logits -> (E, O) random mixing whose rows sum to 1; exactly 0 where a candidate is dead or, if `hard`, not drawn."""
        alive, temperature = table.alive, self.start + (self.end - self.start) * progress
        # An Exp(1) sample rounded to 0 would be infinite noise.
        waiting = torch.empty_like(logits).exponential_(generator=generator).clamp_min(torch.finfo(logits.dtype).tiny)
        noisy = torch.log_softmax(logits.masked_fill(~alive, -torch.inf), dim=-1) - waiting.log()
        soft = torch.softmax(noisy / temperature.to(logits), dim=-1)
        if not self.hard:
            return soft
        drawn = F.one_hot(noisy.argmax(dim=-1), logits.shape[-1]).to(logits)
        return straight_through(drawn, soft)

    def expected(self, logits: Tensor, table: Table, progress: Tensor) -> Tensor:
        """Chance of each operation (E, O): the softmax, at any temperature."""
        return Softmax().expected(logits, table, progress)
