"""Depthwise convolution whose gradients are fast on a CPU, too: other kernels, the same numbers up to rounding.

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

from darts_lite.operations.sampling import every_second
from darts_lite.operations.thresholds import KERNEL


def depthwise(x: Tensor, weight: Tensor, *, stride: int, dilation: int, bias: Tensor | None = None) -> Tensor:
    """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)), zeros around the image. Twice differentiable.

    `bias` (C) is a constant: it has no gradient.
    """
    if x.device.type != "cpu":
        return _convolve(x, weight, stride, dilation, bias)
    if torch.is_autocast_enabled("cpu"):
        x, weight = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (x, weight))
    if stride == dilation == 2:  # only every second pixel is read
        (x,), stride, dilation = every_second(x, 0), 1, 1
    # Taps that meet only zeros, because the image is smaller than the kernel, are left out.
    unused = max(0, weight.shape[-1] // 2 - (max(x.shape[2:]) - 1) // dilation)
    weight = weight[:, :, unused : weight.shape[2] - unused, unused : weight.shape[3] - unused]
    return _Depthwise.apply(x, weight, stride, dilation, bias)


def likely_mean(x: Tensor, weight: Tensor) -> Tensor:
    """(C): about the mean of what `depthwise` makes of x, from one image and without its borders; a constant."""
    return x[0].detach().mean((1, 2)) * weight.detach().sum((1, 2, 3))


def _convolve(x: Tensor, weight: Tensor, stride: int, dilation: int, bias: Tensor | None = None) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1])


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.dilation = stride, dilation
        return _convolve(x, weight, stride, dilation, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (gradient,), (x, weight), stride, dilation = gradients, ctx.saved_tensors, ctx.stride, ctx.dilation
        for_x, for_weight = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # what is returned here will be differentiated in its turn
            return (*_native(gradient, x, weight, (stride, stride), dilation, for_x, for_weight), None, None, None)
        of_x = of_weight = None
        if for_x and stride == 1:
            of_x = _convolve(gradient, weight.flip(2, 3), 1, dilation)
        elif for_x:
            of_x = _native(gradient, x, weight, (stride, stride), dilation, True, False)[0]
        if for_weight:
            of_weight = _weight_gradient(gradient, x, weight, stride, dilation)
        return of_x, of_weight, None, None, None


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Of a kernel that is 1, 3 or 5 wide; of another one torch computes it itself.

    A tap t columns from the middle sums gradient[w] * x[w + t]. With f columns folded into channels, w = f u + q, two columns of the same q
    are f e apart, e = -1, 0, 1 for the three taps of the folded kernel. f = dilation gives all the taps of a 3 wide kernel, f = 2 dilation
    every second one of a 5 wide kernel; the other two come from the halves of the f columns crosswise. What the taps of all q find
    is added up. In height a dilated kernel is every second row of a dense one.
    """
    height, width = weight.shape[2:]
    if width > KERNEL.value or (width < 5 and stride == 2):
        return _native(gradient, x, weight, (stride, stride), dilation, False, True)[1]
    rows = dilation * (height - 1) + 1
    fold = dilation * (2 if width == 5 else 1)
    gradient, x = _padded(gradient, -(-rows // stride), fold // stride), _padded(x, rows, fold)

    def taps(gradient: Tensor, x: Tensor) -> Tensor:
        """(fold, C, 1, height, 3 or 1): what each column of the fold finds."""
        kernel = weight.new_empty(x.shape[1], 1, rows, min(width, 3))
        found = _native(gradient, x, kernel, (stride, 1), 1, False, True)[1]
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
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    strides: tuple[int, int],
    dilation: int,
    for_x: bool,
    for_weight: bool,
) -> tuple[Any, Any]:
    """What torch computes itself, None where it is not wanted; differentiable. Of `weight` only the shape counts for its own gradient."""
    padding = [dilation * (side // 2) for side in weight.shape[2:]]
    mask = [for_x, for_weight, False]
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, strides, padding, [dilation] * 2, False, [0, 0], x.shape[1], mask
    )
    return of_x, of_weight
