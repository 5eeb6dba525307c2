"""Adam with an L2 penalty (not decoupled), as DARTS uses it on alpha (Liu et al. 2019; Kingma & Ba 2015)."""

from dataclasses import dataclass

import torch
from torch import nn

from darts_lite.settings.configs import SearchConfig


@dataclass(frozen=True)
class Adam:
    """Momentum `alpha_betas[0]`, scale `alpha_betas[1]`, L2 penalty `alpha_weight_decay`."""

    def __call__(self, logits: list[nn.Parameter], config: SearchConfig) -> torch.optim.Optimizer:
        """The optimizer, with zeros for its state: its first step is the same."""
        lr, (first, second) = torch.zeros((), device=logits[0].device), config.alpha_betas
        decay = config.alpha_weight_decay
        optimizer = torch.optim.Adam(logits, lr, betas=(first, second), weight_decay=decay, fused=True)
        for one in logits:
            optimizer.state[one] = {
                "step": torch.zeros((), device=one.device),
                "exp_avg": torch.zeros_like(one),
                "exp_avg_sq": torch.zeros_like(one),
            }
        return optimizer
