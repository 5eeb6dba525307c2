"""Pointwise convolution, alone and with BatchNorm.

With BatchNorm nothing is kept between them for the backward pass, which convolves once more instead. Of every convolution of the
supernet, two large tensors would wait for the backward pass: what the convolution reads and what it writes. Keeping one of them costs a
tenth of the time of a CPU and saves 40 % of the memory of the whole supernet; a final network keeps both, where fold.py does not make
one of the two layers. While the weights are frozen, as in the architecture step, only the written one is of use, and it is kept: that
costs nothing.

On a CPU the weight gradient of more than one group is a matrix product a group: oneDNN (torch 2.14, channels_last, AVX2) takes 1.4 to 2.1
times as long.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_lite.operations.thresholds import LARGE

Statistics = tuple[Tensor, Tensor] | tuple[None, None]  # running mean and variance, which the call moves


def pointwise(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """1x1 convolution of (N, C, H, W) with `weight` (C', C / groups, 1, 1): (N, C', H, W). Twice differentiable."""
    if groups == 1 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return F.conv2d(x, weight, groups=groups)
    return _Pointwise.apply(x, weight, groups)


def pointwise_norm(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    statistics: Statistics,
    *,
    groups: int,
    momentum: float,
    eps: float,
) -> Tensor:
    """BatchNorm with batch statistics of the 1x1 convolution of (N, C, H, W): (N, C', H, W). Twice differentiable.

    `weight` (C', C / groups, 1, 1); `scale` (C',) of the normalized output, None for 1.
    """
    weight = weight.to(x.dtype)  # as autocast would, which is not there in the backward pass
    return _PointwiseNorm.apply(x, weight, scale, *statistics, groups, momentum, eps)[0]


def spares_memory(x: Tensor) -> bool:
    """Whether `pointwise_norm` is worth its time: for large tensors."""
    return x.numel() * x.element_size() >= LARGE.value


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        return F.conv2d(x, weight, groups=groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        return (*_gradients(gradients[0], x, weight, ctx.groups, *ctx.needs_input_grad[:2]), None)


class _PointwiseNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Any, *rest: Any) -> Any:
        mean, variance, groups, momentum, eps = rest
        y = F.conv2d(x, weight, groups=groups)
        out, batch_mean, inverse_std = torch.native_batch_norm(y, scale, None, mean, variance, True, momentum, eps)
        ctx.settings = groups, eps
        ctx.frozen = not ctx.needs_input_grad[1]
        ctx.save_for_backward(y if ctx.frozen else x, weight, scale, batch_mean, inverse_std)
        ctx.set_materialize_grads(False)
        # As an output, what is kept has a gradient of its own where a second derivative is taken.
        return out, y if ctx.frozen else None

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight, scale, mean, inverse_std = ctx.saved_tensors
        groups, eps = ctx.settings
        y = kept if ctx.frozen else F.conv2d(kept, weight, groups=groups)
        gradient, of_kept = gradients
        gradient = torch.zeros_like(y) if gradient is None else gradient
        wanted = [True, ctx.needs_input_grad[2], False]
        of_y, of_scale, _ = torch.ops.aten.native_batch_norm_backward(
            gradient, y, scale, None, None, mean, inverse_std, True, eps, wanted
        )
        of_y = of_y if of_kept is None else of_y + of_kept
        of_x, of_weight = _gradients(of_y, kept, weight, groups, *ctx.needs_input_grad[:2])
        return of_x, of_weight, of_scale, None, None, None, None, None


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, groups: int, for_x: bool, for_weight: bool
) -> tuple[Any, Any]:
    """Of the input and of the weight of a pointwise convolution, None where they are not wanted; differentiable.

    Without `for_weight`, `x` counts only by its shape, which that of any other image with as many channels may stand for.
    """
    as_products = for_weight and groups > 1 and x.device.type == "cpu" and not torch.is_grad_enabled()
    shape = [1, 1], [0, 0], [1, 1], False, [0, 0], groups
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, *shape, [for_x, for_weight and not as_products, False]
    )
    if as_products:
        ours, theirs = (i.permute(0, 2, 3, 1).flatten(0, 2).unflatten(1, (groups, -1)) for i in (gradient, x))
        of_weight = torch.bmm(ours.permute(1, 2, 0), theirs.transpose(0, 1)).view_as(weight)
    return of_x, of_weight
