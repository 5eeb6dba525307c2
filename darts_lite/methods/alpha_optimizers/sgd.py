"""Plain gradient descent on alpha: alpha <- alpha - alpha_lr (g + alpha_weight_decay alpha), without momentum.

With logits of a softmax, and g its gradient with respect to the mixing itself, this is exponentiated gradient: each weight of the mixing is
multiplied by exp(-alpha_lr g), and each row is normalized again (GAEA, Li et al. 2021).
"""

from dataclasses import dataclass

import torch
from torch import nn

from darts_lite.settings.configs import SearchConfig


@dataclass(frozen=True)
class Sgd:
    """L2 penalty `alpha_weight_decay`; `alpha_betas` are not used."""

    def __call__(self, logits: list[nn.Parameter], config: SearchConfig) -> torch.optim.Optimizer:
        """The optimizer, which has no state."""
        lr = torch.zeros((), device=logits[0].device)
        return torch.optim.SGD(logits, lr, weight_decay=config.alpha_weight_decay, fused=True)
