"""Network of NAS-Bench-201: stem, cells in a chain with residual blocks where the resolution halves, BatchNorm, ReLU, pooling, classifier.

The stem, the residual blocks and the last BatchNorm have weights and biases in the search, too, as the benchmark has them.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn

from darts_lite.costs import Costs, count
from darts_lite.operations.layers import BatchNorm, Form, convolution
from darts_lite.spaces.auxiliary import auxiliary_head
from darts_lite.spaces.nasbench201_cells import Fan, NasBench201Cell, ResidualBlock
from darts_lite.spaces.network import Draws, Skeleton, kept, pooled
from darts_lite.spaces.plan import CellPlan, Key, Pairs
from darts_lite.spaces.stem import count_stem, imagenet
from darts_lite.spaces.table import Mixing

CELL, RESIDUAL = "cell", "residual"


class NasBench201Network(nn.Module):
    """Network of a cell's plan; with a mixing it is a supernet. What halves the resolution in the skeleton is a residual block."""

    cells: Any  # nn.ModuleList of NasBench201Cell and ResidualBlock

    def __init__(self, plan: CellPlan, skeleton: Skeleton, form: Form, *, auxiliary: bool = False):
        super().__init__()
        self.skeleton, self.form, self.activation = skeleton, form, skeleton.activation()
        channels, reduces = skeleton.channels, skeleton.reduces()
        if skeleton.stem == "imagenet":
            first, second = imagenet(skeleton.input_channels, channels, skeleton.activation)
            self.stem = nn.Sequential(*first, *second)
        else:
            norm = BatchNorm(channels, affine=True, statistics=form.statistics)
            self.stem = nn.Sequential(convolution(skeleton.input_channels, channels, 3), norm)
        self.cells = nn.ModuleList()
        for halves in reduces:
            block = (
                ResidualBlock(channels, form, skeleton.activation)
                if halves
                else NasBench201Cell(plan, channels, form, skeleton.activation)
            )
            self.cells.append(block)
            channels *= 2 if halves else 1
        # Type of each, and number among its type.
        self.kinds = [(RESIDUAL if halves else CELL, reduces[:i].count(halves)) for i, halves in enumerate(reduces)]
        self.auxiliary_cell = 2 * skeleton.cells // 3
        self.auxiliary = None
        if auxiliary:
            size, width = skeleton.sizes()[self.auxiliary_cell + 1], skeleton.widths()[self.auxiliary_cell]
            self.auxiliary = auxiliary_head(size, width, skeleton.classes)
        self.norm = BatchNorm(channels, affine=True, statistics=form.statistics)
        self.classifier = nn.Linear(channels, skeleton.classes)
        self.to(memory_format=torch.channels_last)

    def forward(
        self,
        images: Tensor,
        mixing: dict[str, Mixing] | None = None,
        *,
        drawn: dict[str, Pairs] | None = None,
        draws: Draws | None = None,
        drop_path: Tensor | None = None,
        generator: Generator | None = None,
        auxiliary: bool = False,
    ) -> Any:
        """(N, input channels, H, W) -> logits (N, classes); arguments and result as those of `network.Network.forward`."""
        x, beside = self.stem(images), None
        for place, (block, (kind, number)) in enumerate(zip(self.cells, self.kinds, strict=True)):
            if kind == RESIDUAL:
                x = block(x)
            else:
                keep = kept(drop_path, x, len(block.plan.edges), generator)
                of_cell = None if mixing is None else mixing[CELL].of_cell(number)
                x = block(x, of_cell, keep, None if drawn is None else drawn[CELL])
            if auxiliary and self.auxiliary is not None and place == self.auxiliary_cell:
                beside = self.auxiliary(x)
        logits = self.classifier(pooled(self.activation(self.norm(x))))
        return (logits, beside) if auxiliary else logits

    def draw(self, generator: Generator, n: int) -> None:
        """None: nothing in a pass is random."""

    def costs(self) -> Costs:
        """Parameters and multiply-accumulates an image, without the auxiliary head, which is not there after training."""
        total, _ = count_stem(self.stem, self.skeleton.image_size)
        total += count(self.norm) + count(self.classifier)
        for block, (height, width) in zip(self.cells, self.skeleton.sizes()[1:], strict=True):
            total += count(block, height * width)
        return total

    def stacks(self) -> Iterator[tuple[str, Fan, str, list[tuple[int, Key]]]]:
        """(prefix of its tensors' names, fan, operation, (cell, key) of its copies) of every convolution with copies."""
        for c, (block, (kind, _)) in enumerate(zip(self.cells, self.kinds, strict=True)):
            for s, fan in enumerate(block.stages if kind == CELL else ()):
                for name, keys in fan.keys().items():
                    yield f"cells.{c}.stages.{s}.operations.{name}.", fan, name, [(c, key) for key in keys]
