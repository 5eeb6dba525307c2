"""The macro-skeleton: stem, stacked cells, global pooling, classifier; with a mixing it is a supernet, without one a final network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from darts_lite.costs import Costs, count
from darts_lite.errors import UserError
from darts_lite.operations import NOISE
from darts_lite.operations.candidates import Activation
from darts_lite.operations.layers import Form
from darts_lite.spaces.auxiliary import auxiliary_head
from darts_lite.spaces.cell import Cell
from darts_lite.spaces.plan import CellPlan, Key, Pairs
from darts_lite.spaces.stage import Stage
from darts_lite.spaces.stem import STEMS, cifar, count_stem, halved, imagenet
from darts_lite.spaces.table import Mixing


@dataclass(frozen=True)
class Skeleton:
    """Number, widths and sizes of the cells, and what is around them."""

    cells: int
    channels: int  # of the first cell's nodes; doubled by each reduction
    classes: int
    input_channels: int = 3
    image_size: tuple[int, int] = (32, 32)  # height, width
    reductions: tuple[int, ...] | None = None  # None: at one and two thirds of the depth
    stem_multiplier: int = 3
    activation: Activation = nn.ReLU
    stem: str = "cifar"  # or imagenet, see stem.py

    def reduces(self) -> list[bool]:
        """Whether each cell, from the input to the output, halves the resolution."""
        reductions = {self.cells // 3, 2 * self.cells // 3} if self.reductions is None else set(self.reductions)
        return [i in reductions for i in range(self.cells)]

    def describe(self) -> dict[str, Any]:
        """Plain data that two skeletons share if weights of one fit the other."""
        return {
            "cells": self.cells,
            "channels": self.channels,
            "classes": self.classes,
            "input_channels": self.input_channels,
            "image_size": list(self.image_size),
            "stem": self.stem,
            "reductions": [i for i, reduces in enumerate(self.reduces()) if reduces],
        }

    @classmethod
    def described(cls, plain: dict[str, Any]) -> "Skeleton":
        """The skeleton of a description, which may come from anywhere. ValueError, TypeError or KeyError where it is none."""
        numbers = [plain[name] for name in ("cells", "channels", "classes", "input_channels")]
        size, reductions = tuple(plain["image_size"]), tuple(plain["reductions"])
        if not all(type(number) is int and 0 < number < 2**16 for number in (*numbers, *size)) or len(size) != 2:
            raise ValueError("impossible numbers")
        if not all(type(place) is int for place in reductions):
            raise ValueError("impossible reductions")
        if plain["stem"] not in STEMS:
            raise ValueError("an unknown stem")
        cells, channels, classes, input_channels = numbers
        return cls(cells, channels, classes, input_channels, size, reductions, stem=plain["stem"])

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of the input of each cell and, last, of the output of the last one; a reduction rounds up."""
        sizes = [halved(self.image_size, 3 if self.stem == "imagenet" else 0)]
        for reduces in self.reduces():
            sizes.append(halved(sizes[-1], reduces))
        return sizes

    def widths(self) -> list[int]:
        """Channels of the nodes of each cell."""
        widths, channels = [], self.channels
        for reduces in self.reduces():
            channels *= 2 if reduces else 1
            widths.append(channels)
        return widths


EXPORT = "export the Network itself, called with draws=network.draw(generator, number of images)"
# Number of a cell -> number of a stage -> what its noise is made of, (N, copies * C, H, W).
Draws = dict[int, dict[int, Tensor]]


