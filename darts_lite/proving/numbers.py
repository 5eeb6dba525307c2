"""Images, weights and gradients for a proof: bf16 holds them exactly, and none is near a kink of the network."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn


def image(draws: Generator, shape: tuple[int, ...], *, kinked: bool) -> Tensor:
    """(N, C, H, W) of numbers that bf16 holds, of which a 3x3 window has none twice: -2 to 2, or, `kinked`, +- 1.5 to 2."""
    rows, columns = (torch.arange(side) % 3 for side in shape[2:])
    window = 3 * rows[:, None] + columns
    if not kinked:
        return (9 * torch.randint(28, shape, generator=draws) + window - 126).double() / 64
    sign = 2 * torch.randint(2, shape, generator=draws) - 1
    return (sign * (192 + 9 * torch.randint(7, shape, generator=draws) + window)).double() / 128


def early(operation: nn.Module) -> Sequence[Tensor]:
    """Filters of the convolutions before the last two, where there may be an activation inside of an operation."""
    return [weight for weight in operation.parameters() if weight.dim() > 1][:-2]


def fill(operation: nn.Module, draws: Generator, *, kinked: bool) -> None:
    """Draw weights and running statistics of an operation.

    `kinked`: all its convolutions but the last two pass on their middle pixel, and a 20th of what is around it, so that what an activation
    between them reads is far from zero.
    """
    with torch.no_grad():
        for name, weight in operation.named_parameters():
            drawn = 2 * torch.rand(weight.shape, generator=draws, dtype=torch.float64) - 1
            if weight.dim() == 1:
                drawn = drawn / 8 + name.endswith("weight")
            else:
                drawn *= (3 / weight[0].numel()) ** 0.5
            if kinked and any(weight is early for early in early(operation)):
                rows, middle = torch.arange(len(weight)), weight.shape[-1] // 2
                drawn *= 0.05
                drawn[rows, rows % weight.shape[1], middle, middle] += 1
            weight.copy_(exact(drawn))
        for name, buffer in operation.named_buffers():
            if buffer.is_floating_point():
                drawn = torch.rand(buffer.shape, generator=draws, dtype=torch.float64)
                buffer.copy_(exact(drawn / 2 + name.endswith("var")))


def exact(tensor: Tensor) -> Tensor:
    """The nearest numbers that bf16 holds, in float64."""
    return tensor.bfloat16().double()


def leaning(output: Tensor) -> Tensor:
    """A gradient for an output: noise that leans towards the output."""
    draws = Generator().manual_seed(0)
    y, noise = output.detach(), torch.randn(output.shape, generator=draws, dtype=torch.float64)
    return exact(0.1 + 0.1 * y / y.abs().mean() + noise)


def laid_out(images: Tensor, layout: str) -> Tensor:
    if layout == "contiguous":
        return images.contiguous()
    if layout == "channels_last":
        return images.contiguous(memory_format=torch.channels_last)
    wide = torch.cat([images, images], dim=1).contiguous(memory_format=torch.channels_last)
    return wide[:, : images.shape[1]]
