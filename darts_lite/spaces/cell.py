"""A cell: states, and stages of stacked operations between them. Supernet and final network are made of the same cell.

States 0 and 1 are the cell's two inputs; each further state is the sum of what its edges bring. All edges out of a state are computed
together, in one *stage*, with one stack of copies for each operation: as many convolutions as operation types, not as edges. The two
inputs are ready together and share a stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from darts_lite.operations import NONE, OPERATIONS
from darts_lite.operations.candidates import Activation
from darts_lite.operations.layers import ConvNorm, FactorizedReduce
from darts_lite.spaces.nodes import Nodes

CACHE = 4 << 20  # bytes
ALL = 1 << 30  # copies

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


class Stage(nn.Module):
    """All live edges out of the states `sources`, which have equal shape (N, C, H, W)."""

    operations: Any  # nn.ModuleDict, name -> stack
    order: Tensor

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
        order = [
            edge * len(plan.columns) + plan.columns.index(name) for name, edges in self.stacks.items() for edge in edges
        ]
        self.register_buffer("order", torch.tensor(order, dtype=torch.long), persistent=False)

    def _inputs(self, name: str) -> tuple[int, ...]:
        sources = [self.edges[edge][0] for edge in self.stacks[name]]
        return tuple(sorted(set(sources))) if self.shared[name] else tuple(sources)

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
        activated: dict[int, Tensor] = {}  # once for all operations
        gathered: dict[tuple[bool, tuple[int, ...]], Tensor] = {}

        def gather(activate: bool, inputs: tuple[int, ...]) -> Tensor:
            """The states `inputs` side by side."""
            if (activate, inputs) not in gathered:
                for source in inputs if activate else ():
                    if source not in activated:
                        activated[source] = self.activation(states[source])
                gathered[activate, inputs] = _side_by_side([(activated if activate else states)[s] for s in inputs])
            return gathered[activate, inputs]

        counts = [len(edges) for edges in self.stacks.values()]
        scales = [None] * len(counts) if mixing is None else mixing.flatten()[self.order].split(counts)
        sums: dict[tuple[int, ...], Tensor] = {}  # stacks on the same edges are added before they are taken apart

        def bring(edge: int, y: Tensor, scale: Tensor | None, dropped: bool) -> None:
            if keep is not None and dropped:
                factor = keep[:, edge, None, None, None]
                scale = factor if scale is None else factor * scale
            nodes.add(self.edges[edge][1], y, scale)

        together = copies_together(states[self.sources[0]])
        for (name, edges), scale in zip(self.stacks.items(), scales, strict=True):
            operation, inputs = self.operations[name], self.inputs[name]
            outputs: dict[int, Tensor] = {}  # of what edges share: by state
            for first in range(0, len(inputs), together):
                part = slice(first, first + together)
                x = gather(operation.activated, inputs[part])
                if self.shared[name]:
                    y = operation(x, first=first)
                    outputs |= zip(inputs[part], _apart(y, len(inputs[part])), strict=True)
                else:
                    y = operation(x, None if scale is None else scale[part], first)
                    sums[edges[part]] = sums[edges[part]].add_(y) if edges[part] in sums else y
            if self.shared[name]:
                for i, edge in enumerate(edges):
                    y = outputs[self.edges[edge][0]]
                    bring(edge, y, None if scale is None else scale[i], not operation.identity)
        for edges, total in sums.items():
            for edge, y in zip(edges, _apart(total, len(edges)), strict=True):
                bring(edge, y, None, True)


def copies_together(state: Tensor) -> int:
    """How many copies of a stack to compute at once, on states like this one (N, C, H, W).

    A GPU wants few large kernels. A CPU wants tensors that stay in its cache: above 4 MB one copy at a time is up to 3 times faster.
    """
    size = state.numel() * state.element_size()
    return max(1, CACHE // size) if state.device.type == "cpu" else ALL


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
        self.activation = activation()
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
        """Outputs of the two cells before -> (N, len(concat) * C, H, W), halved in a reduction cell."""
        inputs = zip(self.preprocess, (before_previous, previous), strict=True)
        states = [prepare(self.activation(x)) for prepare, x in inputs]
        nodes = Nodes()
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


def _side_by_side(pieces: list[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)


def _apart(stacked: Tensor, copies: int) -> Sequence[Tensor]:
    return [stacked] if copies == 1 else stacked.chunk(copies, dim=1)
