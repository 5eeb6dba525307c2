"""The candidate operations of the DARTS space, each written once for `copies` parallel copies (Liu et al. 2019, section 3.1).

Every class is built as `Operation(channels, stride, copies, form, activation)` and maps (N, copies * C, H, W) to
(N, copies * C, ceil(H / stride), ceil(W / stride)). It also says:

    activated        the input is activation(state), which the caller computes once for a state, rather than the state itself
    identity         the operation changes nothing, so drop-path spares it (released code of the paper)

Called with `scale` (copies,) or None, a factor of each copy's output (what is shared is called without), and with `first_copy`, see
layers.py.
What is not shared returns a new tensor: the sum of an edge is formed in it.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from darts_lite.operations.kernels.pools import AveragePool
from darts_lite.operations.layers import BatchNorm, DepthwiseSeparable, FactorizedReduce, Form, slice_copies

Activation = Callable[[], nn.Module]


class Pool(nn.Module):
    """3x3 pooling with zero padding; the average counts only pixels of the image."""

    activated = False
    identity = False

    def __init__(self, kind: str, channels: int, stride: int, copies: int, form: Form, activation: Activation):
        super().__init__()
        self.kind, self.stride = kind, stride
        self.pool = nn.MaxPool2d(3, stride, 1) if kind == "max" else AveragePool(stride)
        self.norm = None
        if form.pool_norm:
            self.norm = BatchNorm(channels, copies=copies, affine=False, statistics=form.statistics)

    def forward(self, x: Tensor, scale: Tensor | None = None, first_copy: int = 0) -> Tensor:
        """Pool every copy."""
        x = self.pool(x)
        return x if self.norm is None else self.norm(x, scale, first_copy)


class SkipConnect(nn.Module):
    """The identity; where the resolution halves, a factorized reduction."""

    def __init__(self, channels: int, stride: int, copies: int, form: Form, activation: Activation):
        super().__init__()
        self.identity = stride == 1
        self.activated = not self.identity
        self.reduce = None
        if not self.identity:
            how: Any = {"affine": form.affine, "statistics": form.statistics}
            self.reduce = FactorizedReduce(channels, channels, copies=copies, **how)

    def forward(self, x: Tensor, scale: Tensor | None = None, first_copy: int = 0) -> Tensor:
        """Pass on or reduce every copy."""
        return x if self.reduce is None else self.reduce(x, scale, first_copy)


class SeparableConvolution(nn.Module):
    """Two depthwise separable convolutions; the first one takes the stride."""

    activated = True
    identity = False

    def __init__(self, kernel: int, channels: int, stride: int, copies: int, form: Form, activation: Activation):
        super().__init__()
        how: Any = {"dilation": 1, "copies": copies, "affine": form.affine, "statistics": form.statistics}
        self.first = DepthwiseSeparable(channels, kernel, stride=stride, **how)
        self.activation = activation()
        self.second = DepthwiseSeparable(channels, kernel, stride=1, **how)

    def forward(self, x: Tensor, scale: Tensor | None = None, first_copy: int = 0) -> Tensor:
        """Convolve every copy with its own kernels."""
        return self.second(self.activation(self.first(x, None, first_copy)), scale, first_copy)


class DilatedConvolution(nn.Module):
    """One depthwise separable convolution of dilation 2."""

    activated = True
    identity = False

    def __init__(self, kernel: int, channels: int, stride: int, copies: int, form: Form, activation: Activation):
        super().__init__()
        how: Any = {"dilation": 2, "copies": copies, "affine": form.affine, "statistics": form.statistics}
        self.only = DepthwiseSeparable(channels, kernel, stride=stride, **how)

    def forward(self, x: Tensor, scale: Tensor | None = None, first_copy: int = 0) -> Tensor:
        """Convolve every copy with its own kernels."""
        return self.only(x, scale, first_copy)


class Noise(nn.Module):
    """Standard normal numbers of the output's shape instead of anything computed (candidate of S4, Zela et al. 2020)."""

    activated = False
    identity = False

    def __init__(self, channels: int, stride: int, copies: int, form: Form, activation: Activation):
        super().__init__()
        self.channels = channels  # of a copy

    def forward(self, draws: Tensor, scale: Tensor | None = None, first_copy: int = 0) -> Tensor:
        """Scale what was drawn for some copies, (N, copies * C, H, W): it is handed in where others get the state."""
        return draws.clone() if scale is None else draws * scale.repeat_interleave(self.channels)[:, None, None]


class CrossedConvolution(nn.Module):
    """A convolution along the rows, then one along the columns, each with its half of the stride (Zoph et al. 2018); BatchNorm."""

    activated = True
    identity = False

    def __init__(self, kernel: int, channels: int, stride: int, copies: int, form: Form, activation: Activation):
        super().__init__()
        self.channels = channels  # of a copy

        def line(size: tuple[int, int], strides: tuple[int, int]) -> nn.Conv2d:
            width, padding = copies * channels, (size[0] // 2, size[1] // 2)
            return nn.Conv2d(width, width, size, strides, padding, groups=copies, bias=False)

        self.along_rows = line((1, kernel), (1, stride))
        self.along_columns = line((kernel, 1), (stride, 1))
        self.norm = BatchNorm(channels, copies=copies, affine=form.affine, statistics=form.statistics)

    def forward(self, x: Tensor, scale: Tensor | None = None, first_copy: int = 0) -> Tensor:
        """Convolve every copy with its own kernels."""
        start, number = first_copy * self.channels, x.shape[1]
        for layer in (self.along_rows, self.along_columns):
            weight = slice_copies(layer.weight, start, number)
            x = F.conv2d(x, weight, None, layer.stride, layer.padding, groups=number // self.channels)  # type: ignore[arg-type]
        return self.norm(x, scale, first_copy)
