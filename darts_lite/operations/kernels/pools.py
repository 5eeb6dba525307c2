"""3x3 pools of planes, maximum and average of one read, forward and back. The average counts only pixels of the image."""

import triton
import triton.language as tl
from torch import Tensor

from darts_lite.operations.kernels.launch import cdiv, channel_block, launch, pixel_block


@triton.jit
def _forward(
    x, most, mean, where, sources, P, Q, H, W, HO, WO, C,
    MOST: tl.constexpr, MEAN: tl.constexpr, S: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for BP pixels and BC channels; `where` (int8) gets the tap of the maximum, the first one of equals."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    blocks = tl.cdiv(C, BC)
    number = tl.program_id(1) // blocks
    c = (tl.program_id(1) % blocks) * BC + tl.arange(0, BC)
    inside = c < C
    x += tl.load(sources + number).to(tl.int64) * Q * C
    wo = p % WO
    ho = (p // WO) % HO
    n = p // (WO * HO)
    largest = tl.full((BP, BC), float("-inf"), tl.float32)
    tap = tl.zeros((BP, BC), tl.int32)
    total = tl.zeros((BP, BC), tl.float32)
    count = tl.zeros((BP,), tl.float32)
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            h = ho * S - 1 + i
            w = wo * S - 1 + j
            ok = (p < P) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            mask = ok[:, None] & inside[None, :]
            at = ((n * H + h) * W + w)[:, None] * C + c[None, :]
            a = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
            if MOST:
                # A number that is none spreads, as in torch's.
                better = mask & ((a > largest) | (a != a))
                largest = tl.where(better, a, largest)
                tap = tl.where(better, i * 3 + j, tap)
            if MEAN:
                total += a
                count += tl.where(ok, 1.0, 0.0)
    at = number.to(tl.int64) * P * C + p[:, None] * C + c[None, :]
    mask = (p < P)[:, None] & inside[None, :]
    if MOST:
        tl.store(most + at, largest.to(most.dtype.element_ty), mask=mask)
        tl.store(where + at, tap.to(tl.int8), mask=mask)
    if MEAN:
        tl.store(mean + at, (total / tl.maximum(count, 1.0)[:, None]).to(mean.dtype.element_ty), mask=mask)


@triton.jit
def _gradient(
    of_most, of_mean, of_x, where, sources, P, Q, H, W, HO, WO, C,
    MOST: tl.constexpr, MEAN: tl.constexpr, S: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for BP pixels of x: the sum over the windows that it lies in, added to what is there."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    blocks = tl.cdiv(C, BC)
    number = tl.program_id(1) // blocks
    c = (tl.program_id(1) % blocks) * BC + tl.arange(0, BC)
    inside = c < C
    w = p % W
    h = (p // W) % H
    n = p // (W * H)
    to = tl.load(sources + number).to(tl.int64) * Q * C + p[:, None] * C + c[None, :]
    mask = (p < Q)[:, None] & inside[None, :]
    total = tl.load(of_x + to, mask=mask, other=0.0).to(tl.float32)
    plane = number.to(tl.int64) * P * C
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            a = h + 1 - i
            b = w + 1 - j
            ho = a // S
            wo = b // S
            ok = (p < Q) & (a >= 0) & (b >= 0) & (ho < HO) & (wo < WO)
            if S > 1:
                ok = ok & (a % S == 0) & (b % S == 0)
            at = plane + ((n * HO + ho) * WO + wo)[:, None] * C + c[None, :]
            here = ok[:, None] & inside[None, :]
            if MOST:
                v = tl.load(of_most + at, mask=here, other=0.0).to(tl.float32)
                tap = tl.load(where + at, mask=here, other=-1).to(tl.int32)
                total += tl.where(tap == i * 3 + j, v, 0.0)
            if MEAN:
                v = tl.load(of_mean + at, mask=here, other=0.0).to(tl.float32)
                rows = tl.minimum(ho * S + 2, H) - tl.maximum(ho * S - 1, 0)
                columns = tl.minimum(wo * S + 2, W) - tl.maximum(wo * S - 1, 0)
                total += v / tl.maximum(rows * columns, 1).to(tl.float32)[:, None]
    tl.store(of_x + to, total.to(of_x.dtype.element_ty), mask=mask)


def forward(x: Tensor, most: Tensor | None, mean: Tensor | None, where: Tensor | None, sources: Tensor, *, stride: int) -> None:
    """Write the pools of the planes x[sources] into `most` and `mean` (S, N, H', W', C); None: not wanted. `where`: int8, beside `most`.

    Reads a plane a source once, writes one for each pool, and for the maximum half a plane (of bf16) more.
    """
    wanted = [plane for plane in (most, mean) if plane is not None]
    number, n, ho, wo, c = wanted[0].shape
    h, w = x.shape[2:4]
    p, q, block = n * ho * wo, n * h * w, channel_block(c)
    pixels = pixel_block(block)
    launch(
        _forward, (cdiv(p, pixels), number * cdiv(c, block)),
        x, wanted[0] if most is None else most, wanted[-1] if mean is None else mean, wanted[0] if where is None else where,
        sources, p, q, h, w, ho, wo, c,
        MOST=most is not None, MEAN=mean is not None, S=stride, BP=pixels, BC=block, num_warps=4,
        moves=(q + len(wanted) * p + (0 if most is None else p // 2)) * number * c,
    )  # fmt: skip


def gradient(
    of_most: Tensor | None, of_mean: Tensor | None, of_x: Tensor, where: Tensor | None, sources: Tensor, *, stride: int
) -> None:
    """Add to the planes of_x[sources] what comes back from their pools (S, N, H', W', C). Reads and writes of_x, reads the others."""
    given = [plane for plane in (of_most, of_mean) if plane is not None]
    number, n, ho, wo, c = given[0].shape
    h, w = of_x.shape[2:4]
    p, q, block = n * ho * wo, n * h * w, channel_block(c)
    pixels = pixel_block(block)
    launch(
        _gradient, (cdiv(q, pixels), number * cdiv(c, block)),
        given[0] if of_most is None else of_most, given[-1] if of_mean is None else of_mean, of_x,
        given[0] if where is None else where, sources, p, q, h, w, ho, wo, c,
        MOST=of_most is not None, MEAN=of_mean is not None, S=stride, BP=pixels, BC=block, num_warps=4,
        moves=(2 * q + len(given) * p + (0 if of_most is None else p // 2)) * number * c,
    )  # fmt: skip
