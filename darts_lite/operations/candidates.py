"""The candidate operations of the DARTS space, each written once for `copies` parallel copies (Liu et al. 2019, section 3.1).

`form='search'`: BatchNorm without affine parameters, also after pools. `form='final'`: affine BatchNorm, plain pools (as published).
Every class is built as `Operation(channels, stride, copies, form, activation)` and maps (N, copies * C, H, W) to
(N, copies * C, ceil(H / stride), ceil(W / stride)). It also says how the edges out of a state share it:

    shared(stride)   static: the output is the same on every edge, so one copy a state is enough; called without `scale`
    activated        the input is activation(state), which the caller computes once for a state, rather than the state itself
    identity         the operation changes nothing, so drop-path spares it (released code of the paper)

Called with `scale` (copies,) or None, a factor of each copy's output (what is shared is called without), and with `first`, see layers.py.
What is not shared returns a new tensor: the sum of an edge is formed in it.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from darts_lite.operations.kernels.pools import AveragePool
from darts_lite.operations.layers import BatchNorm, DepthwiseSeparable, FactorizedReduce, rows

Activation = Callable[[], nn.Module]


class Pool(nn.Module):
    """3x3 pooling with zero padding; the average counts only pixels of the image."""

    activated = False
    identity = False

    def __init__(self, kind: str, channels: int, stride: int, copies: int, form: str, activation: Activation):
        super().__init__()
        self.kind, self.stride = kind, stride
        self.pool = nn.MaxPool2d(3, stride, 1) if kind == "max" else AveragePool(stride)
        self.norm = BatchNorm(channels, copies=copies, affine=False) if form == "search" else None

    @staticmethod
    def shared(stride: int) -> bool:
        """It has no weights."""
        return True

    def forward(self, x: Tensor, scale: Tensor | None = None, first: int = 0) -> Tensor:
        """Pool every copy."""
        x = self.pool(x)
        return x if self.norm is None else self.norm(x, scale, first)


class SkipConnect(nn.Module):
    """The identity; where the resolution halves, a factorized reduction."""

    def __init__(self, channels: int, stride: int, copies: int, form: str, activation: Activation):
        super().__init__()
        self.identity = stride == 1
        self.activated = not self.identity
        self.reduce = (
            None if self.identity else FactorizedReduce(channels, channels, copies=copies, affine=form == "final")
        )

    @staticmethod
    def shared(stride: int) -> bool:
        """A reduction has weights."""
        return stride == 1

    def forward(self, x: Tensor, scale: Tensor | None = None, first: int = 0) -> Tensor:
        """Pass on or reduce every copy."""
        return x if self.reduce is None else self.reduce(x, scale, first)


class SeparableConvolution(nn.Module):
    """Two depthwise separable convolutions; the first one takes the stride."""

    activated = True
    identity = False

    def __init__(self, kernel: int, channels: int, stride: int, copies: int, form: str, activation: Activation):
        super().__init__()
        affine = form == "final"
        self.first = DepthwiseSeparable(channels, kernel, stride=stride, dilation=1, copies=copies, affine=affine)
        self.activation = activation()
        self.second = DepthwiseSeparable(channels, kernel, stride=1, dilation=1, copies=copies, affine=affine)

    @staticmethod
    def shared(stride: int) -> bool:
        """It has weights."""
        return False

    def forward(self, x: Tensor, scale: Tensor | None = None, first: int = 0) -> Tensor:
        """Convolve every copy with its own kernels."""
        return self.second(self.activation(self.first(x, None, first)), scale, first)


class DilatedConvolution(nn.Module):
    """One depthwise separable convolution of dilation 2."""

    activated = True
    identity = False

    def __init__(self, kernel: int, channels: int, stride: int, copies: int, form: str, activation: Activation):
        super().__init__()
        self.only = DepthwiseSeparable(
            channels, kernel, stride=stride, dilation=2, copies=copies, affine=form == "final"
        )

    @staticmethod
    def shared(stride: int) -> bool:
        """It has weights."""
        return False

    def forward(self, x: Tensor, scale: Tensor | None = None, first: int = 0) -> Tensor:
        """Convolve every copy with its own kernels."""
        return self.only(x, scale, first)


class CrossedConvolution(nn.Module):
    """A convolution along the rows, then one along the columns, each with its half of the stride (Zoph et al. 2018); BatchNorm."""

    activated = True
    identity = False

    def __init__(self, kernel: int, channels: int, stride: int, copies: int, form: str, activation: Activation):
        super().__init__()
        self.channels = channels  # of a copy

        def line(size: tuple[int, int], strides: tuple[int, int]) -> nn.Conv2d:
            width, padding = copies * channels, (size[0] // 2, size[1] // 2)
            return nn.Conv2d(width, width, size, strides, padding, groups=copies, bias=False)

        self.along_rows = line((1, kernel), (1, stride))
        self.along_columns = line((kernel, 1), (stride, 1))
        self.norm = BatchNorm(channels, copies=copies, affine=form == "final")

    @staticmethod
    def shared(stride: int) -> bool:
        """It has weights."""
        return False

    def forward(self, x: Tensor, scale: Tensor | None = None, first: int = 0) -> Tensor:
        """Convolve every copy with its own kernels."""
        start, number = first * self.channels, x.shape[1]
        for layer in (self.along_rows, self.along_columns):
            weight = rows(layer.weight, start, number)
            x = F.conv2d(x, weight, None, layer.stride, layer.padding, groups=number // self.channels)  # type: ignore[arg-type]
        return self.norm(x, scale, first)
