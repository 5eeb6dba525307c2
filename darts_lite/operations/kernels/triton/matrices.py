"""Pointwise convolution, BatchNorm, mixing weight and the sum into a node as one matrix product a node, forward and back.

A *term* brings a plane x (P pixels, C channels) to a target: W is its pointwise convolution (the identity after a pool or a skip), s the
scale of its output (a mixing weight, or the weight of an affine BatchNorm), b its bias. With the mean m and the covariance S of x

    BatchNorm(W x) s + b = A (x - m) + b        A = diag(s r) W        r = 1 / sqrt(diag(W S W^T) + eps)

so W x is never written: the target is the sum of A (x - m) + b over its terms. Back, with the gradient g of the target,
G = sum over pixels of g (x - m)^T, u = diag(G W^T) and t = sum of g:

    s   r u        b   t        W   diag(s r) (G - diag(r^2 u) W S)
    x   sum over the terms of x of   A^T g - K (x - m) - W^T (s r t) / P        K = W^T diag(s r^3 u / P) W

A term without BatchNorm has m = 0 and r = 1, and neither K nor the last vector. (BatchNorm: Ioffe & Szegedy 2015; `operations.fold` does
the same on a CPU.) In bfloat16 the matrix A is used as the sum of two, its rounded value and what that leaves: a mixing weight has 16 bits.
W and all that is (T, ..) are float32.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_lite.operations.kernels.triton.launch import cdiv, launch, matrix_block
from darts_lite.operations.kernels.triton.tiles import tile

TABLES = ["planes", "starts", "terms", "normed", "factor"]  # read number by number
ROWS = 16  # of a matrix that a program folds; the least that `tl.dot` takes


@dataclass(frozen=True)
class Scales:
    """Scales of the output of T terms: factor (T,), and (T, C) the weight of an affine BatchNorm; None: 1."""

    factor: Tensor | None
    weight: Tensor | None

    def __getitem__(self, terms: slice) -> "Scales":
        """The rows of some terms."""
        return Scales(*(None if scale is None else scale[terms] for scale in (self.factor, self.weight)))


@triton.jit
def _scale(factor, weight, term, row, C, FACTOR: tl.constexpr, WEIGHT: tl.constexpr):
    """(rows) the scale of rows of a term."""
    scale = tl.where(row < C, 1.0, 0.0)
    if FACTOR:
        scale *= tl.load(factor + term).to(tl.float32)
    if WEIGHT:
        scale *= tl.load(weight + term * C + row, mask=row < C, other=0.0).to(tl.float32)
    return scale


@triton.jit(do_not_specialize=["C"], do_not_specialize_on_alignment=TABLES)
def _fold(
    matrix, covariance, mean, factor, weight, bias, planes, normed,
    combined, spread, inverse_std, shift, out_mean, out_variance, C, eps,
    FACTOR: tl.constexpr, WEIGHT: tl.constexpr, TRAINING: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for BR rows of a term. `out_mean` and `out_variance` are written in training, read otherwise."""
    term = tl.program_id(0)
    row = tl.program_id(1) * BR + tl.arange(0, BR)
    inside = row < C
    plane = tl.load(planes + term)
    norm = tl.load(normed + term) > 0
    first = matrix + term * C * C
    moved = tl.zeros((BR,), tl.float32)
    variance = tl.zeros((BR,), tl.float32)
    if TRAINING:
        if norm:
            for j in range(0, C, BC):
                column = j + tl.arange(0, BC)
                total = tl.zeros((BR, BC), tl.float32)
                for k in range(0, C, BC):
                    inner = k + tl.arange(0, BC)
                    a = tile(first, row, inner, C, C)
                    b = tile(covariance + plane * C * C, inner, column, C, C)
                    total = tl.dot(a, b, total, input_precision="ieee")
                w = tile(first, row, column, C, C)
                variance += tl.sum(total * w, axis=1)
                moved += tl.sum(w * tl.load(mean + plane * C + column, mask=column < C, other=0.0)[None, :], axis=1)
                mask = inside[:, None] & (column < C)[None, :]
                tl.store(spread + (term * C + row[:, None]) * C + column[None, :], total, mask=mask)
            variance = tl.where(variance < 0.0, 0.0, variance)  # what is no number stays
        tl.store(out_mean + term * C + row, moved, mask=inside)
        tl.store(out_variance + term * C + row, variance, mask=inside)
    else:
        moved = tl.load(out_mean + term * C + row, mask=inside, other=0.0).to(tl.float32)
        variance = tl.load(out_variance + term * C + row, mask=inside, other=0.0).to(tl.float32)
    inverse = tl.where(norm, 1.0 / tl.sqrt_rn(variance + eps), 1.0)
    gain = inverse * _scale(factor, weight, term, row, C, FACTOR, WEIGHT)
    constant = tl.zeros((BR,), tl.float32)
    if WEIGHT:
        constant += tl.load(bias + term * C + row, mask=inside, other=0.0).to(tl.float32)
    if not TRAINING:
        constant -= tl.where(norm, gain * moved, 0.0)
    tl.store(inverse_std + term * C + row, inverse, mask=inside)
    tl.store(shift + term * C + row, constant, mask=inside)
    for j in range(0, C, BC):
        column = j + tl.arange(0, BC)
        mask = inside[:, None] & (column < C)[None, :]
        w = tile(first, row, column, C, C)
        tl.store(combined + (term * C + row[:, None]) * C + column[None, :], gain[:, None] * w, mask=mask)


