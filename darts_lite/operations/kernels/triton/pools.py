"""3x3 pools of planes, maximum and average of one read, forward and back. The average counts only pixels of the image."""

import triton
import triton.language as tl
from torch import Tensor

from darts_lite.operations.kernels.triton.launch import SPATIAL, cdiv, launch, pixel_block, unit
from darts_lite.operations.kernels.triton.tiles import output_place, place

SIZES = ["P", "Q", "H", "W", "HO", "WO", "CU", "OTHERS"]  # not worth a compilation of their own


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=["sources"])
def _forward(
    x, most, mean, where, sources, P, Q, H, W, HO, WO, CU, OTHERS,
    UNIT: tl.constexpr, MOST: tl.constexpr, MEAN: tl.constexpr, S: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for BP pixels and BC channels; `where` (int8) gets the tap of the maximum, the first one of equals."""
    C = CU * UNIT
    number, c, p = place(OTHERS, C, BP, BC)
    inside = c < C
    x += tl.load(sources + number).to(tl.int64) * Q * C
    w0 = (p % WO) * S - 1
    h0 = ((p // WO) % HO) * S - 1
    row = (p // (WO * HO)) * H
    largest = tl.full((BP, BC), float("-inf"), tl.float32)
    tap = tl.zeros((BP, BC), tl.int32)
    total = tl.zeros((BP, BC), tl.float32)
    for i in range(3):
        for j in tl.static_range(3):
            h = h0 + i
            w = w0 + j
            ok = (p < P) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            mask = ok[:, None] & inside[None, :]
            at = ((row + h) * W + w)[:, None] * C + c[None, :]
            a = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
            if MOST:
                # A number that is none spreads, as in torch's.
                better = mask & ((a > largest) | (a != a))
                largest = tl.where(better, a, largest)
                tap = tl.where(better, i * 3 + j, tap)
            if MEAN:
                total += a
    at = number.to(tl.int64) * P * C + p[:, None] * C + c[None, :]
    mask = (p < P)[:, None] & inside[None, :]
    if MOST:
        tl.store(most + at, largest.to(most.dtype.element_ty), mask=mask)
        tl.store(where + at, tap.to(tl.int8), mask=mask)
    if MEAN:
        count = _inside(h0, H) * _inside(w0, W)
        tl.store(mean + at, (total / count[:, None]).to(mean.dtype.element_ty), mask=mask)


@triton.jit
def _inside(first, side):
    """Number, 1 to 3, of the places first, first + 1, first + 2 that lie in the image; 1 where none does."""
    return tl.maximum(tl.minimum(first + 3, side) - tl.maximum(first, 0), 1).to(tl.float32)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=["sources"])
def _gradient(
    of_most, of_mean, of_x, where, sources, P, Q, H, W, HO, WO, CU, OTHERS,
    UNIT: tl.constexpr, MOST: tl.constexpr, MEAN: tl.constexpr, S: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for BP pixels of x: the sum over the windows that it lies in, added to what is there."""
    C = CU * UNIT
    number, c, p = place(OTHERS, C, BP, BC)
    inside = c < C
    b0 = p % W + 1
    a0 = (p // W) % H + 1
    row = (p // (W * H)) * HO
    to = tl.load(sources + number).to(tl.int64) * Q * C + p[:, None] * C + c[None, :]
    mask = (p < Q)[:, None] & inside[None, :]
    total = tl.load(of_x + to, mask=mask, other=0.0).to(tl.float32)
    plane = number.to(tl.int64) * P * C
    for i in range(3):
        for j in tl.static_range(3):
            a = a0 - i
            b = b0 - j
            ho, wo, ok = output_place(a, b, p < Q, HO, WO, S)
            at = plane + ((row + ho) * WO + wo)[:, None] * C + c[None, :]
            here = ok[:, None] & inside[None, :]
            if MOST:
                v = tl.load(of_most + at, mask=here, other=0.0).to(tl.float32)
                tap = tl.load(where + at, mask=here, other=-1).to(tl.int32)
                total += tl.where(tap == i * 3 + j, v, 0.0)
            if MEAN:
                v = tl.load(of_mean + at, mask=here, other=0.0).to(tl.float32)
                total += v * (1.0 / (_inside(ho * S - 1, H) * _inside(wo * S - 1, W)))[:, None]
    tl.store(of_x + to, total.to(of_x.dtype.element_ty), mask=mask)


def forward(
    x: Tensor, most: Tensor | None, mean: Tensor | None, where: Tensor | None, sources: Tensor, *, stride: int
) -> None:
    """Write the pools of the planes x[sources] into `most` and `mean` (S, N, H', W', C); None: not wanted. `where`: int8, beside `most`.

    Reads a plane a source once, writes one for each pool, and for the maximum half a plane (of bf16) more.
    """
    wanted = [plane for plane in (most, mean) if plane is not None]
    number, n, ho, wo, c = wanted[0].shape
    h, w = x.shape[2:4]
    p, q, pixels, lanes = n * ho * wo, n * h * w, pixel_block(SPATIAL), unit(c)
    others = number * cdiv(c, SPATIAL)
    launch(
        _forward, (others * cdiv(p, pixels),),
        x, wanted[0] if most is None else most, wanted[-1] if mean is None else mean, wanted[0] if where is None else where,
        sources, p, q, h, w, ho, wo, c // lanes, others,
        UNIT=lanes, MOST=most is not None, MEAN=mean is not None, S=stride, BP=pixels, BC=SPATIAL, num_warps=4,
        moves=(q + len(wanted) * p + (0 if most is None else p // 2)) * number * c,
    )  # fmt: skip


def gradient(
    of_most: Tensor | None, of_mean: Tensor | None, of_x: Tensor, where: Tensor | None, sources: Tensor, *, stride: int
) -> None:
    """Add to the planes of_x[sources] what comes back from their pools (S, N, H', W', C). Reads and writes of_x, reads the others."""
    given = [plane for plane in (of_most, of_mean) if plane is not None]
    number, n, ho, wo, c = given[0].shape
    h, w = of_x.shape[2:4]
    p, q, pixels, lanes = n * ho * wo, n * h * w, pixel_block(SPATIAL), unit(c)
    others = number * cdiv(c, SPATIAL)
    launch(
        _gradient, (others * cdiv(q, pixels),),
        given[0] if of_most is None else of_most, given[-1] if of_mean is None else of_mean, of_x,
        given[0] if where is None else where, sources, p, q, h, w, ho, wo, c // lanes, others,
        UNIT=lanes, MOST=of_most is not None, MEAN=of_mean is not None, S=stride, BP=pixels, BC=SPATIAL, num_warps=4,
        moves=(2 * q + len(given) * p + (0 if of_most is None else p // 2)) * number * c,
    )  # fmt: skip
