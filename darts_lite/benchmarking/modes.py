"""Modes of the benchmark: name -> function that returns (entries of result.json, lines for people)."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, repeat
from typing import Any

import numpy as np
import torch

from darts_lite import data
from darts_lite.benchmarking import gate as gates
from darts_lite.benchmarking.arms import GENOTYPE, ours_retrain, ours_search, reference_retrain, reference_search
from darts_lite.benchmarking.measure import Arm, Hired, Times, machine, measured, take_turns
from darts_lite.data.augmentation import Augmentation
from darts_lite.data.parts import BatchFeed, Preparation, ResidentImages
from darts_lite.genotypes.text import published
from darts_lite.methods.build import build_space
from darts_lite.operations.layers import BatchNorm
from darts_lite.settings.configs import BenchmarkConfig, RetrainConfig, SearchConfig, SpaceConfig
from darts_lite.settings.datasets import DatasetConfig
from darts_lite.settings.parts import PartConfig
from darts_lite.spaces import space_of
from darts_lite.spaces.network import Network, Skeleton
from darts_lite.spaces.table import Mixing
from darts_lite.training.evaluation import evaluating

Found = tuple[dict[str, Any], list[str]]
Maker = Callable[..., Arm]
Settings = SearchConfig | RetrainConfig
HALF = 25_000  # images of an epoch of the search on CIFAR-10
GROWTH: dict[str, tuple[Any, ...]] = {
    "channels": (8, 16, 24),
    "cells": (4, 8, 12),
    "batch_size": (32, 64, 96),
    "operations": (2, 4, 6, 8),
}


@dataclass(frozen=True)
class Request:
    """Settings, sizes and device of one benchmark."""

    config: BenchmarkConfig
    search: SearchConfig  # of the same size
    retrain: RetrainConfig  # of the same size
    device: torch.device
    precision: str
    report: Any


@dataclass(frozen=True)
class Least:
    """Work that no step can avoid, for one image: arithmetic and memory traffic."""

    macs: int
    numbers: int  # read from or written to memory

    def seconds(self, batch_size: int, precision: str, rates: dict[str, float]) -> float:
        """The larger of the times that arithmetic and memory take, at the `rates` of `machine`: neither can wait for the other."""
        arithmetic = 2 * self.macs * batch_size / rates["flops_per_second"]
        size = 2 if precision == "bf16" else 4
        return max(arithmetic, size * self.numbers * batch_size / rates["copy_bytes_per_second"])


# BatchNorm knows what it makes of a number only when it has seen all others, so what it reads is written and read, forward; backward that
# is read once more, and of its gradient, which needs sums over all pixels as well, again one writing and one reading.
PASS = 5  # times that a number which BatchNorm reads passes between memory and processor


def normalized(network: Network, *arguments: Any) -> int:
    """Numbers that the BatchNorms of a network on the meta device read, for an image of 32x32; `arguments`: of `forward`."""
    read: list[int] = []
    hooks = [
        module.register_forward_hook(lambda _, inputs, output: read.append(inputs[0].numel()))
        for module in network.modules()
        if isinstance(module, BatchNorm)
    ]
    # In training some are part of another layer, and in less than float64 of a cell's kernels.
    with evaluating(network), torch.no_grad():
        network.double()(torch.empty(1, 3, 32, 32, dtype=torch.float64, device="meta"), *arguments)
    for hook in hooks:
        hook.remove()
    return sum(read)


def search(request: Request, solver: str = "first_order") -> Found:
    """A step of the search: architecture, then weights."""
    settings = replace(request.search, solver=PartConfig(solver))
    space = build_space(settings.space)
    tables = space.tables()
    mixing = {cell: Mixing(torch.ones(table.alive.shape, device="meta")) for cell, table in tables.items()}
    supernet = space.supernet(Skeleton(settings.cells, settings.channels, 10), tables).to("meta")
    # A pass forward and backward is three times the forward one; weights frozen: two times.
    forwards, passes = (5, 2) if solver == "first_order" else (14, 5)
    least = Least(forwards * supernet.costs().macs, passes * PASS * normalized(supernet, mixing))
    return _compare(request, reference_search, ours_search, settings, least, HALF)


def retrain(request: Request) -> Found:
    """A step of the retraining of a published genotype."""
    settings = request.retrain
    with torch.device("meta"):
        genotype = published(GENOTYPE)
        final = space_of(genotype).network(genotype, Skeleton(settings.cells, settings.channels, 10))
    least = Least(3 * final.costs().macs, PASS * normalized(final))
    return _compare(request, reference_retrain, ours_retrain, settings, least, 2 * HALF)


def loading(request: Request) -> Found:
    """A batch with crop and flip: torchvision's transforms in a DataLoader, and ours on the device."""
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    config, device = request.config, request.device
    pixels = np.random.default_rng(0).integers(0, 256, (5_000, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(len(pixels)) % 10
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    class Pictures(Dataset):
        moved = v2.ToImage(), v2.RandomCrop(32, 4), v2.RandomHorizontalFlip()
        transform = v2.Compose([*moved, v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])

        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return self.transform(pixels[index]), int(labels[index])

    # In this process: workers would add cores, and hide what a batch costs. Epoch follows epoch: turns may take more than one.
    theirs = chain.from_iterable(repeat(DataLoader(Pictures(), config.batch_size, shuffle=True)))
    preparation = Preparation((32, 32, 3), device, mean, std, Augmentation(4, True))
    part = ResidentImages(pixels, labels, preparation)
    feed, generator, step = BatchFeed(part, config.batch_size, 0), torch.Generator(device), count()

    def ours() -> None:
        feed.load(next(step))
        feed.batch(generator)

    def images_to_device() -> None:
        for tensor in next(theirs):
            tensor.to(device)

    works = {"torchvision, DataLoader": images_to_device, "darts_lite": ours}
    arms = [partial(nullcontext, Arm(name, {"batch": work}, device)) for name, work in works.items()]
    times = [one for one, _ in _turns(request, arms)]
    found = {"arms": {one.name: _figures(one, config.batch_size, HALF) for one in times}, "ratios": _ratios(times)}
    return found, _table(found)


def growth(request: Request) -> Found:
    """Time and memory of our search step against its size; of a straight line, `fit` (R squared) is 1."""
    config, device, precision = request.config, request.device, request.precision
    found: dict[str, Any] = {}
    lines = []
    for key, values in GROWTH.items():
        seconds, peaks = [], []
        for value in values:
            names = SpaceConfig().candidates
            space = replace(request.search.space, candidates=names[-value:])
            changed = replace(request.search, **({"space": space} if key == "operations" else {key: value}))
            with Hired(ours_search, changed, str(device), precision) as arm:
                times = measured(arm, steps=config.steps, warm_up=config.warm_up)
                seconds.append(times.median())
                peaks.append(arm.facts()["peak_memory_bytes"])
            request.report.line(f"{key} {value}: {seconds[-1]:.3f} s a step, {peaks[-1] / 2**20:,.0f} MiB")
        fit = float(np.corrcoef(values, seconds)[0, 1] ** 2)
        found[key] = {"values": list(values), "seconds": seconds, "peak_memory_bytes": peaks, "fit": fit}
        lines.append(f"{key:<12} R squared of a straight line through the seconds: {fit:.4f}")
    return {"growth": found}, lines


def gate(request: Request) -> Found:
    """Correctness, on the digits and the CPU, with a small supernet."""
    settings = request.search
    small = replace(settings, cells=min(3, settings.cells), channels=min(4, settings.channels), alpha_lr=0.01)
    found = gates.gate(small, data.load(DatasetConfig()), steps=request.config.gate_steps)
    lines = [f"{name:<28} {value}" for name, value in found.items()]
    return {"gate": found}, lines


MODES: dict[str, Callable[..., Found]] = {
    "search": search,
    "search_second_order": partial(search, solver="unrolled"),
    "retrain": retrain,
    "data": loading,
    "growth": growth,
    "gate": gate,
}


def _compare(request: Request, reference: Maker, ours: Maker, settings: Settings, least: Least, epoch: int) -> Found:
    """The reference as published and at its best, and ours. `epoch`: images of an epoch."""
    config, device, place = request.config, request.device, str(request.device)
    hire = [
        partial(Hired, reference, settings, place, "fp32", False),
        partial(Hired, reference, settings, place, request.precision, True),
        partial(Hired, ours, settings, place, request.precision),
    ]
    rates = machine(device, request.precision)

    found_of_arms = _turns(request, hire)
    floor = least.seconds(config.batch_size, request.precision, rates)
    found = {
        "arms": {
            one.name: _figures(one, config.batch_size, epoch) | known | {"times_the_floor": one.median() / floor}
            for one, known in found_of_arms
        },
        "ratios": _ratios([one for one, _ in found_of_arms]),
        "macs_an_image": least.macs,
        "numbers_an_image": least.numbers,
        "floor_seconds": floor,
        "machine": rates,
    }
    return found, _table(found)


def _turns(request: Request, hire: Sequence[Callable[[], Any]]) -> list[tuple[Times, dict[str, Any]]]:
    """Times and facts of arms that take turns, as the configuration says."""
    config = request.config

    def shown(done: int, total: int) -> None:
        request.report.progress(done, total, "")

    return take_turns(hire, turns=config.turns, steps=config.steps, warm_up=config.warm_up, progress=shown)


def _figures(arm: Times, batch_size: int, epoch: int) -> dict[str, Any]:
    totals = arm.totals()
    return {
        "seconds": {name: arm.median(name) for name in arm.seconds} | {"step": arm.median()},
        "spread": [min(totals), max(totals)],
        "cold_seconds": arm.cold,
        "images_per_second": batch_size / arm.median(),
        "seconds_an_epoch": epoch / batch_size * arm.median(),
    }


def _ratios(arms: list[Times]) -> dict[str, float]:
    """Arm -> its median seconds divided by those of the last arm, ours."""
    return {arm.name: arm.median() / arms[-1].median() for arm in arms[:-1]}


def _table(found: dict[str, Any]) -> list[str]:
    lines = [f"{'':<26}{'step':>10}{'spread':>18}{'images/s':>10}{'peak':>11}  parts"]
    for name, arm in found["arms"].items():
        step, (low, high) = arm["seconds"]["step"], arm["spread"]
        parts = ", ".join(f"{key} {1000 * value:,.0f} ms" for key, value in arm["seconds"].items() if key != "step")
        peak = f"{arm['peak_memory_bytes'] / 2**20:,.0f} MiB" if "peak_memory_bytes" in arm else ""
        spread = f"{1000 * low:,.0f}-{1000 * high:,.0f}"
        lines.append(
            f"{name:<26}{1000 * step:>7,.0f} ms{spread:>18}{arm['images_per_second']:>10,.1f}{peak:>11}  {parts}"
        )
    cold = ", ".join(f"{name} {arm['cold_seconds']:.1f} s" for name, arm in found["arms"].items())
    return [
        *lines,
        f"first step: {cold}",
        *(f"{ratio:.2f} times as fast as: {name}" for name, ratio in found["ratios"].items()),
    ]
