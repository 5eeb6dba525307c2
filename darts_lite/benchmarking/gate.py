"""The correctness gate of the benchmark: fast counts only where it learns the same.

Losses: over many fp32 steps on one stream of batches, ours lie as close to the mean of the reference's seeds as these lie to each other.
Genotype: in float64, from copied weights, a short search of ours has the losses of the reference to 1e-9, and ends at its genotype.
"""

import re
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darts_lite.benchmarking.reference import ReferenceSupernet, adam_of, descend, sgd
from darts_lite.data.dataset import Dataset
from darts_lite.methods.build import build_selection, build_space
from darts_lite.methods.views import SelectionView, costs_of
from darts_lite.operations.layers import FactorizedReduce
from darts_lite.settings.configs import SearchConfig
from darts_lite.spaces.network import Network, Skeleton
from darts_lite.spaces.table import Mixing
from darts_lite.training.search_state import Batch


def gate(config: SearchConfig, dataset: Dataset, *, steps: int, seeds: int = 4, mini_steps: int = 10) -> dict[str, Any]:
    """Results of both checks on (a small supernet of) `config` and the training part of `dataset`; `passed` is their conjunction."""
    networks = [*(_reference(config, dataset, seed) for seed in range(seeds)), _ours(config, dataset, seeds)]
    curves = [_losses(config, dataset, network, steps, _logits(config, torch.float32, 0.0)) for network in networks]
    # The last quarter: there the losses of different starts have something in common.
    tail = [torch.tensor(curve[-max(1, steps // 4) :]).mean() for curve in curves]
    mean, spread = torch.stack(tail[:-1]).mean(), torch.stack(tail[:-1]).std()
    distance = abs(tail[-1] - mean) / spread
    # Of a mean of n and one more draw, in units of their estimated spread: 3 sigma, widened by sqrt(1 + 1/n).
    agree = bool(distance <= 3 * (1 + 1 / seeds) ** 0.5)
    mini = _same_search(config, dataset, mini_steps)
    return {
        "steps": steps,
        "reference_losses": [float(value) for value in tail[:-1]],
        "our_loss": float(tail[-1]),
        "standard_deviations_apart": float(distance),
        "losses_agree": agree,
        **mini,
        "passed": agree and mini["same_genotype"] and mini["largest_difference"] < 1e-9,
    }


def _skeleton(config: SearchConfig, dataset: Dataset) -> Skeleton:
    return Skeleton(config.cells, config.channels, dataset.classes, dataset.channels, dataset.image_size)


def _reference(config: SearchConfig, dataset: Dataset, seed: int) -> ReferenceSupernet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size = config.channels, config.cells, config.space.nodes, dataset.classes, dataset.channels
        return ReferenceSupernet(*size, config.space.candidates)


def _ours(config: SearchConfig, dataset: Dataset, seed: int) -> Network:
    space = build_space(config.space)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return space.supernet(_skeleton(config, dataset), space.tables())


def _batches(config: SearchConfig, dataset: Dataset, dtype: torch.dtype) -> Iterator[Batch]:
    """An endless stream of batches, equal at every call."""
    generator = torch.Generator().manual_seed(0)
    images = torch.from_numpy(dataset.x_train).permute(0, 3, 1, 2).to(dtype) / 255
    labels = torch.from_numpy(dataset.y_train)
    while True:
        chosen = torch.randint(len(labels), (config.batch_size,), generator=generator)
        yield images[chosen].contiguous(memory_format=torch.channels_last), labels[chosen]


def _logits(config: SearchConfig, dtype: torch.dtype, std: float) -> dict[str, Tensor]:
    """Normal noise, equal at every call."""
    generator = torch.Generator().manual_seed(1)
    tables = build_space(config.space).tables()
    return {cell: std * torch.randn(one.alive.shape, dtype=dtype, generator=generator) for cell, one in tables.items()}


def _losses(
    config: SearchConfig, dataset: Dataset, network: nn.Module, steps: int, logits: dict[str, Tensor]
) -> list[float]:
    """Training losses of the alternating search, which moves `logits`; both networks by the same optimizers: only the network differs."""
    dtype = next(network.parameters()).dtype
    alphas = [tensor.requires_grad_() for tensor in logits.values()]
    adam, descent = adam_of(alphas, config), sgd(network, config)
    stream, losses = _batches(config, dataset, dtype), []

    def loss() -> Tensor:
        images, labels = next(stream)
        return F.cross_entropy(
            network(images, {cell: Mixing(tensor.softmax(-1)) for cell, tensor in logits.items()}), labels
        )

    for _ in range(steps):
        adam.zero_grad()
        loss().backward(inputs=alphas)
        adam.step()
        losses.append(float(descend(network, descent, loss, config.gradient_clip)))
    return losses


def _same_search(config: SearchConfig, dataset: Dataset, steps: int) -> dict[str, Any]:
    ours, reference = _ours(config, dataset, 0).double(), _reference(config, dataset, 0).double()
    reference.load_state_dict(taken_apart(ours, ours.state_dict()), strict=False)
    space, selection = build_space(config.space), build_selection(config)
    tables, results = space.tables(), []
    costs = costs_of(space, tables, ours.skeleton)
    for network in (ours, reference):
        logits = _logits(config, torch.float64, 1e-3)
        losses = _losses(config, dataset, network, steps, logits)
        mixing = {cell: Mixing(tensor.detach().softmax(-1)) for cell, tensor in logits.items()}
        results.append((losses, selection(SelectionView(space.name, tables, mixing, costs), None)))
    (our_losses, our_genotype), (losses, genotype) = results
    difference = max(abs(a - b) for a, b in zip(our_losses, losses, strict=True))
    return {"mini_steps": steps, "largest_difference": difference, "same_genotype": our_genotype == genotype}


def taken_apart(network: Network, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` of the stacked network under the names of the reference, one for each of its modules."""
    layers: dict[str, int | str] = {"first.depthwise": 1, "first.pointwise": 2, "first.norm": 3}
    layers |= {"second.depthwise": 5, "second.pointwise": 6, "second.norm": 7}
    layers |= {"only.depthwise": 1, "only.pointwise": 2, "only.norm": 3}
    layers |= {"reduce.even": "first", "reduce.odd": "second", "reduce.norm": "norm", "norm": 1}
    stages = {
        f"cells.{c}.stages.{s}.": stage for c, cell in enumerate(network.cells) for s, stage in enumerate(cell.stages)
    }
    apart: dict[str, Tensor] = {}
    for prefix, _, _, keys in network.stacks():
        stage = stages[prefix.partition("operations.")[0]]
        for name in tensors:
            if name.startswith(prefix):
                layer, leaf = name.removeprefix(prefix).rsplit(".", 1)
                copies = tensors[name].chunk(len(keys))
                for (cell, (operation, source, target)), copy in zip(keys, copies, strict=True):
                    edges = [
                        e for e in stage.stacks[operation] if stage.edges[e] == (source, target or stage.edges[e][1])
                    ]
                    assert len(edges) == 1 or target is None
                    for edge in edges:
                        apart[f"cells.{cell}.edges.{edge}.{operation}.{layers[layer]}.{leaf}"] = copy
    for name, tensor in tensors.items():
        if ".stages." not in name:
            if found := re.match(r"(cells\.(\d+)\.preprocess\.(\d)\.)(.*)", name):
                module = network.cells[int(found[2])].preprocess[int(found[3])]
                halves = isinstance(module, FactorizedReduce)
                layer, leaf = found[4].split(".")
                places: dict[str, int | str] = {"convolution": 1, "norm": 2}
                if halves:
                    places = {"even": "first", "odd": "second", "norm": "norm"}
                name = f"{found[1]}{places[layer]}.{leaf}"
            apart[name] = tensor
    return apart
