"""Helpers of all kernels: the block of a program, the block of a matrix, products of blocks."""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def place(OTHERS, C, BP: tl.constexpr, BC: tl.constexpr):
    """(number, c, p) of a program: index of its copy, plane or target, BC of the C channels, BP pixels.

    Programs of the same pixels, OTHERS in number, follow one another: what they read is in the cache.
    """
    blocks = tl.cdiv(C, BC)
    other = tl.program_id(0) % OTHERS
    c = (other % blocks) * BC + tl.arange(0, BC)
    p = (tl.program_id(0) // OTHERS) * BP + tl.arange(0, BP)
    return other // blocks, c, p


@triton.jit
def tile(first, row, column, ROWS, COLUMNS):
    """(row, column) float32: numbers of the matrix ROWS x COLUMNS that begins at `first`; zeros outside of it."""
    mask = (row < ROWS)[:, None] & (column < COLUMNS)[None, :]
    return tl.load(first + row[:, None] * COLUMNS + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def output_place(a, b, ok, HO, WO, S: tl.constexpr):
    """(ho, wo, ok): the pixel of the output whose window begins at a and b, where `ok` holds and there is one."""
    ok = ok & (a >= 0) & (b >= 0)
    if S == 1:
        ho = a
        wo = b
    else:
        ho = a // S
        wo = b // S
        ok = ok & (a == ho * S) & (b == wo * S)
    return ho, wo, ok & (ho < HO) & (wo < WO)


@triton.jit
def rounded(a):
    """The nearest bfloat16, as float32. The interpreter's conversion rounds towards zero (triton 3.8)."""
    if INTERPRETED:
        bits = a.to(tl.int32, bitcast=True)
        a = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -65536).to(tl.float32, bitcast=True)
    else:
        a = a.to(tl.bfloat16).to(tl.float32)
    return a


@triton.jit
def dot(a, b, total, EXACT: tl.constexpr):
    """total + a b, in float32: of float32 exactly, else of values rounded to bfloat16."""
    if EXACT:
        total = tl.dot(a, b, total, input_precision="ieee")
    elif INTERPRETED:  # whose product takes the bits of bfloat16 for integers
        total = tl.dot(rounded(a), rounded(b), total)
    else:
        total = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
    return total
