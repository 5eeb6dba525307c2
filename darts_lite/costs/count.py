"""Counting: trainable numbers and multiply-accumulates, exact."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Costs:
    """What something costs."""

    parameters: int  # trainable numbers
    macs: int  # multiply-accumulates of convolutions and linear layers, an image (FLOPs are twice that)

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(self.parameters + other.parameters, self.macs + other.macs)


def count(module: nn.Module, positions: int = 1) -> Costs:
    """Costs of a module all of whose convolutions write `positions` pixels each, as every candidate operation and preprocessing does."""
    # A convolution's weight holds exactly the multiplications of one output pixel, groups and dilation included.
    weights = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))
    linear = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
    return Costs(sum(parameter.numel() for parameter in module.parameters()), weights * positions + linear)
