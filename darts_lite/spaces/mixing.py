"""Weighted sums of images as one matrix product, whose gradients are dense.

Torch's gradient of a concatenation is a slice of a wider tensor for each part. CUDA's BatchNorm takes its slow kernels for a slice (2 bytes
of every 32 that are read are used); here each part has a product, and a dense tensor, of its own.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def mixed(images: Sequence[Tensor], weight: Tensor, precise: int) -> Tensor:
    """`weight` (C', sum of C_i) times the channels of images (N, C_i, H, W) side by side: (N, C', H, W). Twice differentiable.

    Images in bf16 are multiplied by weights in bf16, which have 8 bits. Those of the first `precise` images have 16, as the sum of two: a
    second product of these images alone. The rest are for numbers such as 0 and 1.
    """
    return _Mixed.apply(weight, precise, *images)


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, precise: int, *images: Tensor) -> Tensor:
        ctx.widths, ctx.precise = [image.shape[1] for image in images], precise
        ctx.save_for_backward(weight, *(images if ctx.needs_input_grad[0] else ()))
        side_by_side = torch.cat(images, dim=1)
        (n, _, h, w), pixels = side_by_side.shape, _pixels(side_by_side)
        high, low = _split(weight, pixels.dtype)
        wide = sum(ctx.widths[:precise])
        sums = (
            F.linear(pixels, high)
            if low is None
            else F.linear(pixels[:, :wide], low[:, :wide]).addmm_(pixels, high.t())
        )
        return sums.view(n, h, w, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (weight, *images) = gradients, ctx.saved_tensors
        (n, _, h, w), pixels = gradient.shape, _pixels(gradient)
        high, low = _split(weight, gradient.dtype)
        for_weight, _, *for_images = ctx.needs_input_grad
        of_weight = None
        if for_weight:
            of_weight = torch.cat([pixels.t() @ _pixels(image).to(gradient.dtype) for image in images], dim=1)
        of_images: list[Tensor | None] = []
        first = 0
        for number, (width, wanted) in enumerate(zip(ctx.widths, for_images, strict=True)):
            part = slice(first, first + width)
            first += width
            if not wanted:
                of_images.append(None)
            elif low is None or number >= ctx.precise:
                of_images.append(pixels @ high[:, part])
            else:
                of_images.append((pixels @ low[:, part]).addmm_(pixels, high[:, part]))
        back = (None if one is None else one.view(n, h, w, -1).permute(0, 3, 1, 2) for one in of_images)
        return of_weight, None, *back


def _pixels(image: Tensor) -> Tensor:
    """(N, C, H, W) -> (N * H * W, C). A view of channels_last."""
    return image.permute(0, 2, 3, 1).flatten(0, 2)


def _split(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """`weight` in another type, and what is then missing, in the same type; None where nothing is."""
    high = weight.to(dtype)
    return high, None if weight.dtype == dtype else (weight - high).to(dtype)
