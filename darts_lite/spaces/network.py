"""The macro-skeleton: stem, stacked cells, global pooling, classifier; with a mixing it is a supernet, without one a final network."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from darts_lite.costs import Costs, count
from darts_lite.operations.candidates import Activation
from darts_lite.spaces.auxiliary import auxiliary_head
from darts_lite.spaces.cell import Cell, Key, Plan
from darts_lite.spaces.stem import STEMS, cifar, count_stem, halved, imagenet
from darts_lite.spaces.table import Mixing


@dataclass(frozen=True)
class Skeleton:
    """What is around the cells."""

    cells: int
    channels: int  # of the first cell's nodes; doubled by each reduction
    classes: int
    input_channels: int = 3
    image_size: tuple[int, int] = (32, 32)  # height, width
    reductions: tuple[int, ...] | None = None  # None: at one and two thirds of the depth
    stem_multiplier: int = 3
    activation: Activation = nn.ReLU
    stem: str = "cifar"  # or imagenet, see stem.py

    def types(self) -> list[str]:
        """The type of each cell, from the input to the output."""
        reductions = {self.cells // 3, 2 * self.cells // 3} if self.reductions is None else set(self.reductions)
        return ["reduce" if i in reductions else "normal" for i in range(self.cells)]

    def describe(self) -> dict[str, Any]:
        """Plain data that two skeletons share if weights of one fit the other."""
        return {
            "cells": self.cells,
            "channels": self.channels,
            "classes": self.classes,
            "input_channels": self.input_channels,
            "image_size": list(self.image_size),
            "stem": self.stem,
            "reductions": [i for i, kind in enumerate(self.types()) if kind == "reduce"],
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
        for kind in self.types():
            sizes.append(halved(sizes[-1], kind == "reduce"))
        return sizes

    def widths(self) -> list[int]:
        """Channels of the nodes of each cell."""
        widths, channels = [], self.channels
        for kind in self.types():
            channels *= 2 if kind == "reduce" else 1
            widths.append(channels)
        return widths


class Network(nn.Module):
    """Cells in a chain, each of which reads the outputs of the two before it."""

    cells: Any  # nn.ModuleList of Cell

    def __init__(self, plans: dict[str, Plan], skeleton: Skeleton, form: str, *, auxiliary: bool = False):
        super().__init__()
        self.skeleton, self.form, self.activation = skeleton, form, skeleton.activation()
        types, widths, sizes = skeleton.types(), skeleton.widths(), skeleton.sizes()
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
            previous_reduces = large if i == 0 else types[i - 1] == "reduce"
            self.cells.append(
                Cell(
                    plans[kind],
                    outputs[-2],
                    outputs[-1],
                    channels,
                    reduction=kind == "reduce",
                    previous_reduces=previous_reduces,
                    form=form,
                    activation=skeleton.activation,
                )
            )
            outputs.append(channels * len(plans[kind].concat))
        self.kinds = [(kind, types[:i].count(kind)) for i, kind in enumerate(types)]  # type, and number among its type
        self.auxiliary_cell = 2 * skeleton.cells // 3
        self.auxiliary = None
        if auxiliary:
            size = sizes[self.auxiliary_cell + 1]
            self.auxiliary = auxiliary_head(size, outputs[self.auxiliary_cell + 2], skeleton.classes)
        self.classifier = nn.Linear(outputs[-1], skeleton.classes)
        self.to(memory_format=torch.channels_last)

    def forward(
        self,
        images: Tensor,
        mixing: dict[str, Mixing] | None = None,
        *,
        drop_path: Tensor | None = None,
        generator: Generator | None = None,
        auxiliary: bool = False,
        draws: dict | None = None,
    ) -> Any:
        """(N, input channels, H, W) -> logits (N, classes).

        `mixing` makes it a supernet. `drop_path` (0-d) is the probability to drop an edge for a sample, drawn through `generator`.
        `auxiliary`: return also the logits of the auxiliary head, None without one: (logits, logits). `draws`: of `draw`.
        """
        features = self._features(images, mixing, drop_path, generator)
        if not auxiliary:
            return self._classify(features[-1])
        beside = None if self.auxiliary is None else self.auxiliary(features[self.auxiliary_cell])
        return self._classify(features[-1]), beside

    def _classify(self, features: Tensor) -> Tensor:
        # As rows of channels, (N, H * W, C), so that the gradient is in channels_last, too.
        return self.classifier(features.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1))

    def _features(
        self, images: Tensor, mixing: dict[str, Mixing] | None, drop_path: Tensor | None, generator: Generator | None
    ) -> list[Tensor]:
        """The output of every cell."""
        stem = self.stem(images)
        first = self.activation(stem)
        read = [first, first if self.second_stem is None else self.activation(self.second_stem(stem))]
        features: list[Tensor] = []
        for cell, (kind, number) in zip(self.cells, self.kinds, strict=True):
            if features:
                read = [read[1], self.activation(features[-1])]  # once for the two cells that read it
            weights = None if mixing is None else _edge_weights(mixing[kind], number)
            keep = None
            if drop_path is not None:
                draws = torch.rand(len(images), len(cell.plan.edges), device=images.device, generator=generator)
                keep = ((draws >= drop_path) / (1 - drop_path)).to(stem.dtype)
            features.append(cell(*read, weights, keep))
        return features

    def draw(self, generator: Generator, n: int) -> dict | None:
        """Random numbers of a forward pass of `n` images; None: nothing in it is random."""
        return None

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

    def stacks(self) -> Iterator[tuple[str, list[tuple[int, Key]]]]:
        """(prefix of its tensors' names, (cell, key) of its copies) of every stack."""
        for c, cell in enumerate(self.cells):
            for s, stage in enumerate(cell.stages):
                for name, keys in stage.keys().items():
                    yield f"cells.{c}.stages.{s}.operations.{name}.", [(c, key) for key in keys]


def carry(old: Network, new: Network, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take what belongs to `new` from `tensors` of `old`: weights, buffers or optimizer state, by parameter name.

    The copies of each stack are taken by (cell, operation, edge); what is in no stack (stem, preprocessing, classifier) as it is. This one
    primitive serves pruning, discretization and warm start: momentum moves with its weight. Fails with KeyError on a copy that
    `old` does not have, with ValueError where other numbers of cells, channels, ... make other tensors.
    """
    if old.skeleton.describe() != new.skeleton.describe():
        raise ValueError(f"weights of {old.skeleton.describe()} do not fit {new.skeleton.describe()}")
    homes = {key: (prefix, i, len(keys)) for prefix, keys in old.stacks() for i, key in enumerate(keys)}
    stacked = {prefix for prefix, _ in old.stacks()}
    taken = {name: value for name, value in tensors.items() if not any(map(name.startswith, stacked))}
    for prefix, keys in new.stacks():
        old_prefix = homes[keys[0]][0]
        for name, value in tensors.items():
            if name.startswith(old_prefix):
                # A stack's copies lie together in one stack of `old`: stages are the same, only copies are missing.
                copies = value.unflatten(0, (homes[keys[0]][2], -1))
                taken[prefix + name.removeprefix(old_prefix)] = copies[[homes[key][1] for key in keys]].flatten(0, 1)
    return taken


def _edge_weights(mixing: Mixing, number: int) -> Tensor:
    """(E, O) factors of one cell: operations times edges."""
    operations, edges = mixing.operations, mixing.edges
    weights = operations if edges is None else operations * edges[..., None]
    return weights[number] if weights.dim() == 3 else weights
