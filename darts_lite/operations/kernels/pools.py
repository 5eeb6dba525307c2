"""Average pooling whose gradient is right with every torch.

Until torch 2.13 CUDA's avg_pool2d_backward for channels_last forgets the padding: a wrong gradient, without an error. Forward it is right.
So the gradient is computed by a forward pool: with c(i) pixels of the image in window i,

    y[i] = sum of x[j] over j in window i, / c(i)          gradient of x[j] = sum of gradient[i] / c(i) over i whose window has j in it

where "i whose window has j in it" is a 3x3 window itself; with stride 2, of an image with zeros between the pixels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AveragePool(nn.AvgPool2d):
    """3x3 mean of the pixels inside the image: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)). Twice differentiable."""

    def __init__(self, stride: int):
        super().__init__(3, stride, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pool; on a CPU as torch does it."""
        return super().forward(x) if as_torch(x) else _Pool.apply(x, self.stride)


def as_torch(x: Tensor) -> bool:
    """Whether torch's own gradient is used for images like x."""
    return x.device.type == "cpu"


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int) -> Tensor:
        ctx.size, ctx.stride = x.shape[2:], stride
        return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Gradient.apply(gradients[0], ctx.size, ctx.stride), None


class _Gradient(torch.autograd.Function):
    """Linear in what it takes, so its own gradient is the pool."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, size: torch.Size, stride: int) -> Tensor:
        ctx.stride = stride
        ones = gradient.new_ones(1, 1, *size)
        # 9 / c(i) is exact in every precision, as c(i) is a product of two numbers up to 3.
        gradient = gradient * (9 / F.avg_pool2d(ones, 3, stride, 1, divisor_override=1))
        if stride == 2:
            n, c = gradient.shape[:2]
            spread = gradient.new_zeros(n, *size, c).permute(0, 3, 1, 2)
            spread[:, :, ::2, ::2] = gradient
            gradient = spread
        return F.avg_pool2d(gradient, 3, 1, 1)  # divides by 9

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Pool.apply(gradients[0], ctx.stride), None, None
