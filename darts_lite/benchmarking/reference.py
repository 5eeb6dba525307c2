"""The DARTS supernet as the papers describe it: one module per (cell, edge, operation), NCHW, nothing shared.

This is the oracle of the tests and the baseline of the benchmark, not what a search runs. Its arithmetic is that of
Liu et al., "DARTS: Differentiable Architecture Search" (ICLR 2019), in the search form: BatchNorm without affine
parameters everywhere but in the stem, and a BatchNorm behind every pool. An edge from state `x` computes

    edge_factor * sum over operations of weight[operation] * operation(x)

and a node sums its edges. Without a mixing and with one candidate an edge it is the network that is retrained
(`final`: BatchNorm with affine parameters, plain pools). Edges are node-major: (0->2), (1->2), (0->3), (1->3), (2->3), (0->4), ...

Names, so that weights can be mapped from and to other implementations (numbers are indices in a Sequential):

    stem.{0,1}                                      conv3x3, BatchNorm (affine)
    cells.{cell}.preprocess.{0,1}.{1,2}             conv1x1, BatchNorm; of the state before last (0) and the last (1)
    cells.{cell}.preprocess.0.{first,second,norm}   instead, in the cell after a reduction: FactorizedReduce
    cells.{cell}.edges.{edge}.{operation}.<...>     absent where the candidate is dead; by operation:
        none, skip_connect at stride 1              nothing
        skip_connect at stride 2                    first, second (1x1 stride 2), norm
        max_pool_3x3, avg_pool_3x3                  1 BatchNorm
        sep_conv_NxN                                1 depthwise, 2 pointwise, 3 BatchNorm, then 5, 6, 7 the same
        dil_conv_NxN                                1 depthwise, 2 pointwise, 3 BatchNorm
    classifier                                      Linear
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_lite.settings.configs import RetrainConfig, SearchConfig
from darts_lite.spaces.table import Mixing

CANDIDATES = (
    *("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect"),
    *("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"),
)
Activation = Callable[[], nn.Module]


class Zero(nn.Module):
    """`none`: zeros of the right shape. It multiplies, as published, so that the weight has a gradient: zero."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class FactorizedReduce(nn.Module):
    """Halves the image, sizes rounded up: two 1x1 convolutions of stride 2, the second one pixel down and right.

    The pixel added on the right and at the bottom is read only where a size is odd.
    """

    def __init__(self, channels_in: int, channels_out: int, activation: Activation, final: bool = False):
        super().__init__()
        self.activation = activation()
        self.first = nn.Conv2d(channels_in, channels_out // 2, 1, stride=2, bias=False)
        self.second = nn.Conv2d(channels_in, channels_out - channels_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels_out, affine=final)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(x)
        shifted = F.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))
        return self.norm(torch.cat([self.first(x), self.second(shifted)], dim=1))


def conv_block(
    channels: int, kernel: int, stride: int, dilation: int, activation: Activation, final: bool
) -> list[nn.Module]:
    """Activation, depthwise convolution, pointwise convolution, BatchNorm; output size ceil(input / stride)."""
    padding = dilation * (kernel - 1) // 2
    return [
        activation(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=final),
    ]


def create_operation(name: str, channels: int, stride: int, activation: Activation, final: bool = False) -> nn.Module:
    """One candidate operation, (B, C, H, W) -> (B, C, ceil(H/stride), ceil(W/stride)). KeyError for an unknown name."""

    def separable(kernel: int) -> nn.Module:
        blocks = [conv_block(channels, kernel, s, 1, activation, final) for s in (stride, 1)]
        return nn.Sequential(*blocks[0], *blocks[1])

    def dilated(kernel: int) -> nn.Module:
        return nn.Sequential(*conv_block(channels, kernel, stride, 2, activation, final))

    def pool(module: nn.Module) -> nn.Module:
        return module if final else nn.Sequential(module, nn.BatchNorm2d(channels, affine=False))

    create = {
        "none": lambda: Zero(stride),
        "max_pool_3x3": lambda: pool(nn.MaxPool2d(3, stride, padding=1)),
        "avg_pool_3x3": lambda: pool(nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)),
        "skip_connect": lambda: (
            nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, activation, final)
        ),
        "sep_conv_3x3": lambda: separable(3),
        "sep_conv_5x5": lambda: separable(5),
        "dil_conv_3x3": lambda: dilated(3),
        "dil_conv_5x5": lambda: dilated(5),
        "sep_conv_7x7": lambda: separable(7),
        "conv_7x1_1x7": lambda: nn.Sequential(
            activation(),
            nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
            nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
            nn.BatchNorm2d(channels, affine=final),
        ),
    }
    return create[name]()


