"""A stage of a cell: all live edges out of states that are ready together, as one stack of copies for each operation.

So there are as many convolutions as operation types, not as edges. With partial channels (Xu et al. 2020, section 3.2) the operations see
the first C / K channels of a state; the rest bypasses them, and an edge brings both parts to its node.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darts_lite.operations import NOISE, NONE, OPERATIONS
from darts_lite.operations.candidates import Activation
from darts_lite.operations.kernels.thresholds import ALL, CACHE
from darts_lite.operations.layers import Form, slice_copies
from darts_lite.spaces.mixing import mixed
from darts_lite.spaces.nodes import Nodes, dense
from darts_lite.spaces.plan import CellPlan, Key, Pairs

# For one copy: (edge, index of its mixing weight in the stage; None means weight 1).
Targets = list[tuple[int, int | None]]


@dataclass(frozen=True)
class Contribution:
    """Outputs of some copies of a stack, or sums of stacks on the same edges."""

    y: Tensor  # (N, len(targets) * C, H, W)
    targets: list[Targets]  # of each copy
    dropped: bool  # whether drop-path may drop it


@dataclass(frozen=True)
class Factors:
    """Arguments of one pass of one cell, beside its inputs."""

    weights: Tensor | None = None  # (E, O): factor of each operation on each edge; None: plain sums
    edges: Tensor | None = None  # (E,): factor of what bypasses the operations of an edge; None: 1
    keep: Tensor | None = None  # (N, E): factors of drop-path
    drawn: Pairs | None = None  # the operations that are computed; None: all
    draws: dict[int, Tensor] | None = None  # number of a stage -> numbers of its noise (N, copies * C, H, W)


class Stage(nn.Module):
    """All live edges out of the states `sources`, which have equal shape (N, C, H, W); the stage has a `number` in its cell."""

    operations: Any  # nn.ModuleDict, name -> stack
    order: Tensor
    matrix: Tensor
    constants: Tensor
    unit: Tensor

    def __init__(
        self,
        plan: CellPlan,
        number: int,
        sources: Sequence[int],
        channels: int,
        stride: int,
        form: Form,
        activation: Activation,
    ):
        super().__init__()
        self.number, self.sources, self.edges, self.stride = number, tuple(sources), plan.edges, stride
        self.width = channels // plan.partial  # channels of a state that the operations see
        self.bypassed = [edge for edge, (source, _) in enumerate(plan.edges) if source in sources and plan.partial > 1]
        self.stacks: dict[str, tuple[int, ...]] = {}  # operation -> the edges that have it
        for edge, operation in plan.live:
            if operation != NONE and plan.edges[edge][0] in sources:
                self.stacks[operation] = (*self.stacks.get(operation, ()), edge)
        self.shared = {name: OPERATIONS[name].shared(stride) for name in self.stacks}
        self.inputs = {name: self._inputs(name) for name in self.stacks}  # operation -> the state that each copy reads
        self.operations = nn.ModuleDict(
            {
                name: OPERATIONS[name].build(self.width, stride, len(inputs), form, activation)
                for name, inputs in self.inputs.items()
            }
        )
        self.activation = activation()
        # One gather brings the mixing weights of all stacks into their order.
        placed = [(edge, name) for name, edges in self.stacks.items() for edge in edges]
        order = [edge * len(plan.columns) + plan.columns.index(name) for edge, name in placed]
        self.copy_targets = self._copy_targets({key: index for index, key in enumerate(placed)})
        self.register_buffer("order", torch.tensor(order, dtype=torch.long), persistent=False)
        # If a shared operation stands twice between two states, which no search has, the matrix would hold one.
        self.repeats = len({(name, self.edges[edge]) for edge, name in placed if self.shared[name]}) < sum(
            self.shared[name] for _, name in placed
        )
        self.targets = tuple(sorted({self.edges[edge][1] for edge, _ in placed}))
        self.register_buffer("matrix", torch.tensor(self._matrix(), dtype=torch.long), persistent=False)
        self.register_buffer("constants", torch.tensor([0, 1]), persistent=False)
        self.register_buffer("unit", torch.eye(self.width, dtype=torch.bool), persistent=False)

    def _inputs(self, name: str) -> tuple[int, ...]:
        sources = [self.edges[edge][0] for edge in self.stacks[name]]
        return tuple(sorted(set(sources))) if self.shared[name] else tuple(sources)

    def _copy_targets(self, indices: dict[tuple[int, str], int]) -> dict[str, list[Targets]]:
        """Targets of each copy, by operation; `indices` of (edge, operation). An edge sums what its unshared operations make: weight 1."""

        def targets(name: str, source: int) -> Targets:
            return [(edge, indices[edge, name]) for edge in self.stacks[name] if self.edges[edge][0] == source]

        return {
            name: [targets(name, source) for source in self.inputs[name]]
            if self.shared[name]
            else [[(edge, None)] for edge in self.stacks[name]]
            for name in self.stacks
        }

    def _matrix(self) -> list[list[int]]:
        """Where `_product` finds the entries of its matrix in (0, 1, *factors): (targets, copies of all contributions)."""
        copies = [targets for name, stack in self.copy_targets.items() if self.shared[name] for targets in stack]
        added = dict.fromkeys(edges for name, edges in self.stacks.items() if not self.shared[name])
        copies += [[(edge, None)] for edges in added for edge in edges]

        def entry(target: int, targets: Targets) -> int:
            indices = [index for edge, index in targets if self.edges[edge][1] == target]
            return 0 if not indices else 1 if indices[0] is None else 2 + indices[0]

        return [[entry(target, targets) for targets in copies] for target in self.targets]

    def keys(self) -> dict[str, list[Key]]:
        """For each operation the copies of its stack, in order."""
        return {
            name: [(name, source, None) for source in self.inputs[name]]
            if self.shared[name]
            else [(name, *self.edges[edge]) for edge in edges]
            for name, edges in self.stacks.items()
        }

    def forward(self, states: Sequence[Tensor], given: Factors, nodes: Nodes, bypass: Nodes) -> None:
        """Add to `nodes` what the operations bring, (N, C / K, H / stride, W / stride), and to `bypass` what goes around them.

        `states` are indexed by node.
        """
        self._bypass(states, given.edges, bypass)
        if not self.stacks:  # every edge has only `none`
            return
        if self.bypassed:
            states = [dense(x[:, : self.width]) if state in self.sources else x for state, x in enumerate(states)]
        together = copies_together(states[self.sources[0]])
        factors = None if given.weights is None else given.weights.flatten().index_select(0, self.order)
        contributions = self._contributions(states, factors, given, together)
        whole = given.keep is None and given.drawn is None
        if factors is not None and whole and together == ALL.value and not self.repeats:
            for node, y in zip(self.targets, self._product(contributions, factors), strict=True):
                nodes.add(node, y, None)
            return
        apart = None if factors is None else factors.unbind()
        for one in contributions:
            for y, targets in zip(_apart(one.y, len(one.targets)), one.targets, strict=True):
                for edge, index in targets:
                    scale = None if index is None or apart is None else apart[index]
                    if given.keep is not None and one.dropped:
                        factor = given.keep[:, edge, None, None, None]
                        scale = factor if scale is None else factor * scale
                    nodes.add(self.edges[edge][1], y, scale)

    def _bypass(self, states: Sequence[Tensor], edges: Tensor | None, bypass: Nodes) -> None:
        rest: dict[int, Tensor] = {}
        for edge in self.bypassed:
            source, target = self.edges[edge]
            if source not in rest:
                x = states[source][:, self.width :]
                # An odd side rounds up, as with the operations.
                rest[source] = F.max_pool2d(x, 2, ceil_mode=True) if self.stride == 2 else x
            bypass.add(target, rest[source], None if edges is None else edges[edge])

    def _contributions(
        self, states: Sequence[Tensor], factors: Tensor | None, given: Factors, together: int
    ) -> Iterator[Contribution]:
        """Outputs of the operations, up to `together` copies at a time; sums of unshared operations come last."""
        gathered = Gathered(states, self.activation)
        counts = [len(edges) for edges in self.stacks.values()]
        scales = [None] * len(counts) if factors is None else factors.split(counts)
        sums: dict[tuple[int, ...], Tensor] = {}
        for (name, edges), scale in zip(self.stacks.items(), scales, strict=True):
            operation, inputs = self.operations[name], self.inputs[name]
            targets = self._drawn_targets(name, given.drawn)
            for part in _neighbours([copy for copy, one in enumerate(targets) if one], together):
                if name == NOISE:
                    x = self._draws(given, part).to(states[inputs[0]].dtype)
                else:
                    x = gathered.side_by_side(inputs[part], operation.activated)
                if self.shared[name]:
                    y = operation(x, first_copy=part.start)
                    yield Contribution(y, targets[part], not operation.identity)
                else:
                    number = part.stop - part.start
                    y = operation(x, None if scale is None else slice_copies(scale, part.start, number), part.start)
                    sums[edges[part]] = sums[edges[part]].add_(y) if edges[part] in sums else y
        for edges, total in sums.items():
            yield Contribution(total, [[(edge, None)] for edge in edges], True)

    def _drawn_targets(self, name: str, drawn: Pairs | None) -> list[Targets]:
        """Targets of each copy of an operation; without those of edges for which it was not drawn."""
        if drawn is None:
            return self.copy_targets[name]
        return [[one for one in targets if (one[0], name) in drawn] for targets in self.copy_targets[name]]

    def drawn_copies(self, name: str, drawn: Pairs) -> list[int]:
        """The copies of an operation that are computed."""
        return [copy for copy, targets in enumerate(self._drawn_targets(name, drawn)) if targets]

    def _draws(self, given: Factors, part: slice) -> Tensor:
        assert given.draws is not None  # see `Network.forward`
        return given.draws[self.number][:, self.width * part.start : self.width * part.stop]

    def _product(self, contributions: Iterator[Contribution], factors: Tensor) -> Sequence[Tensor]:
        """One sum for each target, by one matrix product over all copies side by side, where few kernels count more than few FLOPs."""
        entries = torch.cat((self.constants, factors)).index_select(0, self.matrix.flatten())
        weight = torch.kron(entries.view_as(self.matrix), self.unit)  # (targets * C, copies * C)
        # Shared operations come first and have their factors here; the factor of a sum is 1.
        sums = mixed([one.y for one in contributions], weight, precise=sum(self.shared.values()))
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


def copies_together(state: Tensor) -> int:
    """Number of copies of a stack that are computed at once, on states like this one (N, C, H, W).

    A GPU wants few large kernels. A CPU wants tensors that stay in its cache: above 4 MB one copy at a time is up to 3 times faster. It
    also convolves pointwise, two groups of 32 channels together, in 1.3 to 1.7 times the time of one after the other (AVX2). What is
    exported is one graph for any number of images, so there one image decides.
    """
    if state.device.type != "cpu":
        return ALL.value
    images = state[:1] if torch.compiler.is_exporting() else state
    return max(1, CACHE.value // (images.numel() * images.element_size()))


def repeated(x: Tensor, times: int) -> Tensor:
    """(N, C, H, W) -> (N, times * C, H, W), channels_last; its gradient is one sum."""
    pixels = x.permute(0, 2, 3, 1)[:, :, :, None]
    return pixels.expand(-1, -1, -1, times, -1).flatten(3).permute(0, 3, 1, 2)


def _apart(stacked: Tensor, copies: int) -> Sequence[Tensor]:
    return [stacked] if copies == 1 else stacked.chunk(copies, dim=1)


def _neighbours(copies: list[int], most: int) -> Iterator[slice]:
    """Slices of at most `most` neighbouring numbers that together are `copies`, which ascend."""
    begin = 0
    for place in range(1, len(copies) + 1):
        if place == len(copies) or copies[place] != copies[place - 1] + 1 or place - begin == most:
            yield slice(copies[begin], copies[place - 1] + 1)
            begin = place
