"""What every training needs before it starts: settings, device, data, checked in this order, and nothing made on the way."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from darts_lite import data, settings
from darts_lite.data.augmentation import Augmentation
from darts_lite.data.dataset import Dataset
from darts_lite.data.parts import Part
from darts_lite.engine import environment
from darts_lite.engine.debug import reduced
from darts_lite.engine.device import resolve_device, resolve_precision
from darts_lite.engine.files import read_json
from darts_lite.engine.folder import RunFolder
from darts_lite.engine.report import Plain
from darts_lite.engine.resume import resolve
from darts_lite.errors import UserError
from darts_lite.spaces.network import Skeleton


@dataclass(frozen=True)
class Prepared:
    """A training that may start."""

    verb: str
    config: Any  # as stored, where a run is resumed
    folder: Path | None  # of the run to go on with
    finished: bool  # and nothing is left to do there
    device: torch.device
    precision: str
    dataset: Dataset
    environment: dict[str, Any]
    report: Any

    def part(self, images: Any, labels: Any, *, augmented: bool) -> Part:
        """Images and labels on the device."""
        source = self.config.dataset
        augmentation = Augmentation(source.crop_padding, source.flip, self.config.cutout) if augmented else None
        return Part(images, labels, self.device, self.dataset.mean, self.dataset.std, augmentation)

    def skeleton(self) -> Skeleton:
        """What is around the cells, for this data."""
        config, dataset = self.config, self.dataset
        reductions = None if config.reductions is None else tuple(config.reductions)
        skeleton = Skeleton(
            config.cells, config.channels, dataset.classes, dataset.channels, dataset.image_size, reductions
        )
        height, width = skeleton.sizes()[-1]
        if config.batch_size * height * width < 2:
            raise UserError(
                "batch_size", "BatchNorm needs two values a channel", "use at least 2", value=config.batch_size
            )
        return skeleton

    def stored_result(self) -> dict[str, Any]:
        """What a finished run has found."""
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


def prepare(verb: str, config: Any, typed: Collection[str] | None, report: Any) -> Prepared:
    """Check everything that can be checked without the run folder. Raises UserError (2, 3, 4, 6, 7)."""
    report = report or Plain()
    settings.check(config)
    resolution = resolve(verb, config, typed)
    for notice in resolution.notices:
        report.line(notice)
    config = resolution.config
    size = getattr(config, "preset", None) or getattr(config, "recipe", None)
    if size == "quick" and config.dataset.name != "digits" and resolution.folder is None:
        report.line(
            f"the quick {'preset' if verb == 'search' else 'recipe'} is a trial: good enough for digits, not for {config.dataset.name}"
        )
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    dataset = data.load(config.dataset)
    facts = environment.describe(device, dataset.fingerprint)
    config, dataset = reduced(config, dataset)
    if resolution.finished:
        report.line(f"already finished: {resolution.folder}")
    return Prepared(verb, config, resolution.folder, resolution.finished, device, precision, dataset, facts, report)