class ReferenceCell(nn.Module):
    """One cell: two input states, `nodes` intermediate states of C channels, their concatenation as output.

    `alive` (E, O) says which candidates exist. A reduction applies stride 2 on the edges from the two input states.
    """

    edges: Any  # nn.ModuleList: of each edge an nn.ModuleDict, name -> operation

    def __init__(
        self,
        channels_in: tuple[int, int],
        channels: int,
        nodes: int,
        candidates: Sequence[str],
        alive: Tensor | None,
        reduction: bool,
        after_reduction: bool,
        activation: Activation,
        final: bool,
    ):
        super().__init__()
        self.nodes = nodes
        self.candidates = tuple(candidates)
        self.pairs = [(source, node) for node in range(2, 2 + nodes) for source in range(node)]
        self.strides = [2 if reduction and source < 2 else 1 for source, _ in self.pairs]

        def project(source: int) -> nn.Module:
            convolution = nn.Conv2d(channels_in[source], channels, 1, bias=False)
            return nn.Sequential(activation(), convolution, nn.BatchNorm2d(channels, affine=final))

        before_last = FactorizedReduce(channels_in[0], channels, activation, final) if after_reduction else project(0)
        self.preprocess = nn.ModuleList([before_last, project(1)])
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: create_operation(name, channels, stride, activation, final)
                    for column, name in enumerate(self.candidates)
                    if alive is None or bool(alive[edge][column])
                }
            )
            for edge, stride in enumerate(self.strides)
        )

    def mix(self, edge: int, x: Tensor, weights: Tensor) -> Tensor:
        """Weighted sum of the operations of one edge; weights (O,). Zeros where no candidate is alive."""
        operations = self.edges[edge]
        terms = [weights[self.candidates.index(name)] * operation(x) for name, operation in operations.items()]
        return sum(terms) if terms else Zero(self.strides[edge])(x)

    def forward(self, before_last: Tensor, last: Tensor, operations: Tensor | None, edges: Tensor | None) -> Tensor:
        """States (B, C', H, W), operations (E, O), edges (E,) or None -> (B, nodes * C, H', W').

        Without `operations` an edge is the plain sum of its candidates, and one without candidates is skipped.
        """
        states = [self.preprocess[0](before_last), self.preprocess[1](last)]
        for node in range(2, 2 + self.nodes):
            outputs = []
            for edge, (source, target) in enumerate(self.pairs):
                if target != node:
                    continue
                if operations is None:
                    outputs += [operation(states[source]) for operation in self.edges[edge].values()]
                else:
                    output = self.mix(edge, states[source], operations[edge])
                    outputs.append(output if edges is None else edges[edge] * output)
            states.append(sum(outputs))
        return torch.cat(states[2:], dim=1)


class ReferenceSupernet(nn.Module):
    """Stem, `cells` cells, global average pool, linear classifier: images (B, channels, H, W), mixing -> logits.

    `channels` is C of the first cell; it doubles at each reduction. The stem has `stem_multiplier` * C channels.
    `alive`: cell type -> (E, O) booleans, default all. `reductions`: indices of the reduction cells, default a third
    and two thirds of the depth. `activation`: a constructor; a smooth one makes finite differences meaningful.
    """

    def __init__(
        self,
        channels: int,
        cells: int,
        nodes: int,
        classes: int,
        input_channels: int = 3,
        candidates: Sequence[str] = CANDIDATES,
        alive: Mapping[str, Tensor] | None = None,
        reductions: Sequence[int] | None = None,
        activation: Activation = nn.ReLU,
        stem_multiplier: int = 3,
        final: bool = False,
    ):
        super().__init__()
        reductions = (cells // 3, 2 * cells // 3) if reductions is None else reductions
        self.types = tuple("reduce" if index in reductions else "normal" for index in range(cells))
        width = stem_multiplier * channels
        self.stem = nn.Sequential(nn.Conv2d(input_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

        widths = (width, width)
        after_reduction = False
        self.cells = nn.ModuleList()
        for cell_type in self.types:
            reduction = cell_type == "reduce"
            channels = 2 * channels if reduction else channels
            mask = None if alive is None else alive.get(cell_type)
            cell = ReferenceCell(
                widths, channels, nodes, candidates, mask, reduction, after_reduction, activation, final
            )
            self.cells.append(cell)
            widths = (widths[1], nodes * channels)
            after_reduction = reduction
        self.classifier = nn.Linear(widths[1], classes)

    def forward(self, images: Tensor, mixing: Mapping[str, Mixing] | None = None) -> Tensor:
        """images (B, input_channels, H, W), mixing of each cell type present -> logits (B, classes)."""
        before_last = last = self.stem(images)
        for index, (cell_type, cell) in enumerate(zip(self.types, self.cells, strict=True)):
            if mixing is None:
                before_last, last = last, cell(before_last, last, None, None)
                continue
            position = self.types[:index].count(cell_type)
            operations, edges = mixing[cell_type].operations, mixing[cell_type].edges
            operations = operations[position] if operations.dim() == 3 else operations
            edges = edges[position] if edges is not None and edges.dim() == 2 else edges
            before_last, last = last, cell(before_last, last, operations, edges)
        return self.classifier(last.mean(dim=(2, 3)))


def sgd(network: nn.Module, config: SearchConfig | RetrainConfig, *, fused: bool = False) -> torch.optim.SGD:
    """The optimizer of the weights, as published."""
    momentum, decay = config.momentum, config.weight_decay
    return torch.optim.SGD(network.parameters(), config.lr, momentum=momentum, weight_decay=decay, fused=fused)


def adam_of(alphas: Sequence[Tensor], config: SearchConfig, *, fused: bool = False) -> torch.optim.Adam:
    """The optimizer of the alphas, as published."""
    first, second = config.alpha_betas
    decay = config.alpha_weight_decay
    return torch.optim.Adam(alphas, config.alpha_lr, betas=(first, second), weight_decay=decay, fused=fused)


def descend(network: nn.Module, optimizer: torch.optim.SGD, loss: Callable[[], Tensor], clip: float | None) -> Tensor:
    """One plain step on the weights; returns the loss before it."""
    optimizer.zero_grad()
    found = loss()
    found.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimizer.step()
    return found.detach()
