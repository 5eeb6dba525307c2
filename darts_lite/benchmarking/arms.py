"""The arms of the benchmark: the same step of DARTS done by the reference, as published or with every switch that helps, and by us.

Images are random: 32x32, 3 channels, 10 classes. An arm is made by a function of plain values, so that a process of its own can make it.
On a GPU ours and the reference at its best run as CUDA graphs, one for the architecture's half of a step and one for that of the weights.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from darts_lite.benchmarking.measure import Arm, Work, recorded
from darts_lite.benchmarking.reference import CANDIDATES, ReferenceSupernet, adam_of, descend, sgd
from darts_lite.genotypes.genotype import Genotype
from darts_lite.genotypes.text import published
from darts_lite.hardware.device import keep_freed_memory
from darts_lite.hardware.gated import mark_capture
from darts_lite.hardware.precision import computing
from darts_lite.methods.architecture import unflatten
from darts_lite.methods.build import build_method, build_space
from darts_lite.methods.solvers.bilevel import Bilevel, Lookahead, Tensors
from darts_lite.settings.configs import RetrainConfig, SearchConfig
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.table import Mixing
from darts_lite.training.optimizers import cosine
from darts_lite.training.retrain_step import RetrainState, new_network, retrain_step
from darts_lite.training.search_state import Batch, SearchState
from darts_lite.training.search_step import alpha_step, weight_step

CELLS = ("normal", "reduce")
Some = TypeVar("Some", bound=nn.Module)
GENOTYPE = "darts_v2"  # what the arms of retraining train


def batches(batch_size: int, device: str, channels_last: bool) -> tuple[Batch, Batch]:
    """A training and a validation batch."""
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def batch() -> Batch:
        images = torch.randn(batch_size, 3, 32, 32, generator=generator)
        labels = torch.randint(10, (batch_size,), generator=generator)
        return images.to(device, memory_format=layout), labels.to(device)

    return batch(), batch()


def ours_search(config: SearchConfig, device: str, precision: str) -> Arm:
    """A step of `darts_lite.search`."""
    skeleton = Skeleton(config.cells, config.channels, 10)
    space, method = build_space(config.space), build_method(config)
    state = SearchState(config, space, skeleton, method, torch.device(device), precision, epoch_steps=1000)
    train, validation = batches(config.batch_size, device, True)

    def rate() -> Tensor:
        return cosine(state.clock.progress, config.lr, config.lr_min)

    parts = {
        "alphas": lambda: alpha_step(state, train, validation, rate()),
        "weights": lambda: weight_step(state, train, rate()),
    }
    return _ours(parts, state.device)


def reference_search(config: SearchConfig, device: str, precision: str, best: bool = False) -> Arm:
    """A step of the published algorithm on the reference; `best`: channels_last, and on a GPU autocast, fused optimizers and a graph."""
    network = ReferenceSupernet(
        config.channels, config.cells, config.space.nodes, 10, candidates=config.space.candidates
    )
    network, around = _placed(network, device, precision, best)
    train, validation = batches(config.batch_size, device, best)
    rows = sum(range(2, config.space.nodes + 2))
    alphas = [torch.zeros(rows, len(config.space.candidates), device=device, requires_grad=True) for _ in CELLS]
    fused = best and device != "cpu"
    descent, adam = sgd(network, config, fused=fused), adam_of(alphas, config, fused=fused)
    names = [name for name, _ in network.named_parameters()]
    structure = dict(zip(CELLS, map(Mixing, alphas), strict=True))
    rate = torch.tensor(config.lr, device=device)
    if config.solver.name != "first_order":  # zeros are what the first step would begin with
        for weight in network.parameters():
            descent.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    solver = build_method(config).solver

    def loss_on(batch: Batch, weights: Tensors, mixing: Tensors) -> Tensor:
        with around():
            named = dict(zip(names, weights, strict=True))
            return F.cross_entropy(functional_call(network, named, (batch[0], unflatten(structure, mixing))), batch[1])

    def plain(batch: Batch) -> Tensor:
        with around():
            mixing = {cell: Mixing(logits.softmax(-1)) for cell, logits in zip(CELLS, alphas, strict=True)}
            return F.cross_entropy(network(batch[0], mixing), batch[1])

    def first_order() -> None:
        # As published: the gradients of the weights are computed with those of alpha, and thrown away.
        adam.zero_grad()
        if best:  # and not added to those of the step before
            descent.zero_grad()
        plain(validation).backward()
        mark_capture(adam)
        adam.step()

    def second_order() -> None:
        adam.zero_grad()
        sampled = tuple(logits.softmax(-1) for logits in alphas)
        weights = tuple(network.parameters())
        buffers = tuple(descent.state[weight]["momentum_buffer"] for weight in weights)
        ahead = Lookahead(rate, config.momentum, config.weight_decay, buffers)
        inner = partial(loss_on, train)
        constant = tuple(w.detach() for w in weights), tuple(tensor.detach() for tensor in sampled)
        _, gradients = solver(Bilevel(inner, partial(loss_on, validation), inner, *constant, ahead))
        torch.autograd.backward(sampled, gradients)
        mark_capture(adam)
        adam.step()

    architecture = first_order if config.solver.name == "first_order" else second_order
    weights = partial(descend, network, descent, lambda: plain(train), config.gradient_clip)
    return _reference({"alphas": architecture, "weights": weights}, device, best)


def ours_retrain(config: RetrainConfig, device: str, precision: str) -> Arm:
    """A step of `darts_lite.retrain`."""
    network = new_network(published(GENOTYPE), Skeleton(config.cells, config.channels, 10), config).to(device)
    state = RetrainState(config, network, torch.device(device), precision, steps=1000)
    train, _ = batches(config.batch_size, device, True)
    return _ours({"weights": lambda: retrain_step(state, *train)}, state.device)


def reference_retrain(config: RetrainConfig, device: str, precision: str, best: bool = False) -> Arm:
    """A step of the retraining of the reference; without auxiliary head and drop-path, which `config` must leave off."""
    masks = one_candidate_an_edge(published(GENOTYPE))
    network = ReferenceSupernet(config.channels, config.cells, 4, 10, alive=masks, final=True)
    network, around = _placed(network, device, precision, best)
    (images, labels), _ = batches(config.batch_size, device, best)
    descent = sgd(network, config, fused=best and device != "cpu")

    def loss() -> Tensor:
        with around():
            return F.cross_entropy(network(images), labels)

    weights = partial(descend, network, descent, loss, config.gradient_clip)
    return _reference({"weights": weights}, device, best)


def one_candidate_an_edge(genotype: Genotype) -> dict[str, Tensor]:
    """A genotype without repeated edges as masks (E, O) over the candidates of the reference."""
    masks = {}
    for name, cell in genotype.cells.items():
        nodes = max(edge.target for edge in cell.edges)
        pairs = [(source, target) for target in range(2, nodes + 1) for source in range(target)]
        masks[name] = torch.zeros(len(pairs), len(CANDIDATES), dtype=torch.bool)
        for edge in cell.edges:
            masks[name][pairs.index((edge.source, edge.target)), CANDIDATES.index(edge.operation)] = True
    return masks


def _ours(parts: dict[str, Work], device: torch.device) -> Arm:
    keep_freed_memory(device)  # as a run does
    return recorded(Arm("darts_lite", parts, device))


def _reference(parts: dict[str, Work], device: str, best: bool) -> Arm:
    name = "reference, best effort" if best else "reference, as published"
    arm = Arm(name, parts, torch.device(device))
    return recorded(arm) if best else arm


def _placed(network: Some, device: str, precision: str, best: bool) -> tuple[Some, Any]:
    """(the network on its device, a function that makes the context of its forward passes)."""
    layout = torch.channels_last if best else torch.contiguous_format
    network = network.to(device, memory_format=layout)  # type: ignore[call-overload]  # torch's stubs know only one of them

    def around() -> AbstractContextManager:
        return computing(torch.device(device), precision) if best else nullcontext()

    return network, around
