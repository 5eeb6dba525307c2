"""A cell: states, and stages of stacked operations between them. Supernet and final network are made of the same cell.

States 0 and 1 are the cell's two inputs; each further state is the sum of what its edges bring. All edges out of a state are computed
together, in one *stage*, with one stack of copies for each operation: as many convolutions as operation types, not as edges. The two
inputs are ready together and share a stage.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from darts_lite.errors import out_of_memory
from darts_lite.operations import NONE, OPERATIONS
from darts_lite.operations.candidates import Activation
from darts_lite.operations.kernels.thresholds import ALL, CACHE
from darts_lite.operations.layers import ConvNorm, FactorizedReduce, rows
from darts_lite.spaces.mixing import mixed
from darts_lite.spaces.nodes import Nodes, dense

# Whose weights one copy of a stack holds: operation, source, target (None: all edges out of the source).
Key = tuple[str, int, int | None]


@dataclass(frozen=True)
class Plan:
    """What a cell computes."""

    edges: tuple[tuple[int, int], ...]  # (source, target)
    columns: tuple[str, ...]  # operations, in the order of the mixing's columns
    live: tuple[tuple[int, str], ...]  # (edge, operation)
    nodes: int  # states beside the two inputs
    concat: tuple[int, ...]  # states whose concatenation is the output


# Of a copy: the edges that bring its output to a node, and the number of each one's factor in the order of the stage; None: 1.
Lines = list[tuple[int, int | None]]


@dataclass(frozen=True)
class Block:
    """What some copies of a stack, or the sum of stacks on the same edges, have computed."""

    y: Tensor  # (N, len(lines) * C, H, W)
    lines: list[Lines]  # of each copy
    dropped: bool  # whether drop-path may drop it


class Stage(nn.Module):
    """All live edges out of the states `sources`, which have equal shape (N, C, H, W)."""

    operations: Any  # nn.ModuleDict, name -> stack
    order: Tensor
    matrix: Tensor
    constants: Tensor
    unit: Tensor

    def __init__(
        self, plan: Plan, sources: Sequence[int], channels: int, stride: int, form: str, activation: Activation
    ):
        super().__init__()
        self.sources, self.edges = tuple(sources), plan.edges
        self.stacks: dict[str, tuple[int, ...]] = {}  # operation -> the edges that have it
        for edge, operation in plan.live:
            if operation != NONE and plan.edges[edge][0] in sources:
                self.stacks[operation] = (*self.stacks.get(operation, ()), edge)
        self.shared = {name: OPERATIONS[name].shared(stride) for name in self.stacks}
        self.inputs = {name: self._inputs(name) for name in self.stacks}  # operation -> the state that each copy reads
        self.operations = nn.ModuleDict(
            {
                name: OPERATIONS[name].build(channels, stride, len(inputs), form, activation)
                for name, inputs in self.inputs.items()
            }
        )
        self.activation = activation()
        # One gather brings the mixing weights of all stacks into their order.
        placed = [(edge, name) for name, edges in self.stacks.items() for edge in edges]
        order = [edge * len(plan.columns) + plan.columns.index(name) for edge, name in placed]
        self.lines = self._lines({key: number for number, key in enumerate(placed)})  # of shared operations, by copy
        self.register_buffer("order", torch.tensor(order, dtype=torch.long), persistent=False)
        # Of the same shared operation twice on the same way, which no search has, the matrix would hold one.
        self.repeats = len({(name, self.edges[edge]) for edge, name in placed if self.shared[name]}) < sum(
            self.shared[name] for _, name in placed
        )
        self.targets = tuple(sorted({self.edges[edge][1] for edge, _ in placed}))
        self.register_buffer("matrix", torch.tensor(self._matrix(), dtype=torch.long), persistent=False)
        self.register_buffer("constants", torch.tensor([0, 1]), persistent=False)
        self.register_buffer("unit", torch.eye(channels, dtype=torch.bool), persistent=False)

    def _inputs(self, name: str) -> tuple[int, ...]:
        sources = [self.edges[edge][0] for edge in self.stacks[name]]
        return tuple(sorted(set(sources))) if self.shared[name] else tuple(sources)

    def _lines(self, numbers: dict[tuple[int, str], int]) -> dict[str, list[Lines]]:
        """Of each copy of the shared operations; `numbers` of (edge, operation)."""

        def lines(name: str, source: int) -> Lines:
            return [(edge, numbers[edge, name]) for edge in self.stacks[name] if self.edges[edge][0] == source]

        return {
            name: [lines(name, source) for source in self.inputs[name]] for name in self.stacks if self.shared[name]
        }

    def _matrix(self) -> list[list[int]]:
        """Where `_product` finds the entries of its matrix in (0, 1, *factors): (targets, copies of all blocks)."""
        copies = [lines for stack in self.lines.values() for lines in stack]
        added = dict.fromkeys(edges for name, edges in self.stacks.items() if not self.shared[name])
        copies += [[(edge, None)] for edges in added for edge in edges]

        def entry(target: int, lines: Lines) -> int:
            numbers = [number for edge, number in lines if self.edges[edge][1] == target]
            return 0 if not numbers else 1 if numbers[0] is None else 2 + numbers[0]

        return [[entry(target, lines) for lines in copies] for target in self.targets]

    def keys(self) -> dict[str, list[Key]]:
        """For each operation the copies of its stack, in order."""
        return {
            name: [(name, source, None) for source in self.inputs[name]]
            if self.shared[name]
            else [(name, *self.edges[edge]) for edge in edges]
            for name, edges in self.stacks.items()
        }

    def forward(self, states: Sequence[Tensor], mixing: Tensor | None, keep: Tensor | None, nodes: Nodes) -> None:
        """Add to `nodes` everything that the edges bring: (N, C, H / stride, W / stride).

        `states` are indexed by node; `mixing` is (E, O), or None for plain sums; `keep` (N, E) holds drop-path's factors, or is None.
        """
        if not self.stacks:  # every edge has only `none`
            return
        together = copies_together(states[self.sources[0]])
        factors = None if mixing is None else mixing.flatten().index_select(0, self.order)
        blocks = self._blocks(states, factors, together)
        if factors is not None and keep is None and together == ALL.value and not self.repeats:
            for node, y in zip(self.targets, self._product(blocks, factors), strict=True):
                nodes.add(node, y, None)
            return
        apart = None if factors is None else factors.unbind()
        for block in blocks:
            for y, lines in zip(_apart(block.y, len(block.lines)), block.lines, strict=True):
                for edge, number in lines:
                    scale = None if number is None or apart is None else apart[number]
                    if keep is not None and block.dropped:
                        factor = keep[:, edge, None, None, None]
                        scale = factor if scale is None else factor * scale
                    nodes.add(self.edges[edge][1], y, scale)

    def _blocks(self, states: Sequence[Tensor], factors: Tensor | None, together: int) -> Iterator[Block]:
        """All that the operations compute, up to `together` copies at a time; what is not shared comes last, added by edges."""
        gathered = Gathered(states, self.activation)
        counts = [len(edges) for edges in self.stacks.values()]
        scales = [None] * len(counts) if factors is None else factors.split(counts)
        sums: dict[tuple[int, ...], Tensor] = {}
        for (name, edges), scale in zip(self.stacks.items(), scales, strict=True):
            operation, inputs = self.operations[name], self.inputs[name]
            for first in range(0, len(inputs), together):
                part = slice(first, first + together)
                x = gathered.side_by_side(inputs[part], operation.activated)
                if self.shared[name]:
                    yield Block(operation(x, first=first), self.lines[name][part], not operation.identity)
                else:
                    y = operation(x, None if scale is None else rows(scale, first, len(inputs[part])), first)
                    sums[edges[part]] = sums[edges[part]].add_(y) if edges[part] in sums else y
        for edges, total in sums.items():
            yield Block(total, [[(edge, None)] for edge in edges], True)

    def _product(self, blocks: Iterator[Block], factors: Tensor) -> Sequence[Tensor]:
        """What comes to each target, as one matrix product over all blocks side by side, where few kernels count more than few FLOPs."""
        entries = torch.cat((self.constants, factors)).index_select(0, self.matrix.flatten())
        weight = torch.kron(entries.view_as(self.matrix), self.unit)  # (targets * C, copies * C)
        # What is shared comes first, and has its factors here; that of a sum is 1.
        sums = mixed([block.y for block in blocks], weight, precise=sum(self.shared.values()))
        return sums.chunk(len(self.targets), dim=1)


class Gathered:
    """States side by side, as the copies of stacks read them; what was made once is kept, for all operations."""

    def __init__(self, states: Sequence[Tensor], activation: nn.Module):
        self.states, self.activation = states, activation
        self.made: dict[tuple[bool, tuple[int, ...]], Tensor] = {}

    def side_by_side(self, inputs: tuple[int, ...], activated: bool) -> Tensor:
        """(N, len(inputs) * C, H, W)."""
        if (activated, inputs) not in self.made:
            self.made[activated, inputs] = self._make(inputs, activated)
        return self.made[activated, inputs]

    def _make(self, inputs: tuple[int, ...], activated: bool) -> Tensor:
        few = tuple(dict.fromkeys(inputs))
        times = len(inputs) // len(few)
        if few * times != inputs:
            return torch.cat([self.side_by_side((state,), activated) for state in inputs], dim=1)
        if times > 1:
            return repeated(self.side_by_side(few, activated), times)
        if activated:
            return self.activation(self.side_by_side(inputs, False))
        return self.states[inputs[0]] if len(inputs) == 1 else torch.cat([self.states[s] for s in inputs], dim=1)


@cache
def no_kernels(kind: str) -> str | None:
    """Why there are no kernels of our own for `cuda`, or for `meta`, which shows what a GPU would do; None: there are."""
    if find_spec("triton") is None:
        return "there is no triton"
    if kind == "cuda":
        from darts_lite.spaces import fused

        try:
            fused.trial(torch.device(kind))
        except Exception as error:  # no compiler of C for what triton writes, a driver that it does not know, ...
            if out_of_memory(error):
                raise
            return f"triton fails with {type(error).__name__}: {(str(error).splitlines() or ['?'])[0]}"
    return None


def on_gpu(x: Tensor) -> bool:
    """Whether kernels of our own compute what a cell makes of x."""
    return x.device.type in ("cuda", "meta") and no_kernels(x.device.type) is None


def copies_together(state: Tensor) -> int:
    """How many copies of a stack to compute at once, on states like this one (N, C, H, W).

    A GPU wants few large kernels. A CPU wants tensors that stay in its cache: above 4 MB one copy at a time is up to 3 times faster. It
    also convolves pointwise, two groups of 32 channels together, in 1.3 to 1.7 times the time of one after the other (AVX2). What is
    exported is one graph for any number of images, so there one image decides.
    """
    if state.device.type != "cpu":
        return ALL.value
    images = state[:1] if torch.compiler.is_exporting() else state
    return max(1, CACHE.value // (images.numel() * images.element_size()))


class Cell(nn.Module):
    """Two preprocessed inputs, then one stage for each group of states that are ready together."""

    preprocess: nn.ModuleList
    stages: Any  # nn.ModuleList of Stage

    def __init__(
        self,
        plan: Plan,
        c_before_previous: int,
        c_previous: int,
        channels: int,
        *,
        reduction: bool,
        previous_reduces: bool,
        form: str,
        activation: Activation,
    ):
        super().__init__()
        self.plan, self.reduction = plan, reduction
        affine = form == "final"
        # After a reduction the input before the previous one is twice as large.
        halve = FactorizedReduce if previous_reduces else ConvNorm
        self.preprocess = nn.ModuleList(
            [halve(c_before_previous, channels, affine=affine), ConvNorm(c_previous, channels, affine=affine)]
        )
        groups = [(0, 1), *((node,) for node in range(2, plan.nodes + 2))]
        self.stages = nn.ModuleList(
            Stage(plan, group, channels, 2 if reduction and group == (0, 1) else 1, form, activation)
            for group in groups
            if any(source in group for source, _ in plan.edges)
        )

    def forward(self, before_previous: Tensor, previous: Tensor, mixing: Tensor | None, keep: Tensor | None) -> Tensor:
        """Outputs of the two cells before, activated -> (N, len(concat) * C, H, W), halved in a reduction cell."""
        states = [self.preprocess[0](before_previous), self.preprocess[1](previous)]
        if on_gpu(states[0]):
            from darts_lite.spaces import fused

            if fused.serves(self, states[0], mixing):
                return fused.combine(self, states, mixing, keep)
        return self.combine(states, mixing, keep)

    def combine(self, states: list[Tensor], mixing: Tensor | None, keep: Tensor | None) -> Tensor:
        """What the stages make of the preprocessed inputs."""
        # A stage reads both side by side, and the gradient of that comes in slices: BatchNorm is then slow on CUDA (see mixing.py), and in
        # bf16 on a CPU so inexact that the gradient of a preprocessing weight is 15 % wrong (torch 2.14).
        if states[0].device.type != "cpu" or states[0].dtype == torch.bfloat16:
            states = [dense(state) for state in states]
        states, nodes = list(states), Nodes()
        for stage in self.stages:
            self._finish(states, nodes, max(stage.sources))
            stage(states, mixing, keep, nodes)
        self._finish(states, nodes, max(self.plan.concat))
        return torch.cat([states[node] for node in self.plan.concat], dim=1)

    def _finish(self, states: list[Tensor], nodes: Nodes, last: int) -> None:
        """Append the nodes up to the last one, whose sums are complete: zeros where no edge leads."""
        for node in range(len(states), last + 1):
            total = nodes.finished(node)
            states.append(self._zeros(states[0]) if total is None else total)

    def _zeros(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.new_zeros(n, c, -(-h // 2), -(-w // 2)) if self.reduction else torch.zeros_like(x)


def repeated(x: Tensor, times: int) -> Tensor:
    """(N, C, H, W) -> (N, times * C, H, W), channels_last; its gradient is one sum."""
    pixels = x.permute(0, 2, 3, 1)[:, :, :, None]
    return pixels.expand(-1, -1, -1, times, -1).flatten(3).permute(0, 3, 1, 2)


def _apart(stacked: Tensor, copies: int) -> Sequence[Tensor]:
    return [stacked] if copies == 1 else stacked.chunk(copies, dim=1)
