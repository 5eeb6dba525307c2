"""Random brightness, contrast, saturation and hue of each image of a batch, as in ColorJitter of torchvision; pure functions of tensors.

Images are float32 (B, C, H, W) in [0, 1] with three channels, red, green and blue, or one, whose colours stay as they are.
"""

import torch
from torch import Tensor

CHANNELS = 1, 3
LUMA = 0.2989, 0.587, 0.114  # what red, green and blue add to grey (ITU-R BT.601)
BRIGHTNESS, CONTRAST, SATURATION = range(3)


def random_jitter(count: int, strength: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Factors (3, B) of brightness, contrast and saturation in 1 +- `strength`, the order (3, B) in which they come, turns of hue (B,).

    Hue turns by up to half of `strength`, as part of the circle: 0.4 gives the ImageNet training of DARTS, (0.4, 0.4, 0.4, 0.2).
    """
    draws = torch.rand(7, count, generator=generator, device=generator.device)
    return 1 + strength * (2 * draws[:3] - 1), draws[3:6].argsort(0), strength * (draws[6] - 0.5)


def jitter(images: Tensor, factors: Tensor, order: Tensor, turns: Tensor) -> Tensor:
    """The images with other colours. Hue comes last, where torchvision has it at any place of the order."""

    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    for kind in order:
        grey = _grey(images)
        far_end = grey.mean(dim=(2, 3), keepdim=True) * each(kind == CONTRAST)  # of brightness it is black
        far_end = grey.where(each(kind == SATURATION), far_end)
        images = torch.lerp(far_end, images, each(factors.gather(0, kind[None])[0])).clamp(0, 1)
    return images if images.shape[1] == 1 else _turned(images, each(turns)[:, 0])


def _grey(images: Tensor) -> Tensor:
    """(B, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    return sum(weight * images[:, i : i + 1] for i, weight in enumerate(LUMA))  # type: ignore[return-value]


def _turned(images: Tensor, turns: Tensor) -> Tensor:
    """With hue, in [0, 1) around the circle, moved by `turns`, value and chroma kept (the hexagon of HSV: Smith 1978)."""
    red, green, blue = images.unbind(1)
    value, lowest = images.amax(1), images.amin(1)
    chroma = value - lowest
    divisor = chroma.where(chroma > 0, 1)
    sixth = (4 + (red - green) / divisor).where(value == blue, 0)
    sixth = (2 + (blue - red) / divisor).where(value == green, sixth)
    sixth = ((green - blue) / divisor).where(value == red, sixth) + 6 * turns
    places = ((sixth + offset) % 6 for offset in (5, 3, 1))
    return torch.stack([value - chroma * torch.minimum(place, 4 - place).clamp(0, 1) for place in places], dim=1)
