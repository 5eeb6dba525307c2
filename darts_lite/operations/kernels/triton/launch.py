"""Launching a kernel: on the device of its tensors, and counted."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor

SPATIAL = 16  # channels of a block of what works in space; bf16 of them are a sector of memory
TILE = 2048  # pixels times channels of a block
PROGRAMS = 1024  # of a launch that sums over pixels: some for each of the 132 multiprocessors of an H100


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel."""

    kernel: Any
    grid: tuple[int, ...]
    types: tuple[Any, ...]  # of its arguments: dtypes of tensors, int or float
    constants: dict[str, Any]
    elements: int  # that it reads and writes at least
    size: int  # bytes of one of them


@dataclass
class Ledger:
    """Launches noted inside of `counting`."""

    launches: list[Launch] = field(default_factory=list)

    def bytes(self, size: int | None = None) -> int:
        """That all launches have to move at least; `size`: bytes of an element, None: of the type that it had."""
        return sum(one.elements * (one.size if size is None else size) for one in self.launches)


_open: list[Ledger] = []


@contextmanager
def counting() -> Iterator[Ledger]:
    """Inside, launches are noted in the ledger."""
    _open.append(Ledger())
    try:
        yield _open[-1]
    finally:
        _open.pop()


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, moves: int, **constants: Any) -> None:
    """Run `kernel` for every index of `grid`; `moves`: elements of the first argument's type that it reads and writes at least.

    Tensors without memory are only counted.
    """
    first: Tensor = arguments[0]
    for ledger in _open:
        types = tuple(one.dtype if isinstance(one, Tensor) else type(one) for one in arguments)
        ledger.launches.append(Launch(kernel, grid, types, constants, moves, first.element_size()))
    if first.device.type == "meta":
        return
    with torch.cuda.device(first.device) if first.is_cuda else nullcontext():
        kernel[grid](*arguments, **constants)


def unit(channels: int) -> int:
    """A power of two that divides the channels, at most 16: a kernel that knows it reads so many at once, if it can."""
    return math.gcd(channels, 16)


def matrix_block(channels: int) -> int:
    """Channels of a block of a matrix product: 16, the least that tensor cores take, or 32, with which no register spills."""
    return 16 if channels <= 16 else 32


def pixel_block(block: int, *, exact: bool = False) -> int:
    """Pixels of a block that is `block` channels wide; a sum over them of `exact` products in float32 has registers for half as many."""
    return TILE // block // (2 if exact else 1)


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return triton.cdiv(a, b)


def chunks(pixels: int, block: int, others: int, most: int = PROGRAMS) -> tuple[int, int]:
    """(pixels of a chunk, chunks) of a sum over pixels that `others` programs do side by side; `most`: chunks."""
    number = max(1, min(cdiv(PROGRAMS, others), cdiv(pixels, 2 * block), most))
    size = cdiv(cdiv(pixels, number), block) * block
    return size, cdiv(pixels, size)
