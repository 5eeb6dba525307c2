"""Rounds of a fused cell: planes that are made together, and the terms that bring them to their targets. See `spaces.fused`.

Rounds and what they are made of know planes by number and weights by name, and hold no tensor: what a pass computes with and leaves behind
stands in its `Work`. Planes and their gradients are (number, N, H, W, C), tables of integers int32, statistics and matrices float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from darts_lite.operations.kernels.triton import depthwise, pools
from darts_lite.operations.kernels.triton.matrices import Folded, Gradients, Scales, fold, unfold
from darts_lite.operations.kernels.triton.mix import unmix
from darts_lite.operations.kernels.triton.moments import moments, products
from darts_lite.spaces.stacks import Stack

Read = tuple[int, int]  # a plane that is read, and the number of its gradient among those that are added to


class Tables:
    """Lists of integers, side by side in one tensor on each device."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.made: dict[torch.device, Tensor] = {}

    def add(self, numbers: Sequence[int]) -> slice:
        """Append a list; returns its slice of the tensor."""
        self.numbers.extend(numbers)
        return slice(len(self.numbers) - len(numbers), len(self.numbers))

    def on(self, device: torch.device) -> Tensor:
        """The tensor."""
        if device not in self.made:
            self.made[device] = torch.tensor(self.numbers, dtype=torch.int32).to(device)
        return self.made[device]


def grouped(keys: Sequence[int], groups: Sequence[int]) -> tuple[list[int], list[int]]:
    """(starts, members): members[starts[i] : starts[i + 1]] are the places in `keys` that hold groups[i]."""
    starts, members = [0], []
    for group in groups:
        members += [place for place, key in enumerate(keys) if key == group]
        starts.append(len(members))
    return starts, members


@dataclass
class Work:
    """Tensors that a cell computes with in one pass."""

    tables: Tensor
    weights: dict[str, Tensor]
    inputs: Tensor  # planes that the stage of the cell's inputs reads
    planes: Tensor  # all planes of the cell
    mean: Tensor  # (planes, C): what is taken off a plane before it is multiplied; zero where no BatchNorm follows
    matrix: Tensor  # (terms, C, C): W
    folded: Folded  # of all terms
    scales: Scales  # of all terms
    shift: Tensor | None  # (terms, C): bias of an affine BatchNorm
    keep: Tensor | None  # (N, E): factors of drop-path
    taps: dict["Pooled", Tensor]  # where in their windows the maxima are

    def table(self, *places: slice) -> Any:
        """One table, or a tuple of several."""
        found = tuple(self.tables[place] for place in places)
        return found if len(found) > 1 else found[0]


@dataclass
class Back:
    """Tensors that a round computes with on its way back."""

    work: Work
    x: Tensor  # what the round reads
    of_x: Tensor  # gradients that are added to
    of_hidden: Tensor  # gradients of the stage's hidden planes, which are written
    of_planes: Tensor  # gradients of the round's planes
    first: int  # plane of the round
    found: dict[str, Tensor] | None  # gradients of the weights, by name; None where weights are frozen

    def of(self, planes: slice) -> Tensor:
        """The gradients of planes of the round."""
        return self.of_planes[planes.start - self.first : planes.stop - self.first]


class Convolved:
    """Depthwise planes of one layer: plane first + i is made of the i-th of `read`, ReLU on the way."""

    def __init__(self, tables: Tables, name: str, layer: Any, first: int, read: Sequence[Read], *, hidden: bool):
        """`hidden`: what is read are hidden planes of the stage."""
        self.weight, self.hidden = f"{name}.depthwise.weight", hidden
        self.planes = slice(first, first + len(read))
        self.how = {"stride": layer.stride, "dilation": layer.dilation}
        sources, distinct = [source for source, _ in read], dict(read)
        self.read, self.sources = len(distinct), tables.add(sources)
        lists = (list(distinct), list(distinct.values()), *grouped(sources, list(distinct)))
        self.readers = tuple(tables.add(numbers) for numbers in lists)

    def forward(self, work: Work, x: Tensor) -> None:
        """Make the planes."""
        x, weight = work.planes if self.hidden else x, work.weights[self.weight]
        made, sources = work.planes[self.planes], work.table(self.sources)
        depthwise.forward(x, made, weight, sources, read=self.read, **self.how)

    def backward(self, back: Back) -> None:
        """Pass on the gradients of the planes; note the gradient of the weight in `back.found`."""
        work, g = back.work, back.of(self.planes)
        x, of_x = (work.planes, back.of_hidden) if self.hidden else (back.x, back.of_x)
        weight = work.weights[self.weight]
        depthwise.input_gradient(g, of_x, x, weight, work.table(*self.readers), add=not self.hidden, **self.how)
        if back.found is not None:
            found = depthwise.weight_gradient(g, x, weight, work.table(self.sources), read=self.read, **self.how)
            back.found[self.weight] = found


