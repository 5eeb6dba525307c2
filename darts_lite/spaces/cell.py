"""A cell: states, and stages of stacked operations between them. Supernet and final network are made of the same cell.

The first states are the cell's inputs; each further state, a node, is the sum of what its edges bring. All edges out of a state are
computed together, in one *stage*. The inputs are ready together and share a stage.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from darts_lite.errors import out_of_memory
from darts_lite.operations.candidates import Activation
from darts_lite.operations.layers import ConvNorm, FactorizedReduce, Form
from darts_lite.spaces.nodes import Nodes, dense
from darts_lite.spaces.plan import CellPlan, Pairs
from darts_lite.spaces.stage import Factors, Stage
from darts_lite.spaces.table import Mixing


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


class Cell(nn.Module):
    """Preprocessed inputs, then one stage for each group of states that are ready together.

    `widths`: channels of each input. After a reduction the input before the previous one is twice as large.
    """

    preprocess: nn.ModuleList
    stages: Any  # nn.ModuleList of Stage

    def __init__(
        self,
        plan: CellPlan,
        widths: Sequence[int],
        channels: int,
        *,
        reduction: bool,
        previous_reduces: bool,
        form: Form,
        activation: Activation,
    ):
        super().__init__()
        self.plan, self.reduction, self.form = plan, reduction, form
        halved = plan.inputs - 2 if previous_reduces else -1
        self.preprocess = nn.ModuleList(
            (FactorizedReduce if place == halved else ConvNorm)(
                width, channels, affine=form.affine, statistics=form.statistics
            )
            for place, width in enumerate(widths)
        )
        inputs = tuple(range(plan.inputs))
        groups = [inputs, *((node,) for node in range(plan.inputs, plan.inputs + plan.nodes))]
        groups = [group for group in groups if any(source in group for source, _ in plan.edges)]
        self.stages = nn.ModuleList(
            Stage(plan, number, group, channels, 2 if reduction and group == inputs else 1, form, activation)
            for number, group in enumerate(groups)
        )

    def forward(
        self,
        inputs: Sequence[Tensor],
        mixing: Mixing | None = None,
        keep: Tensor | None = None,
        *,
        drawn: Pairs | None = None,
        draws: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """Outputs of the cells before, activated -> (N, len(concat) * C, H, W), halved in a reduction cell.

        `mixing`: of this cell alone; `keep` (N, E): factors of drop-path; `drawn`, `draws`: see `Network.forward`.
        """
        states = [layer(x) for layer, x in zip(self.preprocess, inputs, strict=True)]
        weights, edges = (None, None) if mixing is None else (mixing.weights(), mixing.edges)
        if drawn is None and on_gpu(states[0]):
            from darts_lite.spaces import fused

            if fused.serves(self, states[0], weights):
                return fused.combine(self, states, weights, keep)
        return self._sum(states, Factors(weights, edges, keep, drawn, draws))

    def combine(self, states: list[Tensor], weights: Tensor | None, keep: Tensor | None) -> Tensor:
        """The output, from preprocessed inputs, by torch's operators: of a cell that the fused kernels serve."""
        return self._sum(states, Factors(weights, None, keep))

    def _sum(self, states: list[Tensor], given: Factors) -> Tensor:
        # A stage reads its inputs side by side, and the gradient of that comes in slices: BatchNorm is then slow on CUDA (see mixing.py),
        # and in bf16 on a CPU so inexact that the gradient of a preprocessing weight is 15 % wrong (torch 2.14).
        if states[0].device.type != "cpu" or states[0].dtype == torch.bfloat16:
            states = [dense(state) for state in states]
        states, nodes, bypass = list(states), Nodes(), Nodes()
        for stage in self.stages:
            self._finish(states, nodes, bypass, max(stage.sources))
            stage(states, given, nodes, bypass)
        self._finish(states, nodes, bypass, max(self.plan.concat))
        return torch.cat([states[node] for node in self.plan.concat], dim=1)

    def _finish(self, states: list[Tensor], nodes: Nodes, bypass: Nodes, last: int) -> None:
        """Append the nodes up to the last one, whose sums are complete: zeros where no edge leads."""
        for node in range(len(states), last + 1):
            total, rest = nodes.finished(node), bypass.finished(node)
            channels = states[0].shape[1] if rest is None else states[0].shape[1] - rest.shape[1]
            total = self._zeros(states[0], channels) if total is None else total
            states.append(total if rest is None else shuffled(torch.cat((total, rest), dim=1), self.plan.partial))

    def _zeros(self, x: Tensor, channels: int) -> Tensor:
        n, _, h, w = x.shape
        size = (-(-h // 2), -(-w // 2)) if self.reduction else (h, w)
        return x.new_zeros(n, *size, channels).permute(0, 3, 1, 2)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """(N, C, H, W) with channel g * C / groups + i moved to i * groups + g, channels_last (Zhang et al. 2018, ShuffleNet)."""
    return x.permute(0, 2, 3, 1).unflatten(3, (groups, -1)).transpose(3, 4).flatten(3).permute(0, 3, 1, 2)
