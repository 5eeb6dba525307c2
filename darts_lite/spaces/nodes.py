"""The sums of what edges bring to the nodes of a cell."""

from typing import Any

import torch
from torch import Tensor


class Nodes:
    """One sum for each node; formed in place from the second addition on, when it is nobody else's."""

    def __init__(self) -> None:
        self.sums: dict[int, Tensor] = {}
        self.own: set[int] = set()

    def add(self, node: int, y: Tensor, factor: Tensor | None) -> None:
        """Add y (N, C, H, W), times a factor that fits it. Twice differentiable."""
        if factor is not None and factor.dtype != y.dtype:  # autocast would do all of it in the wider one
            y, factor = y * factor, None
        total = self.sums.get(node)
        if factor is not None:
            self.sums[node] = y * factor if total is None else _AddScaled.apply(total, y, factor, node in self.own)
        elif total is None:
            self.sums[node] = y
            return
        else:
            self.sums[node] = total.add_(y) if node in self.own else total + y
        self.own.add(node)

    def finished(self, node: int) -> Tensor | None:
        """The sum, once nothing more will come; None where nothing came."""
        return dense(self.sums[node]) if node in self.sums else None


def dense(x: Tensor) -> Tensor:
    """x (N, C, H, W) in channels_last, and so its gradient: a slice of something wider is copied, once for all its readers."""
    return _Dense.apply(x)


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last).view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous(memory_format=torch.channels_last)


class _AddScaled(torch.autograd.Function):
    """total + factor * y. The gradient of a factor (0-d) takes one pass over memory, where that of `addcmul` takes three."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, y: Tensor, factor: Tensor, in_place: bool) -> Tensor:
        ctx.save_for_backward(y if ctx.needs_input_grad[2] else None, factor)
        if in_place:
            ctx.mark_dirty(total)
            return total.addcmul_(y, factor)
        return torch.addcmul(total, y, factor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (y, factor) = gradients, ctx.saved_tensors
        of_total, for_y, for_factor, _ = ctx.needs_input_grad
        return (
            gradient if of_total else None,
            gradient * factor if for_y else None,
            _inner(gradient, y, factor.shape) if for_factor else None,
            None,
        )


def _inner(a: Tensor, b: Tensor, shape: torch.Size) -> Tensor:
    """The products of two images (N, C, H, W), summed to `shape`."""
    dense = all(image.is_contiguous(memory_format=torch.channels_last) for image in (a, b))
    if not shape and dense and a.device.type == "cpu":
        return torch.dot(a.permute(0, 2, 3, 1).flatten(), b.permute(0, 2, 3, 1).flatten())
    return (a * b).sum_to_size(shape)