class Network(nn.Module):
    """Cells in a chain, each of which reads the outputs of the one or two before it.

    `types`: the cell type of each cell; `plans`: of each type.
    """

    cells: Any  # nn.ModuleList of Cell

    def __init__(
        self,
        plans: dict[str, CellPlan],
        types: Sequence[str],
        skeleton: Skeleton,
        form: Form,
        *,
        auxiliary: bool = False,
    ):
        super().__init__()
        self.skeleton, self.form, self.activation = skeleton, form, skeleton.activation()
        reduces, widths, sizes = skeleton.reduces(), skeleton.widths(), skeleton.sizes()
        large = skeleton.stem == "imagenet"
        stem_width = skeleton.channels * (1 if large else skeleton.stem_multiplier)
        self.second_stem = None
        if large:
            self.stem, self.second_stem = imagenet(skeleton.input_channels, stem_width, skeleton.activation)
        else:
            self.stem = cifar(skeleton.input_channels, stem_width)
        self.cells = nn.ModuleList()
        outputs = [stem_width, stem_width]  # channels of what a cell reads
        for i, (kind, channels) in enumerate(zip(types, widths, strict=True)):
            plan = plans[kind]
            self.cells.append(
                Cell(
                    plan,
                    outputs[-plan.inputs :],
                    channels,
                    reduction=reduces[i],
                    previous_reduces=large if i == 0 else reduces[i - 1],
                    form=form,
                    activation=skeleton.activation,
                )
            )
            outputs.append(channels * len(plan.concat))
        self.kinds = [(kind, types[:i].count(kind)) for i, kind in enumerate(types)]  # type, and number among its type
        self.auxiliary_cell = 2 * skeleton.cells // 3
        self.auxiliary = None
        if auxiliary:
            size = sizes[self.auxiliary_cell + 1]
            self.auxiliary = auxiliary_head(size, outputs[self.auxiliary_cell + 2], skeleton.classes)
        self.random = any(NOISE in stage.stacks for cell in self.cells for stage in cell.stages)
        self.classifier = nn.Linear(outputs[-1], skeleton.classes)
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
        """(N, input channels, H, W) -> logits (N, classes).

        `mixing` makes it a supernet; of its operations only those of `drawn`, by cell type, are computed (None: all), see `drawn_pairs`.
        `drop_path` (0-d) is the probability to drop an edge for a sample, drawn through `generator`. `draws`: what `draw` returned, the
        numbers of a random forward pass; without them they are drawn through `generator`, and without that from seed 0.
        `auxiliary`: return also the logits of the auxiliary head, None without one: (logits, logits).
        """
        if draws is None and self.random:
            # A graph would hold the numbers of one batch, or a generator that moves on.
            if torch.compiler.is_exporting():
                raise UserError("draws", "a network with noise is not exported without them", EXPORT)
            draws = self.draw(generator or Generator(images.device).manual_seed(0), len(images))
        features = self._features(images, mixing, drawn, draws or {}, drop_path, generator)
        if not auxiliary:
            return self._classify(features[-1])
        beside = None if self.auxiliary is None else self.auxiliary(features[self.auxiliary_cell])
        return self._classify(features[-1]), beside

    def draw(self, generator: Generator, n: int) -> Draws | None:
        """The random numbers of a forward pass of `n` images, to be handed to each pass that shall be the same; None: none is random."""
        if not self.random:
            return None
        draws: Draws = {}
        for number, (cell, (h, w)) in enumerate(zip(self.cells, self.skeleton.sizes()[1:], strict=True)):
            for stage in cell.stages:
                if NOISE in stage.stacks:
                    width = stage.width * len(stage.stacks[NOISE])
                    numbers = torch.randn(n, h, w, width, device=generator.device, generator=generator)
                    draws.setdefault(number, {})[stage.number] = numbers.permute(0, 3, 1, 2)
        return draws

    def _classify(self, features: Tensor) -> Tensor:
        return self.classifier(pooled(features))

    def _features(
        self,
        images: Tensor,
        mixing: dict[str, Mixing] | None,
        drawn: dict[str, Pairs] | None,
        draws: Draws,
        drop_path: Tensor | None,
        generator: Generator | None,
    ) -> list[Tensor]:
        """The output of every cell."""
        stem = self.stem(images)
        first = self.activation(stem)
        read = [first, first if self.second_stem is None else self.activation(self.second_stem(stem))]
        features: list[Tensor] = []
        for place, (cell, (kind, number)) in enumerate(zip(self.cells, self.kinds, strict=True)):
            if features:
                read = [read[1], self.activation(features[-1])]  # once for the two cells that read it
            keep = kept(drop_path, stem, len(cell.plan.edges), generator)
            features.append(
                cell(
                    read[-cell.plan.inputs :],
                    None if mixing is None else mixing[kind].of_cell(number),
                    keep,
                    drawn=None if drawn is None else drawn[kind],
                    draws=draws.get(place),
                )
            )
        return features

    def costs(self) -> Costs:
        """Parameters and multiply-accumulates an image, without the auxiliary head, which is not there after training."""
        sizes = self.skeleton.sizes()
        areas = [height * width for height, width in sizes]
        stem, size = count_stem(self.stem, self.skeleton.image_size)
        total = stem + count(self.classifier)
        if self.second_stem is not None:
            total += count_stem(self.second_stem, size)[0]
        for i, cell in enumerate(self.cells):
            total += count(cell.preprocess, areas[i]) + count(cell.stages, areas[i + 1], sizes[i][0] * sizes[i + 1][1])
        return total

    def stacks(self) -> Iterator[tuple[str, Stage, str, list[tuple[int, Key]]]]:
        """(prefix of its tensors' names, stage, operation, (cell, key) of its copies) of every stack."""
        for c, cell in enumerate(self.cells):
            for s, stage in enumerate(cell.stages):
                for name, keys in stage.keys().items():
                    yield f"cells.{c}.stages.{s}.operations.{name}.", stage, name, [(c, key) for key in keys]


def kept(drop_path: Tensor | None, x: Tensor, edges: int, generator: Generator | None) -> Tensor | None:
    """Factors (N, E) of drop-path for N images x: 0 with probability `drop_path` (0-d), else 1 / (1 - drop_path).

    None without drop-path; the number of images is read only with it, since an exported network leaves it open.
    """
    if drop_path is None:
        return None
    dropped = torch.rand(len(x), edges, device=x.device, generator=generator)
    return ((dropped >= drop_path) / (1 - drop_path)).to(x.dtype)


def pooled(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C), the mean over all pixels."""
    # As rows of channels, (N, H * W, C), so that the gradient is in channels_last, too.
    return features.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)
