"""Beta decay (Ye et al. 2022, beta-DARTS): the logits of an edge are held together while they learn.

    penalty = weight(progress) * mean over the edges of log sum exp(alpha),      weight from `start` to `end` in a straight line

Its gradient is weight / E * softmax(alpha): large logits are pushed down more than small ones. At the published 50 all logits sink alike,
to -4 and below, and what argmax reads are differences of 0.01.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from darts_lite.methods.views import ArchitectureView
from darts_lite.settings.options import option


@dataclass(frozen=True)
class BetaDecay:
    """Mean over all edges of all cell types, as published; dead candidates do not count."""

    start: float = option(0.0, low=0)  # weight at the beginning
    end: float = option(50.0, low=0)

    def __call__(self, view: ArchitectureView) -> Tensor:
        """The penalty, 0-d."""
        smooth_maxima = [
            torch.logsumexp(logits.masked_fill(~view.tables[cell].alive, -torch.inf), dim=-1)
            for cell, logits in view.logits.items()
        ]
        weight = self.start + (self.end - self.start) * view.progress
        return weight * torch.cat(smooth_maxima).mean()