@triton.jit
def _sum_of_parts(at, mask, PARTS, step, BR: tl.constexpr, BC: tl.constexpr):
    """(BR, BC): the sum of what stands at `at`, at + step, ..."""
    total = tl.zeros((BR, BC), tl.float32)
    for z in range(0, PARTS):
        total += tl.load(at + z * step, mask=mask, other=0.0)
    return total


@triton.jit(do_not_specialize=["C", "PARTS", "TERMS", "PIXELS"], do_not_specialize_on_alignment=TABLES)
def _unfold(
    part, sums, matrix, spread, inverse_std, factor, weight, normed, of_matrix, of_scale, of_shift, bend, push,
    C, PARTS, TERMS, PIXELS, FACTOR: tl.constexpr, WEIGHT: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One program for BR rows of a term; PIXELS: over which the statistics were taken."""
    term = tl.program_id(0)
    row = tl.program_id(1) * BR + tl.arange(0, BR)
    inside = row < C
    norm = tl.load(normed + term) > 0
    rows = (term * C + row[:, None]) * C
    total = tl.zeros((BR,), tl.float32)
    for z in range(0, PARTS):
        total += tl.load(sums + (z * TERMS + term) * C + row, mask=inside, other=0.0)
    along = tl.zeros((BR,), tl.float32)
    for j in range(0, C, BC):
        column = j + tl.arange(0, BC)
        mask = inside[:, None] & (column < C)[None, :]
        found = _sum_of_parts(part + rows + column[None, :], mask, PARTS, TERMS * C * C, BR, BC)
        along += tl.sum(found * tile(matrix + term * C * C, row, column, C, C), axis=1)
    inverse = tl.load(inverse_std + term * C + row, mask=inside, other=0.0)
    gain = inverse * _scale(factor, weight, term, row, C, FACTOR, WEIGHT)
    slope = tl.where(norm, along * inverse * inverse, 0.0)
    for j in range(0, C, BC):
        column = j + tl.arange(0, BC)
        mask = inside[:, None] & (column < C)[None, :]
        # Again: what other threads of the program have written would not be there yet.
        found = _sum_of_parts(part + rows + column[None, :], mask, PARTS, TERMS * C * C, BR, BC)
        if norm:
            found -= slope[:, None] * tile(spread + term * C * C, row, column, C, C)
        tl.store(of_matrix + rows + column[None, :], gain[:, None] * found, mask=mask)
    tl.store(of_scale + term * C + row, along * inverse, mask=inside)
    tl.store(of_shift + term * C + row, total, mask=inside)
    tl.store(bend + term * C + row, gain * slope / PIXELS, mask=inside)
    tl.store(push + term * C + row, tl.where(norm, gain * total / PIXELS, 0.0), mask=inside)


@triton.jit(do_not_specialize=["C"], do_not_specialize_on_alignment=TABLES)
def _curvature(
    matrix, bend, push, starts, terms, curvature, constant, C, BC: tl.constexpr,
):  # fmt: skip
    """One program for BC x BC of a plane: K and W^T (s r t) / P, summed over its terms."""
    plane = tl.program_id(0)
    row = tl.program_id(1) * BC + tl.arange(0, BC)
    column = tl.program_id(2) * BC + tl.arange(0, BC)
    total = tl.zeros((BC, BC), tl.float32)
    moved = tl.zeros((BC,), tl.float32)
    for index in range(tl.load(starts + plane), tl.load(starts + plane + 1)):
        term = tl.load(terms + index)
        for k in range(0, C, BC):
            inner = k + tl.arange(0, BC)
            a = tile(matrix + term * C * C, inner, row, C, C)
            b = tile(matrix + term * C * C, inner, column, C, C)
            bent = tl.load(bend + term * C + inner, mask=inner < C, other=0.0)
            total = tl.dot(tl.trans(a * bent[:, None]), b, total, input_precision="ieee")
            pushed = tl.load(push + term * C + inner, mask=inner < C, other=0.0)
            moved += tl.sum(a * pushed[:, None], axis=0)
    mask = (row < C)[:, None] & (column < C)[None, :]
    tl.store(curvature + (plane * C + row[:, None]) * C + column[None, :], total, mask=mask)
    if tl.program_id(2) == 0:
        tl.store(constant + plane * C + row, moved, mask=row < C)


@dataclass(frozen=True)
class Folded:
    """Results of `fold` for T terms, float32."""

    combined: Tensor  # (T, C, C): A
    spread: Tensor  # (T, C, C): W S
    inverse_std: Tensor  # (T, C): r
    shift: Tensor  # (T, C): b; with running statistics b - s r (running mean)
    mean: Tensor  # (T, C) of W x
    variance: Tensor  # (T, C) of W x, biased

    def __getitem__(self, terms: slice) -> "Folded":
        """The rows of some terms."""
        return Folded(*(getattr(self, one.name)[terms] for one in fields(self)))


@dataclass(frozen=True)
class Gradients:
    """Gradients of T terms, float32."""

    matrix: Tensor  # (T, C, C): of W
    scale: Tensor  # (T, C): of s
    shift: Tensor  # (T, C): of b

    def __getitem__(self, terms: slice) -> "Gradients":
        """The rows of some terms."""
        return Gradients(self.matrix[terms], self.scale[terms], self.shift[terms])


def room(kind: Any, terms: int, channels: int, device: torch.device) -> Any:
    """Room for `Folded` or `Gradients` of `terms` terms."""
    shapes = {
        "matrix": (terms, channels, channels),
        "combined": (terms, channels, channels),
        "spread": (terms, channels, channels),
    }
    return kind(*(torch.empty(shapes.get(one.name, (terms, channels)), device=device) for one in fields(kind)))


def fold(
    matrix: Tensor,
    moments: tuple[Tensor, Tensor] | None,
    scales: Scales,
    bias: Tensor | None,
    planes: Tensor,
    normed: Tensor,
    into: Folded,
    *,
    eps: float,
) -> None:
    """Write the matrices A of terms.

    `matrix` (T, C, C): W. `moments`: mean (planes, C) and covariance (planes, C, C) of the planes that `planes` (T,) numbers; None: the
    statistics are those in `into`. `bias` (T, C) beside the weight of an affine BatchNorm. `normed` (T,): whether the term has BatchNorm.
    """
    terms, c = matrix.shape[:2]
    mean, covariance = (matrix, matrix) if moments is None else moments
    factor, weight = (matrix if scale is None else scale for scale in (scales.factor, scales.weight))
    launch(
        _fold, (terms, cdiv(c, ROWS)),
        matrix, covariance, mean, factor, weight, matrix if bias is None else bias, planes, normed,
        into.combined, into.spread, into.inverse_std, into.shift, into.mean, into.variance, c, eps,
        FACTOR=scales.factor is not None, WEIGHT=scales.weight is not None, TRAINING=moments is not None,
        BR=ROWS, BC=matrix_block(c), num_warps=4, moves=4 * matrix.numel(),
    )  # fmt: skip


def unfold(
    found: tuple[Tensor, Tensor],
    matrix: Tensor,
    folded: Folded,
    scales: Scales,
    normed: Tensor,
    of_planes: tuple[Tensor, Tensor],
    into: Gradients,
    *,
    pixels: int,
) -> tuple[Tensor, Tensor]:
    """Write the gradients of terms; returns K (planes, C, C), and W^T (s r t) / P summed over the terms of a plane (planes, C).

    `found`: products of the terms' planes with the gradients of their targets (see `moments.products`). `of_planes`: (starts, terms), the
    terms of each plane, those from terms[starts[p]] to terms[starts[p + 1]]. `pixels`: of a plane.
    """
    part, sums = found
    parts, number, c = sums.shape
    starts, terms = of_planes
    planes, device, block = len(starts) - 1, matrix.device, matrix_block(c)
    bend, push = torch.empty(2, number, c, device=device)
    curvature, constant = torch.empty(planes, c, c, device=device), torch.empty(planes, c, device=device)
    factor, weight = (matrix if scale is None else scale for scale in (scales.factor, scales.weight))
    launch(
        _unfold, (number, cdiv(c, ROWS)),
        part, sums, matrix, folded.spread, folded.inverse_std, factor, weight, normed,
        into.matrix, into.scale, into.shift, bend, push, c, parts, number, pixels,
        FACTOR=scales.factor is not None, WEIGHT=scales.weight is not None, BR=ROWS, BC=block, num_warps=4,
        moves=part.numel() + 3 * matrix.numel(),
    )  # fmt: skip
    launch(
        _curvature, (planes, cdiv(c, block), cdiv(c, block)),
        matrix, bend, push, starts, terms, curvature, constant, c, BC=block, num_warps=4,
        moves=matrix.numel() + curvature.numel(),
    )  # fmt: skip
    return curvature, constant
