"""The layers that candidate operations are made of, each for `copies` parallel copies in one tensor.

Copy i reads and writes the channels [i * channels, (i + 1) * channels): convolutions are grouped, so copies never mix. Dimension 0 of
every parameter and buffer is copies x something, which is what `spaces.carry` relies on. Tensors are (N, copies * C, H, W).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy 2015), momentum 0.1, eps 1e-5.

    While training it uses batch statistics, and moves the running ones only inside `tracking_statistics`: of all passes of a search step
    the weight step's alone may do so. Without affine parameters the scale of the output is free, and the mixing weight of each copy takes
    its place: multiplying, and the mixing's gradient, cost nothing.
    """

    momentum, eps = 0.1, 1e-5

    def __init__(self, channels: int, *, affine: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.tracks = False

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Normalize (N, copies * C, H, W); `scale` (copies,) multiplies the output of each copy."""
        weight, bias = self.weight, self.bias
        if scale is not None:
            scale = scale.repeat_interleave(x.shape[1] // len(scale))
            weight = scale if weight is None else weight * scale
            bias = None if bias is None else bias * scale
        running = (self.running_mean, self.running_var) if self.tracks or not self.training else (None, None)
        return F.batch_norm(x, *running, weight, bias, self.training, self.momentum, self.eps)


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


def convolution(
    c_in: int, c_out: int, kernel: int, *, copies: int = 1, stride: int = 1, dilation: int = 1, depthwise: bool = False
) -> nn.Conv2d:
    """A convolution without bias whose output is ceil(H / stride) high, for `copies` copies."""
    padding = dilation * (kernel - 1) // 2
    groups = copies * (c_in if depthwise else 1)
    return nn.Conv2d(copies * c_in, copies * c_out, kernel, stride, padding, dilation, groups, bias=False)


class ConvNorm(nn.Module):
    """1x1 convolution and BatchNorm: what a cell does to its inputs."""

    def __init__(self, c_in: int, c_out: int, *, affine: bool):
        super().__init__()
        self.convolution = convolution(c_in, c_out, 1)
        self.norm = BatchNorm(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W), activated -> (N, c_out, H, W)."""
        return self.norm(self.convolution(x))


class DepthwiseSeparable(nn.Module):
    """Depthwise convolution, pointwise convolution, BatchNorm."""

    def __init__(self, channels: int, kernel: int, *, stride: int, dilation: int, copies: int, affine: bool):
        super().__init__()
        self.depthwise = convolution(
            channels, channels, kernel, copies=copies, stride=stride, dilation=dilation, depthwise=True
        )
        self.pointwise = convolution(channels, channels, 1, copies=copies)
        self.norm = BatchNorm(copies * channels, affine=affine)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """(N, copies * C, H, W), activated -> (N, copies * C, ceil(H / stride), ceil(W / stride))."""
        x = fast_depthwise(x, self.depthwise) if x.device.type == "cpu" else self.depthwise(x)
        return self.norm(self.pointwise(x), scale)


def fast_depthwise(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """What the depthwise `layer` computes, exactly, by kernels that are fast on a CPU: (N, C, H, W) -> (N, C, ceil(H / stride), ...).

    Its dilated kernels have no fast gradients there. Forward and backward together, one thread, batch 64, 64 channels of 8x8 to 32x32:
    4 to 14 times faster at stride 2, 0.8 to 1.7 times at stride 1, where taking the phases apart costs most of what is won.
    """
    weight, stride = layer.weight, layer.stride[0]
    if layer.dilation[0] == 1:
        return _dense(x, weight, stride)
    if stride == 2:
        return _dense(x[:, :, ::2, ::2], weight)
    # Stride 1, dilation 2: each of the 2 x 2 phases of the image sees only itself.
    n, c, h, w = x.shape
    rows, columns = -(-h // 2), -(-w // 2)
    x = F.pad(x, (0, 2 * columns - w, 0, 2 * rows - h))  # odd sides: zeros, as the padding would be
    phases = x.view(n, c, rows, 2, columns, 2).permute(3, 5, 0, 1, 2, 4).reshape(4 * n, c, rows, columns)
    phases = _dense(phases.contiguous(memory_format=torch.channels_last), weight)
    x = phases.view(2, 2, n, c, rows, columns).permute(2, 3, 4, 0, 5, 1).reshape(n, c, 2 * rows, 2 * columns)
    return x[:, :, :h, :w].contiguous(memory_format=torch.channels_last)


def _dense(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Depthwise convolution; taps that meet only padding, because the image is smaller than the kernel, are left out."""
    unused = max(0, weight.shape[-1] // 2 - max(x.shape[2:]) + 1)
    weight = weight[:, :, unused : weight.shape[2] - unused, unused : weight.shape[3] - unused]
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1])


class FactorizedReduce(nn.Module):
    """Halve the resolution without losing pixels: two 1x1 convolutions of stride 2, the second on the image shifted by one pixel."""

    def __init__(self, c_in: int, c_out: int, *, copies: int = 1, affine: bool):
        super().__init__()
        self.copies = copies
        self.even = convolution(c_in, c_out // 2, 1, copies=copies, stride=2)
        self.odd = convolution(c_in, c_out - c_out // 2, 1, copies=copies, stride=2)
        self.norm = BatchNorm(copies * c_out, affine=affine)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """(N, copies * c_in, H, W), activated -> (N, copies * c_out, ceil(H / 2), ceil(W / 2))."""
        padded = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))  # odd sides: both halves have one size
        even, odd = _sparse(x[:, :, ::2, ::2], self.even), _sparse(padded[:, :, 1::2, 1::2], self.odd)
        halves = even.chunk(self.copies, dim=1), odd.chunk(self.copies, dim=1)
        # In four dimensions, channels_last lasts.
        pieces = [piece for pair in zip(*halves, strict=True) for piece in pair]
        return self.norm(torch.cat(pieces, dim=1), scale)


def _sparse(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """The 1x1 convolution `layer` of stride 2, given only the pixels that it reads: (N, C, H / 2, W / 2) -> (N, C', H / 2, W / 2).

    Up to 1.6 times faster than the stride on a CPU (batch 96, 144 channels of 32x32); and with a stride, one thread and fewer than 8
    channels, the backward pass of torch 2.14.1 writes past the end of its memory (oneDNN, channels_last): the process is killed.
    """
    return F.conv2d(x.contiguous(memory_format=torch.channels_last), layer.weight, groups=layer.groups)
