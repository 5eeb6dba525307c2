"""Optimizers whose steps a CUDA graph can hold and the device can refuse: nothing waits for the answer whether a number was finite."""

import torch
from torch import Tensor


def gated_step(optimizer: torch.optim.Optimizer, learning_rate: Tensor, bad: Tensor) -> None:
    """Step at `learning_rate` (0-d); nothing moves where `bad` (0-d float32) is 1."""
    optimizer.param_groups[0]["lr"].copy_(learning_rate)
    mark_capture(optimizer)
    optimizer.found_inf = bad  # type: ignore[attr-defined]  # the gate that fused optimizers have for loss scaling
    optimizer.step()


def mark_capture(optimizer: torch.optim.Optimizer) -> None:
    """Mark an Adam as capturable while a graph is captured: torch demands the mark there, and complains about it elsewhere."""
    for group in optimizer.param_groups:
        if "capturable" in group and group["params"][0].is_cuda:
            group["capturable"] = torch.cuda.is_current_stream_capturing()


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """Tensors that an optimizer keeps between steps: number of the parameter -> name -> tensor."""
    return optimizer.state_dict()["state"]


def load_optimizer_state(optimizer: torch.optim.Optimizer, stored: dict[int, dict[str, Tensor]]) -> None:
    """Copy stored tensors into the optimizer's own. Fails where they do not fit.

    `Optimizer.load_state_dict` would take tensors of any size, and fused kernels write past the end of one that is too small.
    """
    for number, tensors in optimizer_state(optimizer).items():
        for name, tensor in tensors.items():
            if stored[number][name].shape != tensor.shape:
                raise ValueError(f"{name} of parameter {number} has another shape")
            tensor.copy_(stored[number][name])
