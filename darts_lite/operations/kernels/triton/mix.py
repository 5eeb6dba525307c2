"""The two passes over all pixels of a cell: planes times the matrices of their terms, summed into targets, and back.

A target is the sum of A (x - m) + b over its terms, the gradient of a plane the sum of A^T g - K (x - m) - constant over those that read
it; `matrices` makes A, b, K and the constants. Drop-path multiplies what a term brings.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_lite.operations.kernels.triton.launch import cdiv, launch, matrix_block, pixel_block, unit
from darts_lite.operations.kernels.triton.matrices import Folded
from darts_lite.operations.kernels.triton.tiles import dot, place, rounded, tile

TABLES = ["planes", "edges", "starts", "terms", "targets"]  # read number by number


@triton.jit
def _kept(keep, edges, term, p, ok, PIXELS, EDGES):
    """(pixels) the factor of drop-path for what a term brings."""
    edge = tl.load(edges + term)
    dropped = tl.load(keep + (p // PIXELS) * EDGES + tl.maximum(edge, 0), mask=ok, other=0.0).to(tl.float32)
    return tl.where(edge >= 0, dropped, 1.0)


@triton.jit(do_not_specialize=["P", "PIXELS", "CU", "EDGES", "OTHERS"], do_not_specialize_on_alignment=TABLES)
def _mix(
    x, y, mean, combined, shift, keep, planes, edges, starts, terms, P, PIXELS, CU, EDGES, OTHERS,
    UNIT: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for BP of the P pixels and BC of the C = CU * UNIT channels of a target; PIXELS: of an image."""
    C = CU * UNIT
    blocks = tl.cdiv(C, BC)
    target, c, p = place(OTHERS, C, BP, BC)
    ok = p < P
    total = tl.zeros((BP, BC), tl.float32)
    begin = tl.load(starts + target)
    end = tl.load(starts + target + 1)
    for step in range(begin * blocks, end * blocks):  # one loop, so that loads run ahead from term to term
        term = tl.load(terms + step // blocks)
        inner = (step % blocks) * BC + tl.arange(0, BC)
        plane = tl.load(planes + term)
        a = tile(x + plane.to(tl.int64) * P * C, p, inner, P, C)
        a -= tl.load(mean + plane * C + inner, mask=inner < C, other=0.0)[None, :]
        if KEEP:
            a *= _kept(keep, edges, term, p, ok, PIXELS, EDGES)[:, None]
        at = combined + (term * C + c[None, :]) * C + inner[:, None]
        b = tl.load(at, mask=(inner < C)[:, None] & (c < C)[None, :], other=0.0)
        total = dot(a, b, total, EXACT)
        if not EXACT:
            total = dot(a, b - rounded(b), total, EXACT)
    for index in range(begin, end):
        term = tl.load(terms + index)
        constant = tl.load(shift + term * C + c, mask=c < C, other=0.0)[None, :]
        if KEEP:
            constant = constant * _kept(keep, edges, term, p, ok, PIXELS, EDGES)[:, None]
        total += constant
    at = y + target.to(tl.int64) * P * C + p[:, None] * C + c[None, :]
    tl.store(at, total.to(y.dtype.element_ty), mask=ok[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=["P", "PIXELS", "CU", "EDGES", "OTHERS"], do_not_specialize_on_alignment=TABLES)
def _unmix(
    g, x, of_x, mean, combined, curvature, constant, keep, planes, starts, terms, targets, edges, P, PIXELS, CU, EDGES, OTHERS,
    UNIT: tl.constexpr, KEEP: tl.constexpr, EXACT: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for BP pixels and BC channels of a plane."""
    C = CU * UNIT
    blocks = tl.cdiv(C, BC)
    number, c, p = place(OTHERS, C, BP, BC)
    ok = p < P
    plane = tl.load(planes + number)
    total = tl.zeros((BP, BC), tl.float32)
    for k in range(0, C, BC):
        inner = k + tl.arange(0, BC)
        a = tile(x + plane.to(tl.int64) * P * C, p, inner, P, C)
        a -= tl.load(mean + plane * C + inner, mask=inner < C, other=0.0)[None, :]
        total = dot(a, -tile(curvature + number * C * C, inner, c, C, C), total, EXACT)
    for step in range(tl.load(starts + number) * blocks, tl.load(starts + number + 1) * blocks):
        term = tl.load(terms + step // blocks)
        inner = (step % blocks) * BC + tl.arange(0, BC)
        a = tile(g + tl.load(targets + term).to(tl.int64) * P * C, p, inner, P, C)
        if KEEP:
            a *= _kept(keep, edges, term, p, ok, PIXELS, EDGES)[:, None]
        b = tile(combined + term * C * C, inner, c, C, C)
        total = dot(a, b, total, EXACT)
        if not EXACT:
            total = dot(a, b - rounded(b), total, EXACT)
    total -= tl.load(constant + number * C + c, mask=c < C, other=0.0)[None, :]
    at = of_x + number.to(tl.int64) * P * C + p[:, None] * C + c[None, :]
    tl.store(at, total.to(of_x.dtype.element_ty), mask=ok[:, None] & (c < C)[None, :])


def mix(
    x: Tensor,
    y: Tensor,
    mean: Tensor,
    folded: Folded,
    keep: Tensor | None,
    tables: tuple[Tensor, Tensor, Tensor, Tensor],
    *,
    read: int,
) -> None:
    """Write the targets y (T', N, H, W, C), each the sum of A (x - mean) + shift over its terms.

    `tables`: plane (of x and mean) and edge (of `keep` (N, E), -1: none) of each term, and the terms of each target: those from
    terms[starts[t]] to terms[starts[t + 1]]. Reads `read` planes, writes the targets.
    """
    planes, edges, starts, terms = tables
    targets, n, h, w, c = y.shape
    p, block, lanes = n * h * w, matrix_block(c), unit(c)
    pixels, others = pixel_block(block), targets * cdiv(c, block)
    launch(
        _mix, (others * cdiv(p, pixels),),
        x, y, mean, folded.combined, folded.shift, x if keep is None else keep, planes, edges, starts, terms, p, h * w, c // lanes,
        0 if keep is None else keep.shape[1], others,
        UNIT=lanes, KEEP=keep is not None, EXACT=x.dtype == torch.float32, BP=pixels, BC=block, num_warps=4, moves=(read + targets) * p * c,
    )  # fmt: skip


def unmix(
    g: Tensor,
    x: Tensor,
    of_x: Tensor,
    mean: Tensor,
    folded: Folded,
    bent: tuple[Tensor, Tensor],
    keep: Tensor | None,
    tables: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    *,
    read: int,
) -> None:
    """Write the gradients of planes, of_x (planes, N, H, W, C), from g, the gradients of the targets; `bent`: from `unfold`.

    `tables`: the planes (of x and mean), which terms each has (starts, terms), and target and edge of each term. Reads `read` planes.
    """
    planes, starts, terms, targets, edges = tables
    number, n, h, w, c = of_x.shape
    p, block, lanes = n * h * w, matrix_block(c), unit(c)
    pixels, others = pixel_block(block), number * cdiv(c, block)
    launch(
        _unmix, (others * cdiv(p, pixels),),
        g, x, of_x, mean, folded.combined, *bent, g if keep is None else keep,
        planes, starts, terms, targets, edges, p, h * w, c // lanes, 0 if keep is None else keep.shape[1], others,
        UNIT=lanes, KEEP=keep is not None, EXACT=x.dtype == torch.float32, BP=pixels, BC=block, num_warps=4, moves=(read + number) * p * c,
    )  # fmt: skip
