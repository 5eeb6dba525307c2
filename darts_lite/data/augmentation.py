"""Random crop or resized crop, horizontal flip, jitter of colours and cutout for a batch that already lies on the device.

Draws and arithmetic are apart: `Augmentation.draw` makes the draws of a whole batch, one per image, from one generator;
the functions below are pure and take them as tensors. None of it waits for the device. Crop and flip work on uint8,
a resized crop and the jitter (jitter.py) make float32 of it, cutout works on normalized images.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from darts_lite.data import jitter
from darts_lite.errors import UserError, raise_all

AREA = 0.08, 1.0  # of a resized crop: its part of the image (Szegedy et al. 2015, 1409.4842, section 6) ...
RATIO = 3 / 4, 4 / 3  # ... and its width divided by its height, whose logarithm is uniform
ATTEMPTS = 10  # to draw one that fits into the image; as torchvision


@dataclass(frozen=True)
class Draws:
    """The random part of a batch of B images, int64 (B,) each, flips bool (B,); None where that augmentation is off."""

    crop: tuple[Tensor, Tensor] | None  # first row and column, 0..2*padding
    resized: tuple[Tensor, Tensor, Tensor, Tensor] | None  # first row and column, height and width of a window
    flip: Tensor | None
    cutout: tuple[Tensor, Tensor] | None  # row and column of the centre
    colors: tuple[Tensor, Tensor, Tensor] | None  # see `jitter.random_jitter`


@dataclass(frozen=True)
class Augmentation:
    """Settings of how training images are varied. DARTS on CIFAR: crop_padding 4, flip, cutout 16 (retraining only)."""

    crop_padding: int | None = None  # pixels of zeros around, then a random crop; None: side // 8; 0: off
    flip: bool = False
    cutout: int = 0  # side of the square, pixels; 0: off
    resized: bool = False  # in place of that crop: a window of any size and shape, resized to the image's
    alternating: bool = False  # flips are those of `parts.Flips`, and not drawn
    color_jitter: float = 0.0  # strength, see jitter.py; 0: off

    def check(self, height: int, width: int, channels: int) -> None:
        """Refuse what would leave nothing of an image. Raises UserError (CONFIGURATION) with every problem."""
        side, size, found = min(height, width), f"{width}x{height}", []
        if not self.resized and self.padding(height, width) > side:
            reason, fix = f"more than the side of the images ({size})", f"lower it to at most {side}"
            found.append(UserError("dataset.crop_padding", reason, fix, value=self.crop_padding))
        if self.cutout and self.cutout >= side:
            reason, fix = f"may cover whole images ({size})", f"give at most {side // 2}, half the side; 0: off"
            found.append(UserError("cutout", reason, fix, value=self.cutout))
        if self.color_jitter and channels not in jitter.CHANNELS:
            reason, fix = f"images of {channels} channels have no colours that it knows", "turn it off: 0"
            found.append(UserError("dataset.color_jitter", reason, fix, value=self.color_jitter))
        raise_all(found)

    def padding(self, height: int, width: int) -> int:
        """Pixels on each side; the default is an eighth of the shorter side: 4 on CIFAR, 1 on the digits."""
        return min(height, width) // 8 if self.crop_padding is None else self.crop_padding

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """Draws for `count` images, on the generator's device, always in the order crop (of either kind), flip, cutout, colours."""

        def integers(high: int) -> Tensor:
            return torch.randint(high, (count,), generator=generator, device=generator.device)

        padding = 0 if self.resized else self.padding(height, width)
        crop = (integers(2 * padding + 1), integers(2 * padding + 1)) if padding else None
        resized = random_windows(count, height, width, generator) if self.resized else None
        drawn = self.flip and not self.alternating
        flip = torch.rand(count, generator=generator, device=generator.device) < 0.5 if drawn else None
        cutout = (integers(height), integers(width)) if self.cutout else None
        colors = jitter.random_jitter(count, self.color_jitter, generator) if self.color_jitter else None
        return Draws(crop, resized, flip, cutout, colors)


def random_windows(
    count: int, height: int, width: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First row and column, height and width, int64 (count,) each, of windows inside of an image: area and ratio as above, any place.

    As torchvision's RandomResizedCrop, whose attempts are drawn all at once here, so that the device need not be asked. Where all have
    failed, which in an image of usual shape happens to one in millions, the first one is cut to the image.
    """
    area, ratio, row, column = torch.rand(4, count, ATTEMPTS, generator=generator, device=generator.device)
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
    ratio = torch.exp(math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * ratio)
    rows, columns = (area / ratio).sqrt().round().clamp(min=1), (area * ratio).sqrt().round().clamp(min=1)
    chosen = ((rows <= height) & (columns <= width)).to(torch.int8).argmax(1, keepdim=True)  # the first that fits

    def place(draw: Tensor, length: Tensor, side: int) -> tuple[Tensor, Tensor]:
        length = length.gather(1, chosen)[:, 0].clamp(max=side)
        first = (draw.gather(1, chosen)[:, 0] * (side - length + 1)).floor()
        return torch.minimum(first, side - length).long(), length.long()  # the product may be rounded up

    (top, rows), (left, columns) = place(row, rows, height), place(column, columns, width)
    return top, left, rows, columns


def crop(images: Tensor, padding: int, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W) padded with zeros, then for each image the (H, W) window that begins at its row and column."""
    height, width = images.shape[-2:]
    padded = functional.pad(images, (padding, padding, padding, padding))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2p+1, 2p+1, H, W), a view
    return windows[torch.arange(len(images), device=images.device), :, rows, columns]


def resized_crop(images: Tensor, top: Tensor, left: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
    """(B, C, H, W) float32: of each image its window, resized to (H, W) bilinearly; pixels outside of the window do not count."""

    def sampled(first: Tensor, length: Tensor, side: int) -> Tensor:  # (B, side): where between -1 and 1 to look
        places = (torch.arange(side, device=images.device) + 0.5) * (length / side)[:, None] - 0.5
        inside = torch.minimum(places.clamp(min=0), length[:, None] - 1) + first[:, None]
        return (2 * inside + 1) / side - 1

    height, width = images.shape[-2:]
    y, x = sampled(top, heights, height), sampled(left, widths, width)
    grid = torch.stack((x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)), dim=-1)
    return functional.grid_sample(images.to(torch.float32), grid, padding_mode="border", align_corners=False)


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """(B, C, H, W) with the images where `mirrored` (B,) is true flipped left to right."""
    # Both versions beside each other and a choice of whole images: 3 times faster than torch.where on uint8 on a CPU.
    both = torch.cat((images, images.flip(-1))).permute(0, 2, 3, 1)
    chosen = torch.arange(len(images), device=images.device) + len(images) * mirrored
    return both.index_select(0, chosen).permute(0, 3, 1, 2)


def cutout(images: Tensor, side: int, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W) with one square of zeros an image, clipped at the borders (DeVries & Taylor 2017, 1708.04552).

    On normalized images zero is the mean. The square begins at row - side // 2 and has `side` rows; columns alike.
    """

    def outside(centre: Tensor, length: int) -> Tensor:  # (B, length)
        distance = torch.arange(length, device=images.device) - (centre - side // 2)[:, None]
        return (distance < 0) | (distance >= side)

    height, width = images.shape[-2:]
    keep = outside(rows, height)[:, None, :, None] | outside(columns, width)[:, None, None, :]
    return images.clone().mul_(keep)  # in place: a product of two tensors may lose channels_last when C = 1
