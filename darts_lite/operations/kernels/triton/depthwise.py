"""Depthwise convolution of planes, forward and back, with the ReLU before it read on the way.

Copy i of a layer convolves the plane `sources[i]` with kernels of its own: the source is indexed, not repeated. Channels are contiguous,
so a block of pixels times channels reads whole vectors; the k * k reads of a pixel meet in the cache, and memory sees each plane read or
written once. Kernels are k x k with odd k, images end in zeros.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_lite.operations.kernels.triton.launch import SPATIAL, cdiv, chunks, launch, pixel_block, unit
from darts_lite.operations.kernels.triton.tiles import output_place, place

# Neither sizes nor where tables lie are worth a compilation of their own.
SIZES = ["P", "Q", "H", "W", "HO", "WO", "CU", "D", "OTHERS"]
TABLES = ["sources", "targets", "starts", "copies"]


@triton.jit
def relu(a):
    """max(a, 0); NaN stays NaN."""
    return tl.maximum(a, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=TABLES)
def _forward(
    x, y, weight, sources, P, Q, H, W, HO, WO, CU, D, OTHERS,
    UNIT: tl.constexpr, K: tl.constexpr, S: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for BP of the P pixels of a plane of y and BC of the C = CU * UNIT channels of a copy; planes of x have Q pixels."""
    C = CU * UNIT
    copy, c, p = place(OTHERS, C, BP, BC)
    inside = c < C
    x += tl.load(sources + copy).to(tl.int64) * Q * C
    y += copy.to(tl.int64) * P * C
    w0 = (p % WO) * S - D * (K // 2)
    h = ((p // WO) % HO) * S - D * (K // 2)
    row = (p // (WO * HO)) * H
    taps = weight + (copy * C + c) * (K * K)
    total = tl.zeros((BP, BC), tl.float32)
    for _ in range(K):
        for j in tl.static_range(K):
            w = w0 + j * D
            ok = (p < P) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            at = ((row + h) * W + w)[:, None] * C + c[None, :]
            a = tl.load(x + at, mask=ok[:, None] & inside[None, :], other=0.0).to(tl.float32)
            k = tl.load(taps + j, mask=inside, other=0.0).to(tl.float32)
            total += relu(a) * k[None, :]
        h += D
        taps += K
    at = p[:, None] * C + c[None, :]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=(p < P)[:, None] & inside[None, :])


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=TABLES)
def _input_gradient(
    g, of_x, x, weight, sources, targets, starts, copies, P, Q, H, W, HO, WO, CU, D, OTHERS,
    UNIT: tl.constexpr, ADD: tl.constexpr, K: tl.constexpr, S: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for BP pixels of x: the sum over the copies that read them, where x was above zero."""
    C = CU * UNIT
    number, c, p = place(OTHERS, C, BP, BC)
    inside = c < C
    b0 = p % W + D * (K // 2)
    a0 = (p // W) % H + D * (K // 2)
    row = (p // (W * H)) * HO
    total = tl.zeros((BP, BC), tl.float32)
    for index in range(tl.load(starts + number), tl.load(starts + number + 1)):
        copy = tl.load(copies + index)
        g_copy = g + copy.to(tl.int64) * P * C
        taps = weight + (copy * C + c) * (K * K)
        a = a0
        for _ in range(K):
            for j in tl.static_range(K):
                b = b0 - j * D
                ho, wo, ok = output_place(a, b, p < Q, HO, WO, S)
                at = ((row + ho) * WO + wo)[:, None] * C + c[None, :]
                v = tl.load(g_copy + at, mask=ok[:, None] & inside[None, :], other=0.0).to(tl.float32)
                total += v * tl.load(taps + j, mask=inside, other=0.0).to(tl.float32)[None, :]
            a -= D
            taps += K
    mask = (p < Q)[:, None] & inside[None, :]
    at = p[:, None] * C + c[None, :]
    read = tl.load(x + tl.load(sources + number).to(tl.int64) * Q * C + at, mask=mask, other=0.0)
    total = tl.where(read.to(tl.float32) > 0, total, 0.0)
    to = tl.load(targets + number).to(tl.int64) * Q * C + at
    if ADD:
        total += tl.load(of_x + to, mask=mask, other=0.0).to(tl.float32)
    tl.store(of_x + to, total.to(of_x.dtype.element_ty), mask=mask)


@triton.jit
def _tap(taps, j: tl.constexpr, products):
    """(taps, channels): the sum of products (pixels, channels) in row j, zeros elsewhere."""
    return tl.where(taps[:, None] == j, tl.sum(products, axis=0)[None, :], 0.0)


@triton.jit(do_not_specialize=[*SIZES, "CHUNK", "COPIES"], do_not_specialize_on_alignment=TABLES)
def _weight_gradient(
    g, x, part, sources, P, Q, H, W, HO, WO, CU, D, CHUNK, COPIES,
    UNIT: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, S: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for CHUNK pixels, BC channels and a row of the kernel, at most 7 wide; KP is a power of two from K on.

    Each tap has a sum for each of BP pixels, which are added up once, at the end: that takes threads that wait for each other.
    """
    C = CU * UNIT
    blocks = tl.cdiv(C, BC)
    copy = tl.program_id(0) // blocks
    c = (tl.program_id(0) % blocks) * BC + tl.arange(0, BC)
    z = tl.program_id(1)
    i = tl.program_id(2)
    inside = c < C
    x += tl.load(sources + copy).to(tl.int64) * Q * C
    g += copy.to(tl.int64) * P * C
    taps = tl.arange(0, KP)
    t0 = tl.zeros((BP, BC), tl.float32)
    t1 = t0
    t2 = t0
    t3 = t0
    t4 = t0
    t5 = t0
    t6 = t0
    for start in range(0, CHUNK, BP):
        p = z * CHUNK + start + tl.arange(0, BP)
        w0 = (p % WO) * S - D * (K // 2)
        h = ((p // WO) % HO) * S - D * (K // 2) + i * D
        row = (p // (WO * HO)) * H
        v = tl.load(g + p[:, None] * C + c[None, :], mask=(p < P)[:, None] & inside[None, :], other=0.0).to(tl.float32)
        for j in tl.static_range(K):
            w = w0 + j * D
            ok = (p < P) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            at = ((row + h) * W + w)[:, None] * C + c[None, :]
            a = tl.load(x + at, mask=ok[:, None] & inside[None, :], other=0.0).to(tl.float32)
            found = relu(a) * v
            if j == 0:
                t0 += found
            elif j == 1:
                t1 += found
            elif j == 2:
                t2 += found
            elif j == 3:
                t3 += found
            elif j == 4:
                t4 += found
            elif j == 5:
                t5 += found
            else:
                t6 += found
    total = _tap(taps, 0, t0)
    if K > 1:
        total += _tap(taps, 1, t1) + _tap(taps, 2, t2)
    if K > 3:
        total += _tap(taps, 3, t3) + _tap(taps, 4, t4)
    if K > 5:
        total += _tap(taps, 5, t5) + _tap(taps, 6, t6)
    to = (z * COPIES + copy) * C * K * K + c[None, :] * (K * K) + i * K + taps[:, None]
    tl.store(part + to, total, mask=(taps < K)[:, None] & inside[None, :])


def forward(x: Tensor, y: Tensor, weight: Tensor, sources: Tensor, *, read: int, stride: int, dilation: int) -> None:
    """Write planes y (copies, N, H', W', C) of ReLU of the planes x[sources]; `weight` (copies * C, 1, k, k).

    Reads `read` planes, writes one a copy.
    """
    copies, n, ho, wo, c = y.shape
    h, w = x.shape[2:4]
    p, q, pixels, lanes = n * ho * wo, n * h * w, pixel_block(SPATIAL), unit(c)
    others = copies * cdiv(c, SPATIAL)
    launch(
        _forward, (others * cdiv(p, pixels),),
        x, y, weight, sources, p, q, h, w, ho, wo, c // lanes, dilation, others,
        UNIT=lanes, K=weight.shape[-1], S=stride, BP=pixels, BC=SPATIAL, num_warps=4, moves=(read * q + copies * p) * c,
    )  # fmt: skip


def input_gradient(
    g: Tensor,
    of_x: Tensor,
    x: Tensor,
    weight: Tensor,
    readers: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    add: bool,
    stride: int,
    dilation: int,
) -> None:
    """Sum what comes back to each plane that is read, and write it, or `add` it to what is there.

    `readers`: the planes of x that are read (S,), the planes of of_x that get the sums (S,), and which copies read each: those from
    copies[starts[s]] to copies[starts[s + 1]].
    Reads the gradient of each copy, and two planes of each source, or one; writes one.
    """
    sources, targets, starts, read_by = readers
    copies, n, ho, wo, c = g.shape
    h, w = x.shape[2:4]
    p, q, pixels, lanes = n * ho * wo, n * h * w, pixel_block(SPATIAL), unit(c)
    others = len(sources) * cdiv(c, SPATIAL)
    launch(
        _input_gradient, (others * cdiv(q, pixels),),
        g, of_x, x, weight, sources, targets, starts, read_by, p, q, h, w, ho, wo, c // lanes, dilation, others,
        UNIT=lanes, ADD=add, K=weight.shape[-1], S=stride, BP=pixels, BC=SPATIAL, num_warps=4,
        moves=(copies * p + (3 if add else 2) * len(sources) * q) * c,
    )  # fmt: skip


def weight_gradient(
    g: Tensor, x: Tensor, weight: Tensor, sources: Tensor, *, read: int, stride: int, dilation: int
) -> Tensor:
    """(copies * C, 1, k, k), float32. Reads `read` planes and the gradient of each copy."""
    copies, n, ho, wo, c = g.shape
    h, w = x.shape[2:4]
    k, p, q, lanes = weight.shape[-1], n * ho * wo, n * h * w, unit(c)
    pixels = pixel_block(SPATIAL) // (1 if k <= 3 else 2)  # a sum a tap: so the registers suffice
    chunk, number = chunks(p, pixels, copies * cdiv(c, SPATIAL) * k)
    part = torch.empty(number, copies * c, k, k, device=g.device)
    launch(
        _weight_gradient, (copies * cdiv(c, SPATIAL), number, k),
        g, x, part, sources, p, q, h, w, ho, wo, c // lanes, dilation, chunk, copies,
        UNIT=lanes, K=k, KP=triton.next_power_of_2(k), S=stride, BP=pixels, BC=SPATIAL, num_warps=4,
        moves=(read * q + copies * p) * c,
    )  # fmt: skip
    return part.sum(0)[:, None]
