"""Counting: trainable numbers and multiply-accumulates, exact."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Costs:
    """Parameters and multiply-accumulates of a module or a network."""

    parameters: int  # trainable numbers
    macs: int  # multiply-accumulates of convolutions and linear layers, an image (FLOPs are twice that)

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(self.parameters + other.parameters, self.macs + other.macs)


def count(module: nn.Module, positions: int = 1, halfway: int = 0) -> Costs:
    """Costs of a module all of whose convolutions write `positions` pixels each, as candidate operations and preprocessing do.

    `halfway`: what one writes that has a stride along the rows alone, before another one has it along the columns.
    """
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    # A convolution's weight holds exactly the multiplications of one output pixel, groups and dilation included.
    macs = sum(m.weight.numel() * (halfway if m.stride[1] > m.stride[0] else positions) for m in convolutions)
    linear = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
    return Costs(sum(parameter.numel() for parameter in module.parameters()), macs + linear)


def nearest(cost: Callable[[int], int], wanted: int, most: int) -> int:
    """The width from 1 to `most` whose cost, which grows with it, is nearest to `wanted`; of two as near ones the smaller."""
    above = min(most, 1 + bisect_left(range(1, most + 1), wanted, key=cost))
    return min((width for width in (above - 1, above) if width), key=lambda width: abs(cost(width) - wanted))
