"""Sums over all pixels: the mean and the covariance of the channels of a plane, and products of a gradient with a plane.

Both in two stages: programs sum the pixels of their chunk, then the chunks are put together in a fixed order. A chunk is centred before it
is squared, and means that differ between chunks are accounted for (Chan et al. 1983), so a mean of a thousand deviations costs no digits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_lite.operations.kernels.triton.launch import cdiv, chunks, launch, matrix_block, pixel_block, unit
from darts_lite.operations.kernels.triton.tiles import dot, tile

MOST = 32  # chunks: one program puts them together, one after the other


@triton.jit(do_not_specialize=["P", "CU", "CHUNK", "PLANES"])
def _moments(
    x, mean, square, P, CU, CHUNK, PLANES,
    UNIT: tl.constexpr, EXACT: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for CHUNK of the P pixels of a plane and BC x BC of its covariance; C = CU * UNIT channels.

    It is centred by the mean of the chunk's first block, and in the end by what the mean of the chunk differs from that.
    """
    C = CU * UNIT
    blocks = tl.cdiv(C, BC)
    part = tl.program_id(0) % (blocks * blocks)
    plane = tl.program_id(0) // (blocks * blocks)
    z = tl.program_id(1)
    row = (part // blocks) * BC + tl.arange(0, BC)
    column = (part % blocks) * BC + tl.arange(0, BC)
    x += plane.to(tl.int64) * P * C
    count = tl.minimum(P - z * CHUNK, CHUNK).to(tl.float32)
    here = tl.minimum(count, BP)
    p = z * CHUNK + tl.arange(0, BP)
    a = tile(x, p, row, P, C)
    b = tile(x, p, column, P, C)
    row_mean = tl.sum(a, axis=0) / here
    column_mean = tl.sum(b, axis=0) / here
    row_sum = tl.zeros((BP, BC), tl.float32)
    column_sum = tl.zeros((BP, BC), tl.float32)
    total = tl.zeros((BC, BC), tl.float32)
    for start in range(0, CHUNK, BP):
        p = z * CHUNK + start + tl.arange(0, BP)
        ok = (p < P)[:, None]
        a = tile(x, p, row, P, C)
        b = tile(x, p, column, P, C)
        a = tl.where(ok, a - row_mean[None, :], 0.0)
        b = tl.where(ok, b - column_mean[None, :], 0.0)
        row_sum += a
        column_sum += b
        total = dot(tl.trans(a), b, total, EXACT)
    row_moved = tl.sum(row_sum, axis=0) / count
    column_moved = tl.sum(column_sum, axis=0) / count
    total -= row_moved[:, None] * column_moved[None, :] * count
    at = (z * PLANES + plane) * C
    tl.store(square + (at + row[:, None]) * C + column[None, :], total, mask=(row < C)[:, None] & (column < C)[None, :])
    if part % blocks == 0:
        tl.store(mean + at + row, row_mean + row_moved, mask=row < C)


@triton.jit(do_not_specialize=["P", "C", "CHUNK", "CHUNKS", "PLANES"])
def _merge(
    part_mean, part_square, mean, covariance, P, C, CHUNK, CHUNKS, PLANES, BC: tl.constexpr,
):  # fmt: skip
    """One program for BC x BC of a plane's covariance: chunk by chunk."""
    plane = tl.program_id(0)
    row = tl.program_id(1) * BC + tl.arange(0, BC)
    column = tl.program_id(2) * BC + tl.arange(0, BC)
    row_mean = tl.zeros((BC,), tl.float32)
    column_mean = tl.zeros((BC,), tl.float32)
    total = tl.zeros((BC, BC), tl.float32)
    both = (row < C)[:, None] & (column < C)[None, :]
    for z in range(0, CHUNKS):
        share = tl.minimum(P - z * CHUNK, CHUNK).to(tl.float32) / P
        at = part_mean + (z * PLANES + plane) * C
        row_mean += tl.load(at + row, mask=row < C, other=0.0) * share
        column_mean += tl.load(at + column, mask=column < C, other=0.0) * share
    for z in range(0, CHUNKS):
        share = tl.minimum(P - z * CHUNK, CHUNK).to(tl.float32) / P
        at = (z * PLANES + plane) * C
        a = tl.load(part_mean + at + row, mask=row < C, other=0.0) - row_mean
        b = tl.load(part_mean + at + column, mask=column < C, other=0.0) - column_mean
        total += a[:, None] * b[None, :] * share
        total += tl.load(part_square + (at + row[:, None]) * C + column[None, :], mask=both, other=0.0) / P
    tl.store(covariance + (plane * C + row[:, None]) * C + column[None, :], total, mask=both)
    if tl.program_id(2) == 0:
        tl.store(mean + plane * C + row, row_mean, mask=row < C)


@triton.jit(
    do_not_specialize=["P", "PIXELS", "CU", "CHUNK", "TERMS", "EDGES"],
    do_not_specialize_on_alignment=["targets", "planes", "edges"],
)
def _products(
    g, x, mean, keep, part, sums, targets, planes, edges, P, PIXELS, CU, CHUNK, TERMS, EDGES,
    UNIT: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for CHUNK pixels and BC x BC of a term; PIXELS: of an image."""
    C = CU * UNIT
    blocks = tl.cdiv(C, BC)
    share = tl.program_id(0) % (blocks * blocks)
    term = tl.program_id(0) // (blocks * blocks)
    z = tl.program_id(1)
    row = (share // blocks) * BC + tl.arange(0, BC)
    column = (share % blocks) * BC + tl.arange(0, BC)
    plane = tl.load(planes + term)
    g += tl.load(targets + term).to(tl.int64) * P * C
    x += plane.to(tl.int64) * P * C
    edge = tl.load(edges + term)
    middle = tl.load(mean + plane * C + column, mask=column < C, other=0.0)
    total = tl.zeros((BC, BC), tl.float32)
    summed = tl.zeros((BP, BC), tl.float32)
    for start in range(0, CHUNK, BP):
        p = z * CHUNK + start + tl.arange(0, BP)
        ok = (p < P)[:, None]
        a = tile(g, p, row, P, C)
        if KEEP:
            if edge >= 0:
                a *= tl.load(keep + (p // PIXELS) * EDGES + edge, mask=p < P, other=0.0).to(tl.float32)[:, None]
        b = tile(x, p, column, P, C)
        b = tl.where(ok, b - middle[None, :], 0.0)
        total = dot(tl.trans(a), b, total, EXACT)
        summed += a
    at = (z * TERMS + term) * C
    tl.store(part + (at + row[:, None]) * C + column[None, :], total, mask=(row < C)[:, None] & (column < C)[None, :])
    if share % blocks == 0:
        tl.store(sums + at + row, tl.sum(summed, axis=0), mask=row < C)


def moments(x: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Write the `mean` (planes, C) and `covariance` (planes, C, C) of the planes x (planes, N, H, W, C). Reads each plane once."""
    planes, n, h, w, c = x.shape
    p, block, lanes = n * h * w, matrix_block(c), unit(c)
    exact = x.dtype == torch.float32
    pixels, blocks = pixel_block(block, exact=exact), cdiv(c, block)
    chunk, number = chunks(p, pixels, planes * blocks**2, MOST)
    part_mean, part_square = (torch.empty(number, planes, c, *more, device=x.device) for more in ((), (c,)))
    launch(
        _moments, (planes * blocks**2, number), x, part_mean, part_square, p, c // lanes, chunk, planes,
        UNIT=lanes, EXACT=exact, BP=pixels, BC=block, num_warps=4, moves=x.numel(),
    )  # fmt: skip
    launch(
        _merge, (planes, blocks, blocks), part_mean, part_square, mean, covariance, p, c, chunk, number, planes,
        BC=block, num_warps=4, moves=part_square.numel() + part_mean.numel() + covariance.numel(),
    )  # fmt: skip


def products(
    g: Tensor, x: Tensor, mean: Tensor, keep: Tensor | None, terms: tuple[Tensor, Tensor, Tensor], *, read: int
) -> tuple[Tensor, Tensor]:
    """Sums over pixels of each term: g (x - mean)^T, (chunks, terms, C, C), and g, (chunks, terms, C), still to be summed over the chunks.

    `terms`: target (of g), plane (of x) and edge (of `keep` (N, E), -1: none) of each. Reads `read` planes at least.
    """
    targets, planes, edges = terms
    n, h, w, c = x.shape[1:]
    p, block, lanes, number = n * h * w, matrix_block(c), unit(c), len(planes)
    exact = x.dtype == torch.float32
    pixels, blocks = pixel_block(block, exact=exact), cdiv(c, block)
    chunk, parts = chunks(p, pixels, number * blocks**2, MOST)
    part, sums = torch.empty(parts, number, c, c, device=x.device), torch.empty(parts, number, c, device=x.device)
    launch(
        _products, (number * blocks**2, parts),
        g, x, mean, g if keep is None else keep, part, sums, targets, planes, edges, p, h * w, c // lanes, chunk, number,
        0 if keep is None else keep.shape[1],
        UNIT=lanes, KEEP=keep is not None, EXACT=exact, BP=pixels, BC=block, num_warps=4, moves=read * p * c,
    )  # fmt: skip
    return part, sums
