"""Pointwise convolution, alone and with BatchNorm.

With BatchNorm nothing is kept between them for the backward pass, which convolves once more instead. Of every convolution of the
supernet, two large tensors would wait for the backward pass: what the convolution reads and what it writes. Keeping one of them costs a
tenth of the time of a CPU and saves 40 % of the memory of the whole supernet; a final network keeps both, where fold.py does not make
one of the two layers. While the weights are frozen, as in the architecture step, only the written one is of use, and it is kept: that
costs nothing.

On a CPU the weight gradient of more than one group is a matrix product a group: oneDNN (torch 2.14, channels_last, AVX2) takes 1.4 to 2.1
times as long. Elsewhere a convolution is one matrix product over the channels of all groups, with zeros between them: on a GPU what is read
and written takes longer than the products up to some 500 channels (bf16), and cuDNN rearranges memory for a grouped convolution.

A second derivative has no loop over groups in it, as torch's own of a grouped convolution has (2.14).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_lite.operations.kernels.thresholds import LARGE

Statistics = tuple[Tensor, Tensor] | tuple[None, None]  # running mean and variance, which the call moves


def pointwise(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """1x1 convolution of (N, C, H, W) with `weight` (C', C / groups, 1, 1): (N, C', H, W). Twice differentiable."""
    if as_product(x):
        return _convolve(x, _dense(weight, groups), 1)
    if groups == 1 or torch.is_autocast_enabled("cpu"):
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
    if as_product(x):
        weight, groups = _dense(weight, groups), 1
    return _PointwiseNorm.apply(x, weight, scale, *statistics, groups, momentum, eps)[0]


def as_product(x: Tensor) -> bool:
    """Whether images like x are convolved by one matrix product over the channels of all groups."""
    return x.device.type != "cpu"


def spares_memory(x: Tensor) -> bool:
    """Whether `pointwise_norm` is worth its time: for large tensors."""
    return x.numel() * x.element_size() >= LARGE.value


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        return _convolve(x, weight, groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        return (*_gradients(gradients[0], x, weight, ctx.groups, *ctx.needs_input_grad[:2]), None)


class _PointwiseNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Any, *rest: Any) -> Any:
        mean, variance, groups, momentum, eps = rest
        y = _convolve(x, weight, groups)
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
        for_x, for_weight, for_scale = ctx.needs_input_grad[:3]
        groups, eps = ctx.settings
        y = kept if ctx.frozen else _convolve(kept, weight, groups)
        gradient, of_kept = gradients
        gradient = torch.zeros_like(y) if gradient is None else gradient
        of_y, of_scale, _ = torch.ops.aten.native_batch_norm_backward(
            gradient, y, scale, None, None, mean, inverse_std, True, eps, [True, for_scale, False]
        )
        of_y = of_y if of_kept is None else of_y + of_kept
        x = _like(kept, groups * weight.shape[1]) if ctx.frozen else kept
        of_x, of_weight = _gradients(of_y, x, weight, groups, for_x, for_weight)
        # CUDA returns a gradient of the scale whatever the mask says (torch 2.11 to 2.14).
        return of_x, of_weight, of_scale if for_scale else None, None, None, None, None, None


def _like(y: Tensor, channels: int) -> Tensor:
    """An image of so many channels and the size of y (N, C, H, W), of any values: y itself where it has as many."""
    n, c, h, w = y.shape
    return y if c == channels else y.new_empty(n, h, w, channels).permute(0, 3, 1, 2)


def _convolve(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    if as_product(x):
        return _image(F.linear(_pixels(x), weight.flatten(1)), x)
    return F.conv2d(x, weight, groups=groups)


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, groups: int, for_x: bool, for_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the input and of the weight of a pointwise convolution, None where they are not wanted; differentiable.

    Without `for_weight`, `x` counts only by its shape.
    """
    of_x = of_weight = None
    if for_x:
        of_x = _input_gradient(gradient, x, weight, groups)
    if for_weight:
        of_weight = _weight_gradient(gradient, x, weight, groups)
    return of_x, of_weight


def _input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, groups: int) -> Tensor:
    if as_product(x):
        return _image(_pixels(gradient) @ weight.flatten(1), x)
    if groups > 1 and torch.is_grad_enabled():  # what is returned here will be differentiated in its turn
        turned = weight.flatten(1).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        return F.conv2d(gradient, turned[:, :, None, None], groups=groups)
    return _native(gradient, x, weight, groups, [True, False, False])[0]


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, groups: int) -> Tensor:
    if as_product(x):
        return (_pixels(gradient).t() @ _pixels(x)).view_as(weight)
    if groups == 1:
        return _native(gradient, x, weight, groups, [False, True, False])[1]
    of_y, inputs = (_pixels(image).unflatten(1, (groups, -1)) for image in (gradient, x))
    return torch.bmm(of_y.permute(1, 2, 0), inputs.transpose(0, 1)).view_as(weight)


def _native(gradient: Tensor, x: Tensor, weight: Tensor, groups: int, mask: list[bool]) -> Any:
    """Gradients by torch's own operator: of the input, the weight and the bias, as `mask` says."""
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], groups, mask
    )


def _pixels(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N * H * W, C). A view of channels_last."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _image(pixels: Tensor, like: Tensor) -> Tensor:
    """(N * H * W, C) -> (N, C, H, W) of the same N, H and W as `like`, channels_last."""
    n, _, h, w = like.shape
    return pixels.view(n, h, w, -1).permute(0, 3, 1, 2)


def _dense(weight: Tensor, groups: int) -> Tensor:
    """(C', C / groups, 1, 1) -> (C', C, 1, 1), the weight of the same convolution without groups: zeros for the channels of others."""
    if groups == 1:
        return weight
    blocks = weight.flatten(1).unflatten(0, (groups, -1))
    matrix = torch.diag_embed(blocks.permute(1, 2, 0), dim1=0, dim2=2)  # (groups, C' / groups, groups, C / groups)
    return matrix.flatten(2).flatten(0, 1)[:, :, None, None]
