"""The optimizer of the weights, and learning rates as functions of progress."""

import math

import torch
from torch import Tensor, nn

from darts_lite.hardware.gated import gated_step, load_optimizer_state, optimizer_state
from darts_lite.methods.solvers.bilevel import Lookahead
from darts_lite.settings.configs import RetrainConfig, SearchConfig
from darts_lite.training.health import Health


def cosine(progress: Tensor, high: float, low: float) -> Tensor:
    """Learning rate (0-d): from `high` at progress 0 to `low` at progress 1 along half a cosine (Loshchilov & Hutter 2017)."""
    return low + 0.5 * (high - low) * (1 + torch.cos(math.pi * progress))


def linear(progress: Tensor, high: float, low: float) -> Tensor:
    """Learning rate (0-d): from `high` at progress 0 to `low` at progress 1 along a straight line."""
    return high + (low - high) * progress


def exponential(progress: Tensor, high: float, low: float) -> Tensor:
    """Learning rate (0-d): from `high` at progress 0 to `low` (above 0) at progress 1, by an equal factor in each step."""
    return high * (low / high) ** progress


SCHEDULES = {"cosine": cosine, "linear": linear, "exponential": exponential}


def warmed_up(progress: Tensor, schedule: str, high: float, low: float, *, warmup: float) -> Tensor:
    """Learning rate (0-d) of SCHEDULES; in the first part, `warmup`, of the training it rises from 0 along a line (Goyal et al. 2017)."""
    if warmup == 0:
        return SCHEDULES[schedule](progress, high, low)
    rest = ((progress - warmup) / max(1 - warmup, 1e-9)).clamp(0, 1)
    return torch.where(progress < warmup, high * progress / warmup, SCHEDULES[schedule](rest, high, low))


class WeightOptimizer:
    """SGD on the weights of a network. Weights, momentum and BatchNorm statistics move together, or not at all."""

    def __init__(self, network: nn.Module, config: SearchConfig | RetrainConfig):
        self.network, self.config = network, config
        self.names, self.weights = zip(*network.named_parameters(), strict=True)
        self.buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        self.optimizer = torch.optim.SGD(
            self.weights,
            torch.zeros((), device=self.weights[0].device),
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
        # Made at once, as zeros (the first step is the same): the lookahead reads them, and a graph cannot capture a first step.
        for weight in self.weights:
            self.optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)

    def momentum(self) -> dict[str, Tensor]:
        """Momentum buffer of each weight, by name."""
        return {
            name: self.optimizer.state[weight]["momentum_buffer"]
            for name, weight in zip(self.names, self.weights, strict=True)
        }

    def lookahead(self, learning_rate: Tensor) -> Lookahead:
        """One step of this optimizer, as a pure function."""
        return Lookahead(learning_rate, self.config.momentum, self.config.weight_decay, tuple(self.momentum().values()))

    def follow(self, config: SearchConfig | RetrainConfig) -> None:
        """Go on with the weight decay of another configuration."""
        self.config = config
        self.optimizer.param_groups[0]["weight_decay"] = config.weight_decay

    def statistics(self) -> Tensor:
        """Running means and variances of every BatchNorm: a copy, (numbers,)."""
        return torch.cat(self.buffers) if self.buffers else self.weights[0].new_empty(0)

    def zero_grad(self) -> None:
        """Free the gradients of the step before."""
        self.optimizer.zero_grad(set_to_none=True)

    def gradients(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Weight and gradient by name; no gradient where the loss does not depend on the weight."""
        return {name: (weight, weight.grad) for name, weight in zip(self.names, self.weights, strict=True)}

    def clip(self) -> Tensor:
        """Norm (0-d) of all gradients together, which are then scaled so that it is at most `gradient_clip`."""
        return nn.utils.clip_grad_norm_(self.weights, self.config.gradient_clip or math.inf)

    def check(self, health: Health, step: Tensor, loss: Tensor, norm: Tensor) -> None:
        """Note whether the loss, the norm of the gradients or a BatchNorm variance is not finite at `step`; all 0-d.

        A variance overflows before anything else does: it makes the output zero, and loss and gradients stay finite.
        """
        health.check("weights", "training loss", step, loss)
        health.check("weights", "gradient", step, norm)
        health.check("weights", "BatchNorm variance", step, self.statistics())

    def step(self, learning_rate: Tensor, bad: Tensor, statistics: Tensor) -> None:
        """Move the weights; where `bad` (0-d) is 1 nothing moves, and BatchNorm gets back its `statistics` of before the forward pass."""
        gated_step(self.optimizer, learning_rate, bad)
        if not self.buffers:  # a space without running statistics
            return
        kept = torch.where(bad > 0, statistics, self.statistics())
        torch._foreach_copy_(self.buffers, list(kept.split([buffer.numel() for buffer in self.buffers])))

    def state_dict(self) -> dict[str, dict]:
        """Network and momentum."""
        return {"network": self.network.state_dict(), "optimizer": optimizer_state(self.optimizer)}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        """Go on from a stored state."""
        self.network.load_state_dict(state["network"])
        load_optimizer_state(self.optimizer, state["optimizer"])


def weight_metrics(
    loss: Tensor, logits: Tensor, labels: Tensor, norm: Tensor, learning_rate: Tensor
) -> dict[str, Tensor]:
    """0-d metrics of a weight step; `logits` (N, classes) of the training batch before it."""
    return {
        "train/loss": loss.detach(),
        "train/accuracy": (logits.argmax(dim=1) == labels).float().mean(),
        "gradient/weights": norm,
        "lr/weights": learning_rate,
    }
