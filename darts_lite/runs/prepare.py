"""Preparation of a training: settings, device and data are checked in this order, and nothing is made on the way."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

import numpy as np
import torch

from darts_lite import data
from darts_lite.data import arrays
from darts_lite.data.arrays import Arrays
from darts_lite.data.augmentation import Augmentation
from darts_lite.data.dataset import Dataset, in_words, remarks
from darts_lite.data.parts import BatchFeed, Preparation, ResidentImages
from darts_lite.data.splits import permuted, split
from darts_lite.data.stream import Stream, image_source
from darts_lite.errors import Exit, UserError
from darts_lite.hardware.device import keep_freed_memory, resolve_device, run_settings, using_threads
from darts_lite.hardware.machine import cores, threads_are_given
from darts_lite.hardware.precision import resolve_precision
from darts_lite.methods.build import build_method, completed
from darts_lite.methods.method import said
from darts_lite.runs.debug import reduced
from darts_lite.runs.report import Plain, Reporter
from darts_lite.runs.resume import Config, find_moved, given_keys, resolve
from darts_lite.seeds import derive
from darts_lite.settings.configs import SearchConfig
from darts_lite.settings.datasets import DatasetConfig
from darts_lite.settings.pace import pace_words
from darts_lite.spaces.cell import no_kernels
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.stem import choose
from darts_lite.storage import environment
from darts_lite.storage.files import read_json
from darts_lite.storage.run_folder import RunFolder

PERMUTED = "control=permuted_labels: the validation half's labels are permuted, so the architecture has no signal to learn from"


@dataclass(frozen=True)
class RunPlan(Generic[Config]):
    """A training that may start: what it is, what it learns from, where it computes and goes on."""

    verb: str
    config: Config  # as stored, where a run is resumed
    folder: Path | None  # of the run to go on with
    finished: bool  # and nothing is left to do there
    device: torch.device
    precision: str
    dataset: Dataset
    environment: dict[str, Any]
    report: Reporter

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, torch has the threads and the settings of this run; afterwards those that it had."""
        with using_threads(self.environment["threads"]), run_settings(self.device, self.config.deterministic):
            yield

    def part(
        self, images: Any, labels: Any, *, augmented: bool, alternating_flip: bool = False
    ) -> ResidentImages | Stream:
        """Images and labels on the device, or streamed to it."""
        source, data = self.config.dataset, self.dataset
        varied = Augmentation(
            crop_padding=source.crop_padding,
            flip=source.flip,
            cutout=self.config.cutout,
            resized=source.crop == "resized",
            alternating=alternating_flip,
            color_jitter=source.color_jitter,
        )
        how = varied if augmented else None
        preparation = Preparation(images.shape[1:], self.device, data.mean, data.std, how)
        part = image_source(images, labels, preparation, source, self.report.warning)
        if source.storage == "auto" and isinstance(part, Stream):
            where = "in memory" if self.device.type == "cpu" else f"on {self.device}"
            size = f"{len(part):,} images, {images.nbytes / 1e9:.1f} GB"
            self.report.line(f"{size}: too many to keep {where}, so they are streamed (workers: {part.workers})")
        return part

    def halves(self) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Images and labels that the weights and the alphas of a search learn from; the test part is not touched.

        Without a validation part of the user's own they are two disjoint parts of the training images. A search with
        control=permuted_labels has the labels of the second half in another order.
        """
        data = self.dataset
        if data.x_val is not None:
            weights, alphas = (data.x_train, data.y_train), (data.x_val, data.y_val)
        else:
            fraction = self.config.train_fraction
            assert fraction is not None  # a retraining without one learns from everything, see `learned_and_judging`
            places = split(data.y_train, fraction, self.config.seed)
            weights, alphas = ((data.x_train[half], data.y_train[half]) for half in places)
        if isinstance(self.config, SearchConfig) and self.config.control == "permuted_labels":
            alphas = alphas[0], permuted(np.asarray(alphas[1]), self.config.seed)
        return weights, alphas

    def feed(self, images: Any, labels: Any, name: str, *, alternating_flip: bool = False) -> BatchFeed:
        """Augmented batches of images and labels, in an order of seed and `name`: with one order, two halves would be paired alike."""
        part = self.part(images, labels, augmented=True, alternating_flip=alternating_flip)
        return BatchFeed(part, self.config.batch_size, derive(self.config.seed, name))

    def learned_and_judging(self) -> tuple[tuple[Any, Any], dict[str, tuple[Any, Any]]]:
        """Images and labels that a retraining learns from, and those that judge it, by name; the last one is what is reported.

        All of the training part, halves of the search included, a validation part of the user's own, and the test part, which is looked at
        once, at the end; or, with a `train_fraction`, what the search has, and the test part is not touched.
        """
        data = self.dataset
        if self.config.train_fraction is None:
            validation = {} if data.x_val is None else {"validation": (data.x_val, data.y_val)}
            return (data.x_train, data.y_train), {**validation, "test": (data.x_test, data.y_test)}
        learned, judging = self.halves()
        if not len(judging[1]):
            fix = "use more images of each class"
            raise UserError("dataset", "no image is left for validation", fix, code=Exit.DATA)
        return learned, {"validation": judging}

    def skeleton(self) -> Skeleton:
        """Skeleton of the network: all that is around the cells, for this data."""
        config, dataset = self.config, self.dataset
        reductions = None if config.reductions is None else tuple(config.reductions)
        skeleton = Skeleton(
            config.cells,
            config.channels,
            dataset.classes,
            dataset.channels,
            dataset.image_size,
            reductions,
            stem=choose(config.stem, dataset.image_size),
        )
        height, width = skeleton.sizes()[-1]
        if config.batch_size * height * width < 2:
            raise UserError(
                "batch_size", "BatchNorm needs two values a channel", "use at least 2", value=config.batch_size
            )
        return skeleton

    def stored_result(self) -> dict[str, Any]:
        """Result of a finished run, from its result.json."""
        assert self.folder is not None
        return read_json(self.folder / "result.json")

    def open(self) -> tuple[RunFolder, dict[str, Any] | None]:
        """The held run folder, new or the one to go on with, and the checkpoint to start from."""
        if self.folder is None:
            run = RunFolder.create(
                self.verb, self.dataset.name, self.config.run_dir, self.config, self.environment, self.report.warning
            )
            return run, None
        run = RunFolder.reopen(self.folder, self.report.warning)
        return run, run.load(self.report.warning)


def prepare(
    verb: str,
    config: Config,
    typed_keys: Collection[str] | None,
    report: Reporter | None,
    dataset: Dataset | Arrays | None = None,
) -> RunPlan[Config]:
    """The plan of a run, once everything is checked that can be without the run folder. Raises UserError (2, 3, 4, 6, 7).

    `dataset`: images and labels of a Python program; or, for a child, what its parent run has loaded and said.
    """
    report = report or Plain()
    config = completed(config)
    given = dataset if isinstance(dataset, Arrays) else None
    parents = dataset if isinstance(dataset, Dataset) else None
    if given is not None and config.dataset.name == DatasetConfig().name:
        config = replace(config, dataset=replace(config.dataset, name=arrays.NAME))
    resolution = resolve(verb, config, typed_keys)
    for notice in resolution.notices:
        report.line(notice)
    config = resolution.config
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    keep_freed_memory(device)
    if device.type == "cuda" and (why := no_kernels("cuda")):
        slow = "torch's own operators compute the cells, at a fraction of the speed"
        report.line(f"{why}, so {slow}; fix: install triton, and a C compiler")
    fresh = parents is None
    loaded: Dataset = parents or data.load(config.dataset, given)
    if config.resume == "auto" and resolution.folder is None:
        resolution = find_moved(verb, config, loaded.fingerprint)
        config = resolution.config
        for notice in resolution.notices:
            report.line(notice)
    kind, size = ("preset", config.preset) if isinstance(config, SearchConfig) else ("recipe", config.recipe)
    trial = size == "quick" and config.experiment is None  # an experiment's size was chosen for its data
    if trial and config.dataset.name != "digits" and resolution.folder is None and fresh:
        report.line(f"the quick {kind} is a trial: good enough for digits, not for {config.dataset.name}")
    if fresh and resolution.folder is None:
        for line in (in_words(loaded), *remarks(loaded), *_stem_words(config, loaded)):
            report.line(line)
    facts = environment.describe(device, loaded.fingerprint, loaded.source)
    facts["threads"] = threads = _threads(resolution.folder, facts["threads"])
    if threads != torch.get_num_threads() and not resolution.finished:
        report.line(f"threads: {threads}, as the run began, instead of {torch.get_num_threads()}")
    if fresh and loaded.x_val is not None and verb == "search" and "train_fraction" in given_keys(config, typed_keys):
        report.line("train_fraction is not used: this data has a validation part")
    config, loaded = reduced(config, loaded)
    if fresh and resolution.folder is None:
        for line in _search_words(config, loaded):
            report.line(line)
    if resolution.finished:
        report.line(f"already finished: {resolution.folder}")
    return RunPlan(verb, config, resolution.folder, resolution.finished, device, precision, loaded, facts, report)


def _search_words(config: Config, dataset: Dataset) -> list[str]:
    """Lines on how many steps a search makes, and how far they move the architecture."""
    if not isinstance(config, SearchConfig):
        return []
    said_first = [] if config.control is None else [PERMUTED]
    if not said(build_method(config).relaxation, "learns"):
        return said_first
    half = dataset.y_train
    images = len(half if dataset.y_val is not None else split(half, config.train_fraction, config.seed)[0])
    return said_first + pace_words(config, images, max(1, images // config.batch_size))


def _stem_words(config: Config, dataset: Dataset) -> list[str]:
    """A line where the stem that is chosen by itself makes images much smaller."""
    if config.stem != "auto" or choose("auto", dataset.image_size) != "imagenet":
        return []
    height, width = dataset.image_size
    return [f"images of {width}x{height}: the imagenet stem makes an eighth of that; stem=cifar keeps every pixel"]


def _threads(folder: Path | None, here: int) -> int:
    """Threads that a run began with, since with others its sums are rounded otherwise; `here`, where the user has said how many, or the
    machine lacks them.
    """
    began: Any = None if folder is None or threads_are_given() else read_json(folder / "env.json").get("threads")
    return began if type(began) is int and 1 <= began <= cores() else here
