"""Optimizers whose steps can be captured in a CUDA graph and gated on the device, and the learning rate as a function of progress."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from darts_lite.methods.solvers.bilevel import Lookahead
from darts_lite.operations.layers import tracking_statistics
from darts_lite.training.health import Health


def cosine(progress: Tensor, high: float, low: float) -> Tensor:
    """Learning rate (0-d): from `high` at progress 0 to `low` at progress 1 along half a cosine (Loshchilov & Hutter 2017)."""
    return low + 0.5 * (high - low) * (1 + torch.cos(math.pi * progress))


def linear(progress: Tensor, high: float, low: float) -> Tensor:
    """The same along a straight line."""
    return high + (low - high) * progress


def exponential(progress: Tensor, high: float, low: float) -> Tensor:
    """The same by an equal factor in each step; `low` is above 0."""
    return high * (low / high) ** progress


SCHEDULES = {"cosine": cosine, "linear": linear, "exponential": exponential}


def warmed_up(progress: Tensor, schedule: str, high: float, low: float, *, warmup: float) -> Tensor:
    """A learning rate (0-d) of SCHEDULES; in the first part, `warmup`, of the training it rises from 0 along a line (Goyal et al. 2017)."""
    if warmup == 0:
        return SCHEDULES[schedule](progress, high, low)
    rest = ((progress - warmup) / max(1 - warmup, 1e-9)).clamp(0, 1)
    return torch.where(progress < warmup, high * progress / warmup, SCHEDULES[schedule](rest, high, low))


def adam(parameters: Iterable[nn.Parameter], *, betas: list[float], weight_decay: float) -> torch.optim.Adam:
    """Adam with an L2 penalty (not decoupled), as DARTS uses it on alpha."""
    parameters = list(parameters)
    lr = torch.zeros((), device=parameters[0].device)
    optimizer = torch.optim.Adam(parameters, lr, betas=(betas[0], betas[1]), weight_decay=weight_decay, fused=True)
    # Made at once, as zeros (the first step is the same), so that a checkpoint always finds its places; see also `Descent`.
    for logits in parameters:
        optimizer.state[logits] = {
            "step": torch.zeros((), device=logits.device),
            "exp_avg": torch.zeros_like(logits),
            "exp_avg_sq": torch.zeros_like(logits),
        }
    return optimizer


def memory(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """What an optimizer remembers: its tensors by name, of each parameter by number."""
    return optimizer.state_dict()["state"]


def restore(optimizer: torch.optim.Optimizer, stored: dict[int, dict[str, Tensor]]) -> None:
    """Copy a stored memory into the optimizer's own tensors. Fails where it does not fit.

    `Optimizer.load_state_dict` would take tensors of any size, and fused kernels write past the end of one that is too small.
    """
    for number, tensors in memory(optimizer).items():
        for name, tensor in tensors.items():
            if stored[number][name].shape != tensor.shape:
                raise ValueError(f"{name} of parameter {number} has another shape")
            tensor.copy_(stored[number][name])


def tell_capture(optimizer: torch.optim.Optimizer) -> None:
    """Before a step: torch captures an Adam only if it is marked as capturable, and complains about a marked one that is not captured."""
    for group in optimizer.param_groups:
        if "capturable" in group and group["params"][0].is_cuda:
            group["capturable"] = torch.cuda.is_current_stream_capturing()


def gated_step(optimizer: torch.optim.Optimizer, learning_rate: Tensor, health: Health) -> None:
    """One step at `learning_rate` (0-d); nothing moves once a non-finite number was met."""
    optimizer.param_groups[0]["lr"].copy_(learning_rate)
    tell_capture(optimizer)
    optimizer.found_inf = health.bad  # type: ignore[attr-defined]  # the gate that fused optimizers have for loss scaling
    optimizer.step()


class Descent:
    """SGD on the weights of a network. Weights, momentum and BatchNorm statistics move together, or not at all."""

    def __init__(self, network: nn.Module, config: Any):
        self.network, self.config = network, config
        self.names, self.weights = zip(*network.named_parameters(), strict=True)
        self.statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
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
        """The momentum buffer of each weight, by name."""
        return {
            name: self.optimizer.state[weight]["momentum_buffer"]
            for name, weight in zip(self.names, self.weights, strict=True)
        }

    def lookahead(self, learning_rate: Tensor) -> Lookahead:
        """One step of this optimizer, as a pure function."""
        return Lookahead(learning_rate, self.config.momentum, self.config.weight_decay, tuple(self.momentum().values()))

    def step(
        self,
        forward: Callable[[], tuple[Tensor, Tensor]],
        labels: Tensor,
        learning_rate: Tensor,
        health: Health,
        clock: Tensor,
        regularize: Callable[[list[Tensor]], None] = lambda gradients: None,
    ) -> dict[str, Tensor]:
        """One step on the loss of `forward() -> (loss, logits)`, the only pass that moves BatchNorm statistics; 0-d metrics."""
        statistics = torch.cat(self.statistics)
        self.optimizer.zero_grad(set_to_none=True)
        with tracking_statistics(self.network):
            loss, logits = forward()
        loss.backward()
        regularize([weight.grad for weight in self.weights if weight.grad is not None])
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.gradient_clip or math.inf)
        health.check("weights", "training loss", clock, loss)
        health.check("weights", "gradient", clock, norm)
        # A variance overflows before anything else does: it makes the output zero, and loss and gradients stay finite.
        health.check("weights", "BatchNorm variance", clock, torch.cat(self.statistics))
        gated_step(self.optimizer, learning_rate, health)
        kept = torch.where(health.bad > 0, statistics, torch.cat(self.statistics))
        torch._foreach_copy_(self.statistics, list(kept.split([buffer.numel() for buffer in self.statistics])))
        return {
            "train/loss": loss.detach(),
            "train/accuracy": (logits.argmax(dim=1) == labels).float().mean(),
            "gradient/weights": norm,
            "lr/weights": learning_rate,
        }

    def state_dict(self) -> dict[str, Any]:
        """Network and optimizer."""
        return {"network": self.network.state_dict(), "optimizer": memory(self.optimizer)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.network.load_state_dict(state["network"])
        restore(self.optimizer, state["optimizer"])
