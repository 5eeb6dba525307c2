"""The layers that candidate operations are made of, each for `copies` parallel copies in one tensor.

Copy i reads and writes the channels [i * channels, (i + 1) * channels): convolutions are grouped, so copies never mix. Dimension 0 of
every parameter and buffer is copies x something, which `spaces.transfer` relies on. Tensors are (N, copies * C, H, W). A layer may be
called for some neighbouring copies only: its input has their channels, and `first_copy` is the number of the first of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darts_lite.operations.kernels.depthwise import depthwise, likely_mean
from darts_lite.operations.kernels.every_second import every_second
from darts_lite.operations.kernels.fold import folded, folds
from darts_lite.operations.kernels.pointwise import pointwise, pointwise_norm, spares_memory


@dataclass(frozen=True)
class Form:
    """Normalization of a cell's operations: constructor data that a space chooses."""

    affine: bool  # BatchNorm has weights and biases
    pool_norm: bool  # BatchNorm follows pools
    statistics: bool = True  # BatchNorm keeps running statistics; without them evaluation uses those of its batch


SEARCH = Form(affine=False, pool_norm=True)  # as DARTS searches
FINAL = Form(affine=True, pool_norm=False)  # as its networks are retrained
FORMS = {"search": SEARCH, "final": FINAL}


def slice_copies(stacked: Tensor, start: int, number: int) -> Tensor:
    """Rows `start` to `start + number` of dimension 0: those of neighbouring copies."""
    return stacked if number == len(stacked) else stacked.narrow(0, start, number)


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy 2015), momentum 0.1, eps 1e-5.

    While training it uses batch statistics, and moves the running ones only inside `tracking_statistics`: of all passes of a search step
    the weight step's alone may do so. Without affine parameters the scale of the output is free, and the mixing weight of each copy takes
    its place: multiplying, and the mixing's gradient, cost nothing. Without `statistics` there are no running ones, and evaluation uses
    those of its batch.
    """

    momentum, eps = 0.1, 1e-5
    running_mean: Tensor | None
    running_var: Tensor | None

    def __init__(self, channels: int, *, copies: int = 1, affine: bool, statistics: bool = True):
        super().__init__()
        self.channels = channels  # of a copy
        self.weight = nn.Parameter(torch.ones(copies * channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(copies * channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(copies * channels) if statistics else None)
        self.register_buffer("running_var", torch.ones(copies * channels) if statistics else None)
        self.tracks = False

    @property
    def of_batch(self) -> bool:
        """Whether the statistics of the batch normalize it."""
        return self.training or self.running_mean is None

    def forward(self, x: Tensor, scale: Tensor | None = None, first_copy: int = 0) -> Tensor:
        """Normalize (N, copies * C, H, W); `scale` (copies,) multiplies the output of each copy."""
        (mean, variance), weight, bias = self.terms(x.shape[1], scale, first_copy)
        return F.batch_norm(x, mean, variance, weight, bias, self.of_batch, self.momentum, self.eps)

    def terms(self, number: int, scale: Tensor | None, first_copy: int) -> tuple[Any, Any, Any]:
        """(mean, variance) where running ones are used or moved, weight, bias, each or None: of `number` channels from `first_copy` on."""

        def own(stacked: Tensor | None) -> Tensor | None:
            return None if stacked is None else slice_copies(stacked, first_copy * self.channels, number)

        weight, bias = own(self.weight), own(self.bias)
        if scale is not None:
            scale = scale.repeat_interleave(self.channels)
            weight = scale if weight is None else weight * scale
            bias = None if bias is None else bias * scale
        used = self.tracks or not self.training
        return (own(self.running_mean), own(self.running_var)) if used else (None, None), weight, bias


@contextmanager
def tracking_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, forward passes of `network` in training mode move the running statistics of its BatchNorms."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.tracks = True
    try:
        yield
    finally:
        for norm in norms:
            norm.tracks = False


def convolution(c_in: int, c_out: int, kernel: int, *, copies: int = 1, depthwise: bool = False) -> nn.Conv2d:
    """A convolution without bias that keeps the resolution, for `copies` copies. Where they have a stride, only its weights are used."""
    groups = copies * (c_in if depthwise else 1)
    return nn.Conv2d(copies * c_in, copies * c_out, kernel, padding=kernel // 2, groups=groups, bias=False)


class ConvNorm(nn.Module):
    """1x1 convolution and BatchNorm: what a cell does to its inputs."""

    def __init__(self, c_in: int, c_out: int, *, affine: bool, statistics: bool = True):
        super().__init__()
        self.convolution = convolution(c_in, c_out, 1)
        self.norm = BatchNorm(c_out, affine=affine, statistics=statistics)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W), activated -> (N, c_out, H, W)."""
        return self.norm(self.convolution(x))


