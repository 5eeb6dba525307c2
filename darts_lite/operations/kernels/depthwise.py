"""Depthwise convolution whose gradients are fast, too: other kernels than torch's, the same numbers up to rounding.

A second derivative is made of depthwise convolutions and their gradients. Torch's own convolves once for each channel (`groups` in
_convolution_double_backward, torch 2.14): 27,600 convolutions in an exact second-order step of the published size.

oneDNN (torch 2.14, channels_last) is fast forward with any kernel, but its weight gradients only with kernels that are dense, at most 3
wide and no higher than the image, and neither gradient with dilated ones: the others take 5 to 100 times longer. So, on a CPU,

    the gradient of the input    is the convolution of the gradient with the kernel turned around, dilated as it was (stride 1),
    the gradient of the weight   comes from a 3 wide kernel on an image whose neighbouring columns are channels, which in channels_last is
                                 the same memory; see `_weight_gradient`.

Images are (N, C, H, W), weights (C, 1, k, k) with odd k, gradients have the shape of what they belong to.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_lite.operations.kernels.every_second import every_second
from darts_lite.operations.kernels.thresholds import KERNEL


def depthwise(x: Tensor, weight: Tensor, *, stride: int, dilation: int, bias: Tensor | None = None) -> Tensor:
    """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)), zeros around the image. Twice differentiable.

    `bias` (C) is a constant: it has no gradient.
    """
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # As autocast would, which is not there in the backward pass.
        x, weight = (tensor.to(torch.get_autocast_dtype(device)) for tensor in (x, weight))
    if stride == dilation == 2:  # only every second pixel is read
        (x,), stride, dilation = every_second(x, 0), 1, 1
    if on_cpu(x):  # taps that meet only zeros, because the image is smaller than the kernel, are left out
        unused = max(0, weight.shape[-1] // 2 - (max(x.shape[2:]) - 1) // dilation)
        weight = weight[:, :, unused : weight.shape[2] - unused, unused : weight.shape[3] - unused]
    return _Depthwise.apply(x, weight, stride, dilation, bias)


def likely_mean(x: Tensor, weight: Tensor) -> Tensor:
    """(C): about the mean of what `depthwise` makes of x, from one image and without its borders; a constant."""
    return x[0].detach().mean((1, 2)) * weight.detach().sum((1, 2, 3))


def on_cpu(x: Tensor) -> bool:
    """Whether images like x are convolved, and have their gradients, as is fast on a CPU."""
    return x.device.type == "cpu"


def _convolve(x: Tensor, weight: Tensor, stride: int, dilation: int, bias: Tensor | None = None) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1])


class _Depthwise(torch.autograd.Function):
    """The convolution; linear in image and weight, as are its two gradients in what they take. So each is a derivative of the others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.steps = stride, dilation
        return _convolve(x, weight, stride, dilation, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight), (for_x, for_weight) = gradients, ctx.saved_tensors, ctx.needs_input_grad[:2]
        of_x = _InputGradient.apply(gradient, weight, x.detach(), *ctx.steps) if for_x else None
        of_weight = _WeightGradient.apply(gradient, x, weight.detach(), *ctx.steps) if for_weight else None
        return of_x, of_weight, None, None, None


