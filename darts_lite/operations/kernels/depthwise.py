"""Depthwise convolution of planes, forward and back, with the ReLU before it read on the way.

Copy i of a group convolves the plane `sources[i]` with kernels of its own: the source is indexed, not repeated. Channels are contiguous, so a
block of pixels times channels reads whole vectors; the k * k reads of a pixel meet in the cache, and of each plane memory sees one read or
write. Kernels are k x k with odd k, images end in zeros.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_lite.operations.kernels.launch import cdiv, channel_block, chunks, launch, pixel_block


@triton.jit
def _forward(
    x, y, weight, sources, P, Q, H, W, HO, WO, C,
    K: tl.constexpr, S: tl.constexpr, D: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """P pixels of y, Q of x, in a plane; one program for BP pixels and BC channels of a copy."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    blocks = tl.cdiv(C, BC)
    copy = tl.program_id(1) // blocks
    c = (tl.program_id(1) % blocks) * BC + tl.arange(0, BC)
    inside = c < C
    x += tl.load(sources + copy).to(tl.int64) * Q * C
    y += copy.to(tl.int64) * P * C
    wo = p % WO
    ho = (p // WO) % HO
    n = p // (WO * HO)
    pad: tl.constexpr = D * (K // 2)
    total = tl.zeros((BP, BC), tl.float32)
    for i in tl.static_range(K):
        for j in tl.static_range(K):
            h = ho * S - pad + i * D
            w = wo * S - pad + j * D
            ok = (p < P) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            at = ((n * H + h) * W + w)[:, None] * C + c[None, :]
            a = tl.load(x + at, mask=ok[:, None] & inside[None, :], other=0.0).to(tl.float32)
            k = tl.load(weight + (copy * C + c) * (K * K) + i * K + j, mask=inside, other=0.0).to(tl.float32)
            total += tl.maximum(a, 0.0) * k[None, :]
    at = p[:, None] * C + c[None, :]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=(p < P)[:, None] & inside[None, :])


@triton.jit
def _input_gradient(
    g, of_x, x, weight, sources, targets, starts, copies, P, Q, H, W, HO, WO, C,
    ADD: tl.constexpr, K: tl.constexpr, S: tl.constexpr, D: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for BP pixels of x: the sum over the copies that read them, where x was above zero."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    blocks = tl.cdiv(C, BC)
    number = tl.program_id(1) // blocks
    c = (tl.program_id(1) % blocks) * BC + tl.arange(0, BC)
    inside = c < C
    w = p % W
    h = (p // W) % H
    n = p // (W * H)
    pad: tl.constexpr = D * (K // 2)
    total = tl.zeros((BP, BC), tl.float32)
    for index in range(tl.load(starts + number), tl.load(starts + number + 1)):
        copy = tl.load(copies + index)
        g_copy = g + copy.to(tl.int64) * P * C
        for i in tl.static_range(K):
            for j in tl.static_range(K):
                a = h + pad - i * D
                b = w + pad - j * D
                ho = a // S
                wo = b // S
                ok = (p < Q) & (a >= 0) & (b >= 0) & (ho < HO) & (wo < WO)
                if S > 1:
                    ok = ok & (a % S == 0) & (b % S == 0)
                at = ((n * HO + ho) * WO + wo)[:, None] * C + c[None, :]
                v = tl.load(g_copy + at, mask=ok[:, None] & inside[None, :], other=0.0).to(tl.float32)
                k = tl.load(weight + (copy * C + c) * (K * K) + i * K + j, mask=inside, other=0.0).to(tl.float32)
                total += v * k[None, :]
    mask = (p < Q)[:, None] & inside[None, :]
    at = p[:, None] * C + c[None, :]
    read = tl.load(x + tl.load(sources + number).to(tl.int64) * Q * C + at, mask=mask, other=0.0)
    total = tl.where(read.to(tl.float32) > 0, total, 0.0)
    to = tl.load(targets + number).to(tl.int64) * Q * C + at
    if ADD:
        total += tl.load(of_x + to, mask=mask, other=0.0).to(tl.float32)
    tl.store(of_x + to, total.to(of_x.dtype.element_ty), mask=mask)


@triton.jit
def _weight_gradient(
    g, x, part, sources, P, Q, H, W, HO, WO, C, CHUNK, COPIES,
    K: tl.constexpr, KP: tl.constexpr, S: tl.constexpr, D: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for CHUNK pixels, BC channels and a row of the kernel; KP is a power of two from K on."""
    z = tl.program_id(0)
    blocks = tl.cdiv(C, BC)
    copy = tl.program_id(1) // blocks
    c = (tl.program_id(1) % blocks) * BC + tl.arange(0, BC)
    i = tl.program_id(2)
    inside = c < C
    x += tl.load(sources + copy).to(tl.int64) * Q * C
    g += copy.to(tl.int64) * P * C
    taps = tl.arange(0, KP)
    pad: tl.constexpr = D * (K // 2)
    total = tl.zeros((KP, BC), tl.float32)
    for start in range(0, CHUNK, BP):
        p = z * CHUNK + start + tl.arange(0, BP)
        wo = p % WO
        ho = (p // WO) % HO
        n = p // (WO * HO)
        h = ho * S - pad + i * D
        v = tl.load(g + p[:, None] * C + c[None, :], mask=(p < P)[:, None] & inside[None, :], other=0.0).to(tl.float32)
        for j in tl.static_range(K):
            w = wo * S - pad + j * D
            ok = (p < P) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            at = ((n * H + h) * W + w)[:, None] * C + c[None, :]
            a = tl.load(x + at, mask=ok[:, None] & inside[None, :], other=0.0).to(tl.float32)
            found = tl.sum(tl.maximum(a, 0.0) * v, axis=0)
            total += tl.where(taps[:, None] == j, found[None, :], 0.0)
    to = (z * COPIES + copy) * C * K * K + c[None, :] * (K * K) + i * K + taps[:, None]
    tl.store(part + to, total, mask=(taps < K)[:, None] & inside[None, :])


def forward(x: Tensor, y: Tensor, weight: Tensor, sources: Tensor, *, read: int, stride: int, dilation: int) -> None:
    """Write planes y (copies, N, H', W', C) of ReLU of the planes x[sources]; `weight` (copies * C, 1, k, k).

    Reads `read` planes, writes one a copy.
    """
    copies, n, ho, wo, c = y.shape
    h, w = x.shape[2:4]
    p, q, block = n * ho * wo, n * h * w, channel_block(c)
    pixels = pixel_block(block)
    launch(
        _forward, (cdiv(p, pixels), copies * cdiv(c, block)), x, y, weight, sources, p, q, h, w, ho, wo, c,
        K=weight.shape[-1], S=stride, D=dilation, BP=pixels, BC=block, num_warps=4, moves=(read * q + copies * p) * c,
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
    p, q, block = n * ho * wo, n * h * w, channel_block(c)
    pixels = pixel_block(block)
    launch(
        _input_gradient, (cdiv(q, pixels), len(sources) * cdiv(c, block)),
        g, of_x, x, weight, sources, targets, starts, read_by, p, q, h, w, ho, wo, c,
        ADD=add, K=weight.shape[-1], S=stride, D=dilation, BP=pixels, BC=block, num_warps=4,
        moves=(copies * p + (3 if add else 2) * len(sources) * q) * c,
    )  # fmt: skip


def weight_gradient(
    g: Tensor, x: Tensor, weight: Tensor, sources: Tensor, *, read: int, stride: int, dilation: int
) -> Tensor:
    """(copies * C, 1, k, k), float32. Reads `read` planes and the gradient of each copy."""
    copies, n, ho, wo, c = g.shape
    h, w = x.shape[2:4]
    k, p, q, block = weight.shape[-1], n * ho * wo, n * h * w, channel_block(c)
    pixels = pixel_block(block)
    chunk, number = chunks(p, pixels, copies * cdiv(c, block) * k)
    part = torch.empty(number, copies * c, k, k, device=g.device)
    launch(
        _weight_gradient, (number, copies * cdiv(c, block), k), g, x, part, sources, p, q, h, w, ho, wo, c, chunk, copies,
        K=k, KP=triton.next_power_of_2(k), S=stride, D=dilation, BP=pixels, BC=block, num_warps=4,
        moves=(read * q + copies * p) * c,
    )  # fmt: skip
    return part.sum(0)[:, None]
