"""The relaxation of DrNAS (Chen et al. 2021): the mixing of an edge is drawn from a Dirichlet distribution that the logits shape.

    theta ~ Dirichlet(c)    with    c = elu(alpha) + 1,    the gradient taken along the path of the sample

A Dirichlet sample is a row of normalized Gamma(c) samples. Below c = 0.01 these underflow, a whole row at a time, so their logarithms are
drawn: log Gamma(c) = log Gamma(c + 1) + log(U) / c with U uniform in (0, 1] (Marsaglia & Tsang 2000, section 6), and theta is a softmax.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from darts_lite.spaces.table import Table

SMALLEST = 1e-8  # concentration; log(U) / c and its derivative are then finite in float32. Alphas below log(SMALLEST) = -18.4 rest


@dataclass(frozen=True)
class Dirichlet:
    """Dirichlet samples with pathwise gradients; selection sees their mean."""

    def sample(self, logits: Tensor, table: Table, progress: Tensor, generator: Generator) -> Tensor:
        """(E, O) logits -> (E, O) random mixing whose rows sum to 1; exactly 0 where a candidate is dead."""
        # The sampler rejects, so what a dead logit asks for would shift the random numbers of all others.
        log_c = log_concentration(logits).masked_fill(~table.alive, 0)
        gamma = torch._standard_gamma(log_c.exp() + 1, generator=generator)
        log_uniform = -torch.empty_like(logits).exponential_(generator=generator)
        log_gamma = gamma.log() + log_uniform * (-log_c).exp()
        return torch.softmax(log_gamma.masked_fill(~table.alive, -torch.inf), dim=-1)

    def expected(self, logits: Tensor, table: Table, progress: Tensor) -> Tensor:
        """Mean of the distribution (E, O): c / sum of c over the live candidates of an edge."""
        return torch.softmax(log_concentration(logits).masked_fill(~table.alive, -torch.inf), dim=-1)


def log_concentration(logits: Tensor) -> Tensor:
    """log(elu(alpha) + 1) of any shape, at least log(SMALLEST): alpha below 0, log(1 + alpha) above."""
    return torch.where(logits > 0, torch.log1p(logits.clamp_min(0)), logits.clamp_min(math.log(SMALLEST)))