class _InputGradient(torch.autograd.Function):
    """Gradient of the input, from `gradient` and `weight`; of x only the shape counts."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, x: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        ctx.steps = stride, dilation
        if stride == 1 and on_cpu(x):
            return _convolve(gradient, weight.flip(2, 3), 1, dilation)
        return _native(gradient, x, weight, (stride, stride), dilation, for_weight=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_result,), (gradient, weight) = gradients, ctx.saved_tensors
        for_gradient, for_weight = ctx.needs_input_grad[:2]
        of_gradient = _Depthwise.apply(of_result, weight, *ctx.steps, None) if for_gradient else None
        of_weight = _WeightGradient.apply(gradient, of_result, weight.detach(), *ctx.steps) if for_weight else None
        return of_gradient, of_weight, None, None, None


class _WeightGradient(torch.autograd.Function):
    """Gradient of the weight, from `gradient` and `x`; of the weight only the shape counts."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(gradient, x)
        ctx.steps = stride, dilation
        if on_cpu(x):
            return _weight_gradient(gradient, x, weight, stride, dilation)
        return _native(gradient, x, weight, (stride, stride), dilation, for_weight=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_result,), (gradient, x) = gradients, ctx.saved_tensors
        for_gradient, for_x = ctx.needs_input_grad[:2]
        of_gradient = _Depthwise.apply(x, of_result, *ctx.steps, None) if for_gradient else None
        of_x = _InputGradient.apply(gradient, of_result, x.detach(), *ctx.steps) if for_x else None
        return of_gradient, of_x, None, None, None


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Gradient of a kernel that is 1, 3 or 5 wide; torch computes that of another one.

    A tap t columns from the middle sums gradient[w] * x[w + t]. With f columns folded into channels, w = f u + q, two columns of the same q
    are f e apart, e = -1, 0, 1 for the three taps of the folded kernel. f = dilation gives all the taps of a 3 wide kernel, f = 2 dilation
    every second one of a 5 wide kernel; the other two come from the halves of the f columns crosswise. What the taps of all q find
    is added up. In height a dilated kernel is every second row of a dense one.
    """
    height, width = weight.shape[2:]
    if width > KERNEL.value or (width < 5 and stride == 2):
        return _native(gradient, x, weight, (stride, stride), dilation, for_weight=True)
    rows = dilation * (height - 1) + 1
    fold = dilation * (2 if width == 5 else 1)
    gradient, x = _padded(gradient, -(-rows // stride), fold // stride), _padded(x, rows, fold)

    def taps(gradient: Tensor, x: Tensor) -> Tensor:
        """(fold, C, 1, height, 3 or 1): what each column of the fold finds."""
        kernel = weight.new_empty(x.shape[1], 1, rows, min(width, 3))
        found = _native(gradient, x, kernel, (stride, 1), 1, for_weight=True)
        return found[:, :, ::dilation].unflatten(0, (fold, -1))

    if width < 5:
        return taps(_folded(gradient, fold), _folded(x, fold)).sum(0)
    if stride == 2:  # the gradient belongs to the even columns; an odd one is the tap to the right of it
        even, odd = taps(torch.cat((gradient, gradient), dim=1), _folded(x, fold))
        odd = odd[..., :2]
    else:
        gradient, straight = _folded(gradient, fold), _folded(x, fold)
        even = taps(gradient, straight).sum(0)
        left, right = straight.chunk(2, dim=1)
        left, right = taps(gradient, torch.cat((right, left), dim=1)).unflatten(0, (2, -1)).sum(1)
        odd = left[..., :2] + right[..., 1:]
    result = torch.empty_like(weight)
    result[..., ::2], result[..., 1::2] = even, odd
    return result


def _padded(x: Tensor, height: int, multiple: int) -> Tensor:
    """With zeros below and to the right: at least `height` high, and a multiple of `multiple` wide. channels_last."""
    right, below = -x.shape[3] % multiple, max(0, height - x.shape[2])
    x = F.pad(x, (0, right, 0, below)) if right or below else x
    return x.contiguous(memory_format=torch.channels_last)


def _folded(x: Tensor, fold: int) -> Tensor:
    """(N, C, H, W) -> (N, fold * C, H, W / fold): `fold` neighbouring columns as channels. A view of channels_last."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, h, w // fold, fold * c).permute(0, 3, 1, 2)


def _native(
    gradient: Tensor, x: Tensor, weight: Tensor, strides: tuple[int, int], dilation: int, *, for_weight: bool
) -> Tensor:
    """The gradient of the weight or else of the input, by torch's own kernel; what it belongs to counts only by its shape."""
    padding = [dilation * (side // 2) for side in weight.shape[2:]]
    mask = [not for_weight, for_weight, False]
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, strides, padding, [dilation] * 2, False, [0, 0], x.shape[1], mask
    )
    return found[1] if for_weight else found[0]
