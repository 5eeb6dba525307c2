"""Stems, the layers before the first cell: one convolution for small images, three that halve for large ones (code of the DARTS paper).

    cifar       conv3x3, BatchNorm                                                      both inputs of the first cell
    imagenet    conv3x3/2 to C/2, BatchNorm, ReLU, conv3x3/2 to C, BatchNorm            its input before the previous, a quarter of the side
                and on top of it ReLU, conv3x3/2, BatchNorm                             its previous input, an eighth

Their BatchNorm is affine in the search, too.
"""

from torch import nn

from darts_lite.costs import Costs, count
from darts_lite.operations.candidates import Activation
from darts_lite.operations.kernels.thresholds import STEM
from darts_lite.operations.layers import BatchNorm, convolution

STEMS = ("cifar", "imagenet")


def choose(name: str, image_size: tuple[int, int]) -> str:
    """The stem of a name; `auto` depends on the (height, width) of the images."""
    return name if name != "auto" else "imagenet" if min(image_size) >= STEM.value else "cifar"


def cifar(input_channels: int, width: int) -> nn.Sequential:
    """(N, input channels, H, W) -> (N, width, H, W)."""
    return nn.Sequential(convolution(input_channels, width, 3), BatchNorm(width, affine=True))


def imagenet(input_channels: int, channels: int, activation: Activation) -> tuple[nn.Sequential, nn.Sequential]:
    """(N, input channels, H, W) -> (N, channels, H / 4, W / 4), and from there -> (N, channels, H / 8, W / 8); odd sides round up."""
    half = max(1, channels // 2)
    first = nn.Sequential(
        _halving(input_channels, half),
        BatchNorm(half, affine=True),
        activation(),
        _halving(half, channels),
        BatchNorm(channels, affine=True),
    )
    return first, nn.Sequential(activation(), _halving(channels, channels), BatchNorm(channels, affine=True))


def _halving(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False)


def halved(size: tuple[int, int], times: int = 1) -> tuple[int, int]:
    """(height, width) after convolutions of stride 2, which round up."""
    for _ in range(times):
        size = -(-size[0] // 2), -(-size[1] // 2)
    return size


def count_stem(layers: nn.Sequential, size: tuple[int, int]) -> tuple[Costs, tuple[int, int]]:
    """Costs of a stem on images of this (height, width), and the size of what it makes of them."""
    total = Costs(0, 0)
    for layer in layers:
        if isinstance(layer, nn.Conv2d) and layer.stride[0] == 2:
            size = halved(size)
        total += count(layer, size[0] * size[1])
    return total, size