class DepthwiseSeparable(nn.Module):
    """Depthwise convolution, pointwise convolution, BatchNorm."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        *,
        stride: int,
        dilation: int,
        copies: int,
        affine: bool,
        statistics: bool = True,
    ):
        super().__init__()
        self.channels, self.stride, self.dilation = channels, stride, dilation
        self.depthwise = convolution(channels, channels, kernel, copies=copies, depthwise=True)
        self.pointwise = convolution(channels, channels, 1, copies=copies)
        self.norm = BatchNorm(channels, copies=copies, affine=affine, statistics=statistics)

    def forward(self, x: Tensor, scale: Tensor | None = None, first_copy: int = 0) -> Tensor:
        """(N, copies * C, H, W), activated -> (N, copies * C, ceil(H / stride), ceil(W / stride))."""
        start, number = first_copy * self.channels, x.shape[1]
        kernels, weight = (slice_copies(layer.weight, start, number) for layer in (self.depthwise, self.pointwise))
        groups, norm, final = number // self.channels, self.norm, self.norm.weight is not None
        settings: Any = {"stride": self.stride, "dilation": self.dilation}
        constants: Any = {"momentum": norm.momentum, "eps": norm.eps}
        if norm.of_batch and folds(x, weight, groups, final):
            mean = likely_mean(x, kernels)
            x = depthwise(x, kernels, bias=-mean, **settings)
            return folded(x, weight, *norm.terms(number, scale, first_copy), mean, **constants)
        x = depthwise(x, kernels, **settings)
        if not final and norm.of_batch and spares_memory(x):
            statistics, factor, _ = norm.terms(number, scale, first_copy)
            return pointwise_norm(x, weight, factor, statistics, groups=groups, **constants)
        return norm(pointwise(x, weight, groups), scale, first_copy)


class FactorizedReduce(nn.Module):
    """Halve the resolution without losing pixels: two 1x1 convolutions of stride 2, the second on the image shifted by one pixel."""

    def __init__(self, c_in: int, c_out: int, *, copies: int = 1, affine: bool, statistics: bool = True):
        super().__init__()
        self.c_in = c_in
        self.even = convolution(c_in, c_out // 2, 1, copies=copies)
        self.odd = convolution(c_in, c_out - c_out // 2, 1, copies=copies)
        self.norm = BatchNorm(c_out, copies=copies, affine=affine, statistics=statistics)

    def forward(self, x: Tensor, scale: Tensor | None = None, first_copy: int = 0) -> Tensor:
        """(N, copies * c_in, H, W), activated -> (N, copies * c_out, ceil(H / 2), ceil(W / 2))."""
        copies = x.shape[1] // self.c_in
        # A convolution with a stride takes up to 1.6 times as long on a CPU (batch 96, 144 channels of 32x32); and on one thread, with
        # fewer than 8 channels, its backward pass in torch 2.14.1 writes past the end of its memory (oneDNN, channels_last).
        even, odd = every_second(x, 0, 1)
        odd = F.pad(odd, (0, x.shape[3] % 2, 0, x.shape[2] % 2))  # odd sides: both halves have one size

        def half(pixels: Tensor, layer: nn.Conv2d) -> tuple[Tensor, ...]:
            c_out = layer.out_channels // layer.groups
            weight = slice_copies(layer.weight, first_copy * c_out, copies * c_out)
            return pointwise(pixels, weight, copies).chunk(copies, dim=1)

        halves = half(even, self.even), half(odd, self.odd)
        # In four dimensions, channels_last lasts.
        pieces = [piece for pair in zip(*halves, strict=True) for piece in pair]
        return self.norm(torch.cat(pieces, dim=1), scale, first_copy)
