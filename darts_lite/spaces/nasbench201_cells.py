"""Cells of NAS-Bench-201: three nodes over one input, and the residual blocks that halve the resolution between them (Dong & Yang 2020).

An operation is ReLU, convolution, BatchNorm; or a pool or the identity, which have neither. Supernet and network are made of the same cell.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darts_lite.operations import NONE
from darts_lite.operations.candidates import Activation
from darts_lite.operations.kernels.pools import AveragePool
from darts_lite.operations.layers import BatchNorm, Form, convolution, slice_copies
from darts_lite.spaces.nodes import Nodes
from darts_lite.spaces.plan import CellPlan, Key, Pairs
from darts_lite.spaces.table import Mixing

KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}  # the operations that have weights
SKIP, POOL = "skip_connect", "avg_pool_3x3"


class DenseCopies(nn.Module):
    """Convolution and BatchNorm of several edges that read one image: a single convolution C -> copies x C."""

    def __init__(self, kernel: int, channels: int, copies: int, form: Form):
        super().__init__()
        self.channels = channels  # of a copy
        self.convolution = convolution(channels, copies * channels, kernel)
        self.norm = BatchNorm(channels, copies=copies, affine=form.affine, statistics=form.statistics)

    def forward(self, x: Tensor, scale: Tensor | None, first_copy: int, number: int) -> Tensor:
        """x (N, C, H, W), activated -> (N, number * C, H, W) of the copies from `first_copy` on; `scale` (number,) multiplies each."""
        weight = slice_copies(self.convolution.weight, first_copy * self.channels, number * self.channels)
        return self.norm(F.conv2d(x, weight, padding=self.convolution.padding), scale, first_copy)


class Fan(nn.Module):
    """All edges out of one state: `rows` of the mixing and `targets` by operation, a convolution for the edges of each kernel."""

    def __init__(self, plan: CellPlan, source: int, channels: int, form: Form):
        super().__init__()
        self.source, self.width = source, channels
        self.rows: dict[str, list[int]] = {}
        for row, name in plan.live:
            if plan.edges[row][0] == source and name != NONE:
                self.rows.setdefault(name, []).append(row)
        self.targets = {name: [plan.edges[row][1] for row in rows] for name, rows in self.rows.items()}
        self.columns = {name: plan.columns.index(name) for name in self.rows}
        self.operations = nn.ModuleDict(
            {
                name: DenseCopies(kernel, channels, len(self.rows[name]), form)
                for name, kernel in KERNELS.items()
                if name in self.rows
            }
        )
        self.pool = AveragePool(1)

    def keys(self) -> dict[str, list[Key]]:
        """Whose weights the copies of each convolution are."""
        return {name: [(name, self.source, target) for target in self.targets[name]] for name in self.operations}

    def drawn_copies(self, name: str, drawn: Pairs | None) -> list[int]:
        """The copies of an operation that are computed; None: all."""
        return [copy for copy, row in enumerate(self.rows[name]) if drawn is None or (row, name) in drawn]

    def forward(
        self,
        x: Tensor,
        weights: Tensor | None,
        keep: Tensor | None,
        drawn: Pairs | None,
        activation: nn.Module,
        nodes: Nodes,
    ) -> None:
        """Add to `nodes` what the edges bring of x (N, C, H, W); `weights` (E, O) or None: each counts once."""
        copies = {name: self.drawn_copies(name, drawn) for name in self.rows}
        activated = activation(x) if any(copies[name] for name in self.operations) else x
        for name in (name for name in self.rows if copies[name]):
            rows, targets = self.rows[name], self.targets[name]
            factors = [None if weights is None else weights[rows[copy], self.columns[name]] for copy in copies[name]]
            if name in self.operations:
                images = self._convolved(name, activated, copies[name], factors)
                factors = [None] * len(factors)  # BatchNorm has multiplied by them
            else:
                images = [x if name == SKIP else self.pool(x)] * len(factors)
            for copy, image, factor in zip(copies[name], images, factors, strict=True):
                kept = image if keep is None or name == SKIP else image * keep[:, rows[copy], None, None, None]
                nodes.add(targets[copy], kept, factor)

    def _convolved(self, name: str, x: Tensor, copies: list[int], factors: Sequence[Tensor | None]) -> list[Tensor]:
        """One image (N, C, H, W) for each of these copies, times its factor."""
        images: list[Tensor] = []
        for first, number in runs(copies):
            chosen = [factor for factor in factors[len(images) : len(images) + number] if factor is not None]
            scale = torch.stack(chosen) if chosen else None
            images += self.operations[name](x, scale, first, number).split(self.width, dim=1)
        return images


class NasBench201Cell(nn.Module):
    """Input and nodes; each node is the sum of what its edges bring, the last one is the output. A node that nothing reaches is zero."""

    def __init__(self, plan: CellPlan, channels: int, form: Form, activation: Activation):
        super().__init__()
        self.plan, self.activation = plan, activation()
        self.stages = nn.ModuleList(Fan(plan, source, channels, form) for source in range(plan.nodes))

    def forward(
        self, x: Tensor, mixing: Mixing | None = None, keep: Tensor | None = None, drawn: Pairs | None = None
    ) -> Tensor:
        """x (N, C, H, W) -> the same shape. `mixing`: of this cell; `keep` (N, E): factors of drop-path; `drawn`: see `Network.forward`."""
        nodes, state = Nodes(), x
        weights = None if mixing is None else mixing.weights()
        for source, fan in enumerate(self.stages):
            fan(state, weights, keep, drawn, self.activation, nodes)
            total = nodes.finished(source + 1)
            state = torch.zeros_like(x) if total is None else total
        return state


class ReluConvNorm(nn.Sequential):
    """ReLU, 3x3 convolution, BatchNorm with weights and biases."""

    def __init__(self, c_in: int, c_out: int, stride: int, form: Form, activation: Activation):
        layer = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        super().__init__(activation(), layer, BatchNorm(c_out, affine=True, statistics=form.statistics))


class ResidualBlock(nn.Module):
    """Twice the channels at half the resolution: two 3x3 convolutions, and 2x2 average pooling with a 1x1 convolution beside them."""

    def __init__(self, channels: int, form: Form, activation: Activation):
        super().__init__()
        self.first = ReluConvNorm(channels, 2 * channels, 2, form, activation)
        self.second = ReluConvNorm(2 * channels, 2 * channels, 1, form, activation)
        # An odd side rounds up, as it does in a convolution with a stride.
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), convolution(channels, 2 * channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2 C, ceil(H / 2), ceil(W / 2))."""
        return self.shortcut(x) + self.second(self.first(x))


def runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, length) of each stretch of ascending numbers without a gap: [0, 1, 3] -> (0, 2), (3, 1)."""
    for _, stretch in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in stretch]
        yield members[0], len(members)
