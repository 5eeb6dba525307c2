"""Depthwise convolution whose gradients are fast on a CPU, too: other kernels, the same numbers up to rounding.

oneDNN (torch 2.14, channels_last) is fast forward with any kernel, but its weight gradients only with dense kernels that are 3 wide, and
neither gradient with dilated ones: the others take 10 to 100 times longer. So, on a CPU,

    the gradient of the input    is the convolution of the gradient with the kernel turned around, dilated as it was (stride 1),
    the gradient of the weight   of a 5 wide kernel comes from 3 wide ones, on the image shifted by a pixel to either side;
                                 of a dilated kernel from a dense one, on the 2 x 2 images of every second row and column.

Images are (N, C, H, W), weights (C, 1, k, k) with odd k, gradients have the shape of what they belong to.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise(x: Tensor, weight: Tensor, *, stride: int, dilation: int) -> Tensor:
    """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)), zeros around the image. Twice differentiable."""
    if x.device.type != "cpu":
        return _convolve(x, weight, stride, dilation)
    if torch.is_autocast_enabled("cpu"):
        x, weight = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (x, weight))
    if stride == dilation == 2:  # only every second pixel is read
        x, stride, dilation = x[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last), 1, 1
    # Taps that meet only zeros, because the image is smaller than the kernel, are left out.
    unused = max(0, weight.shape[-1] // 2 - (max(x.shape[2:]) - 1) // dilation)
    weight = weight[:, :, unused : weight.shape[2] - unused, unused : weight.shape[3] - unused]
    return _Depthwise.apply(x, weight, stride, dilation)


def _convolve(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, None, stride, padding, dilation, groups=x.shape[1])


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.dilation = stride, dilation
        return _convolve(x, weight, stride, dilation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,), (x, weight), stride, dilation = gradients, ctx.saved_tensors, ctx.stride, ctx.dilation
        for_x, for_weight = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # what is returned here will be differentiated in its turn
            return (*_native(gradient, x, weight, stride, dilation, for_x, for_weight), None, None)
        of_x = of_weight = None
        if for_x and stride == 1:
            of_x = _convolve(gradient, weight.flip(2, 3), 1, dilation)
        elif for_x:
            of_x = _native(gradient, x, weight, stride, dilation, True, False)[0]
        if for_weight:
            of_weight = _weight_gradient(gradient, x, weight, stride, dilation)
        return of_x, of_weight, None, None


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    if dilation == 2:
        gradient, x = _every_second(gradient), _every_second(x)
    height, width = weight.shape[2:]

    def columns(image: Tensor, count: int) -> Tensor:
        kernel = weight.new_empty(image.shape[1], 1, height, count)
        return _native(gradient, image, kernel, stride, 1, False, True)[1]

    if width == 5:
        # What a shift pushes out of the image is missed by the column nearest to the middle, which is therefore computed apart.
        left, right = columns(F.pad(x, (1, -1)), 3), columns(F.pad(x, (-1, 1)), 3)
        result = torch.cat((left[..., :2], columns(x, 1), right[..., 1:]), dim=-1)
    else:
        result = columns(x, width)
    return result.unflatten(0, (dilation, -1)).sum(0) if dilation == 2 else result


def _every_second(x: Tensor) -> Tensor:
    """The 2 x 2 images of every second row and column: rows side by side, with zeros between them, columns as channels.

    (N, C, H, W) -> (N, 2 * C, H / 2, 2 * (W / 2 + 2)), channels_last: one copy of whole rows. Odd sides are rounded up.
    """
    n, c, h, w = x.shape
    x = F.pad(x, (0, w % 2, 0, h % 2)).contiguous(memory_format=torch.channels_last)
    h, w = x.shape[2] // 2, x.shape[3] // 2
    rows = F.pad(x.permute(0, 2, 3, 1).reshape(n, h, 2, w, 2 * c), (0, 0, 1, 1))
    return rows.reshape(n, h, 2 * (w + 2), 2 * c).permute(0, 3, 1, 2)


def _native(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int, for_x: bool, for_weight: bool
) -> tuple[Any, Any]:
    """What torch computes itself, None where it is not wanted; differentiable. Of `weight` only the shape counts for its own gradient."""
    padding = [dilation * (side // 2) for side in weight.shape[2:]]
    strides, dilations, mask = [stride] * 2, [dilation] * 2, [for_x, for_weight, False]
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, strides, padding, dilations, False, [0, 0], x.shape[1], mask
    )
    return of_x, of_weight
