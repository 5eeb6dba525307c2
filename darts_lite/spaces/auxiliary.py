"""The auxiliary head: a weak classifier two thirds up the network, whose loss counts only while it trains (Szegedy et al. 2015)."""

from torch import nn

from darts_lite.operations.layers import BatchNorm, convolution


def auxiliary_head(size: tuple[int, int], channels: int, classes: int) -> nn.Sequential:
    """(N, channels, *size), a cell's output -> logits (N, classes)."""
    return {(8, 8): EightByEightHead, (7, 7): SevenBySevenHead}.get(size, PooledHead)(channels, classes)


class EightByEightHead(nn.Sequential):
    """Auxiliary head for 8x8 features: pool 5/3, 1x1 to 128, 2x2 to 768 (DARTS, CIFAR)."""

    def __init__(self, channels: int, classes: int):
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3, count_include_pad=False),  # 8x8 -> 2x2
            *_norm_relu(convolution(channels, 128, 1), 128),
            *_norm_relu(nn.Conv2d(128, 768, 2, bias=False), 768),  # 2x2 -> 1x1
            nn.Flatten(),
            nn.Linear(768, classes),
        )


class SevenBySevenHead(nn.Sequential):
    """Auxiliary head for 7x7 features: pool 5/2, 1x1 to 128, 2x2 to 768 without BatchNorm (DARTS, ImageNet)."""

    def __init__(self, channels: int, classes: int):
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=2, count_include_pad=False),  # 7x7 -> 2x2
            *_norm_relu(convolution(channels, 128, 1), 128),
            nn.Conv2d(128, 768, 2, bias=False),  # 2x2 -> 1x1
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(768, classes),
        )


class PooledHead(nn.Sequential):
    """Auxiliary head for features of any size: 1x1 to 128, global pooling."""

    def __init__(self, channels: int, classes: int):
        super().__init__(
            nn.ReLU(),
            *_norm_relu(convolution(channels, 128, 1), 128),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, classes),
        )


def _norm_relu(layer: nn.Module, channels: int) -> tuple[nn.Module, ...]:
    return layer, BatchNorm(channels, affine=True), nn.ReLU()
