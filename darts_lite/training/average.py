"""An exponential moving average of weights and BatchNorm statistics, which is what a retraining with `ema` reports.

After step t (counted from 0): average <- average + r (network - average), r = max(1 - decay, 9 / (10 + t)). The second term is the ramp of
TensorFlow's `ExponentialMovingAverage(num_updates)`: a short training would otherwise report its first weights, which with decay = 0.999
still count for a half after 660 steps. `torch.optim.swa_utils.AveragedModel` is the same without a gate: the average has to stand still
with the weights once a number was not finite.
"""

import copy

import torch
from torch import Tensor

from darts_lite.spaces.network import Network


class Average:
    """Copy of a network, `network`, whose tensors are the averages. Nothing in `update` waits for the device: a graph can capture it."""

    def __init__(self, network: Network, decay: float):
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self._now, self._averages = _tensors(network), _tensors(self.network)

    @torch.no_grad()
    def update(self, step: Tensor, bad: Tensor) -> None:
        """Follow the network after `step` (0-d); nothing moves where `bad` (0-d) is 1."""
        rate = (9 / (10 + step)).clamp(min=1 - self.decay) * (1 - bad)
        moves = torch._foreach_sub(self._now, self._averages)
        torch._foreach_mul_(moves, rate)
        torch._foreach_add_(self._averages, moves)


def _tensors(network: Network) -> list[Tensor]:
    return [*network.parameters(), *(buffer for buffer in network.buffers() if buffer.is_floating_point())]