class Pooled:
    """Pools of each of `read`: the maxima are the planes from `most` on, the averages those from `mean` on; None: not wanted."""

    def __init__(self, tables: Tables, most: int | None, mean: int | None, read: Sequence[Read], stride: int):
        self.planes = [None if first is None else slice(first, first + len(read)) for first in (most, mean)]
        self.sources, self.gradients = (tables.add(numbers) for numbers in zip(*read, strict=True))
        self.stride = stride

    def forward(self, work: Work, x: Tensor) -> None:
        """Make the planes."""
        most, mean = (None if planes is None else work.planes[planes] for planes in self.planes)
        where = None
        if most is not None:
            where = work.taps[self] = torch.empty_like(most, dtype=torch.int8)
        pools.forward(x, most, mean, where, work.table(self.sources), stride=self.stride)

    def backward(self, back: Back) -> None:
        """Pass on the gradients of the planes."""
        most, mean = (None if planes is None else back.of(planes) for planes in self.planes)
        where, gradients = back.work.taps.get(self), back.work.table(self.gradients)
        pools.gradient(most, mean, back.of_x, where, gradients, stride=self.stride)


class Halved:
    """Every second pixel of a state, activated: plane `even`, and of the state one pixel further in both directions: the next plane.

    Torch's operators do here: few cells have it, and it reads a pixel once. Where a side is odd, the second plane ends in zeros.
    """

    def __init__(self, even: int, read: Read):
        self.even, self.read = even, read

    def forward(self, work: Work, x: Tensor) -> None:
        """Make both planes."""
        work.planes[self.even + 1].zero_()
        for offset in (0, 1):
            half = x[self.read[0], :, offset::2, offset::2]
            into = work.planes[self.even + offset, :, : half.shape[1], : half.shape[2]]
            into.copy_(half).clamp_min_(0)

    def backward(self, back: Back) -> None:
        """Pass on the gradients of both."""
        for offset, g in enumerate(back.of(slice(self.even, self.even + 2))):
            half = back.x[self.read[0], :, offset::2, offset::2]
            passed = g[:, : half.shape[1], : half.shape[2]] * (half > 0)
            back.of_x[self.read[1], :, offset::2, offset::2] += passed


class Round:
    """Planes from `first` on, `made` in all, of which the first `normed` have BatchNorm, and their terms, from number `begin` on."""

    def __init__(
        self,
        tables: Tables,
        makers: Sequence[Convolved | Pooled | Halved],
        stacks: list[Stack],
        passed: Sequence[Read],
        *,
        first: int,
        normed: int,
        made: int,
        begin: int,
    ):
        """`passed`: states that a skip passes on; they have terms, but are made elsewhere."""
        self.makers, self.stacks, self.passed, self.first, self.made = makers, stacks, passed, first, made
        self.normed = slice(first, first + normed)
        terms = [term for stack in stacks for term in stack.terms]
        self.terms = slice(begin, begin + len(terms))
        used = [*range(first, first + made), *(plane for plane, _ in passed)]
        starts, members = grouped([term.plane for term in terms], used)
        self.used, self.starts, self.members = (tables.add(numbers) for numbers in (used, starts, members))
        self.uses = len(used)
        self.reads = len(used) + len({term.target for term in terms})  # planes and gradients
        has_norm = [self.normed.start <= term.plane < self.normed.stop for term in terms]
        self.planes = tables.add([term.plane for term in terms])
        self.local = tables.add([term.plane - first if norm else 0 for term, norm in zip(terms, has_norm, strict=True)])
        self.has_norm = tables.add([int(norm) for norm in has_norm])
        self.edges = tables.add([term.edge for term in terms])
        self.targets = tables.add([term.target for term in terms])

    def forward(self, work: Work, x: Tensor, *, training: bool, eps: float) -> None:
        """Make the planes, of x, and fold the terms."""
        for maker in self.makers:
            maker.forward(work, x)
        found = None
        if training:
            number, channels = self.normed.stop - self.first, x.shape[-1]
            found = work.mean[self.first :], torch.empty(number, channels, channels, device=x.device)
            if number:
                moments(work.planes[self.normed], *found)
        shift = None if work.shift is None else work.shift[self.terms]
        local, has_norm = work.table(self.local, self.has_norm)
        into = work.folded[self.terms]
        fold(work.matrix[self.terms], found, work.scales[self.terms], shift, local, has_norm, into, eps=eps)

    def backward(
        self,
        work: Work,
        g: Tensor,
        x: Tensor,
        of_x: Tensor,
        of_hidden: Tensor,
        into: Gradients,
        found: dict[str, Tensor] | None,
    ) -> None:
        """Add to `of_x`, the gradients of what was read, and write `of_hidden` and `into`, from g, the gradients of the targets.

        `found` gets the gradients of depthwise weights, by name; None: they are frozen.
        """
        matrix, folded, scales = work.matrix[self.terms], work.folded[self.terms], work.scales[self.terms]
        targets, planes, edges, has_norm = work.table(self.targets, self.planes, self.edges, self.has_norm)
        of_planes = work.table(self.starts, self.members)
        sums = products(g, work.planes, work.mean, work.keep, (targets, planes, edges), read=self.reads)
        pixels = work.planes[0, ..., 0].numel()
        bent = unfold(sums, matrix, folded, scales, has_norm, of_planes, into[self.terms], pixels=pixels)
        gradients = work.planes.new_empty(self.uses, *work.planes.shape[1:])
        tables = (work.table(self.used), *of_planes, targets, edges)
        unmix(g, work.planes, gradients, work.mean, folded, bent, work.keep, tables, read=self.reads)
        back = Back(work, x, of_x, of_hidden, gradients, self.first, found)
        for maker in self.makers:
            maker.backward(back)
        for number, (_, into_number) in enumerate(self.passed, self.made):
            of_x[into_number] += gradients[number]
