"""The commands that a run names: what to type next, so that it runs as it stands."""

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np

from darts_lite.data import arrays
from darts_lite.data.splits import split
from darts_lite.runs.prepare import RunPlan
from darts_lite.settings import schema
from darts_lite.settings.datasets import DatasetConfig, preset_config
from darts_lite.settings.options import USUAL_BATCH, USUAL_FRACTION


def data_words(config: DatasetConfig) -> str:
    """The words that give the same data on a command line, with a space before each."""
    if config.name == arrays.NAME:
        return arrays.from_python(config)
    words = [] if config.name == DatasetConfig().name else [f"dataset={config.name}"]
    given, chosen = schema.to_plain(config), schema.to_plain(preset_config(config.name))
    for key in given:
        if given[key] != chosen[key] and key != "download":  # what is there need not be downloaded again
            text = given[key] if isinstance(given[key], str) else json.dumps(given[key])
            words.append(f"dataset.{key}={shlex.quote(text)}")
    return "".join(f" {word}" for word in words)


def has_next(plan: RunPlan) -> bool:
    """Whether a command may follow: not after a debug run, which finds and learns nothing, nor on data that no command line names."""
    return plan.config.debug is None and plan.dataset.name == plan.config.dataset.name


def next_retraining(plan: RunPlan, path: Path) -> str | None:
    """The command that retrains what was found in `path`, on all of the data: a part was enough to search."""
    if not has_next(plan):
        return None
    source = plan.config.dataset
    images = least_whole(plan.dataset.y_train, source.fraction)
    words = data_words(replace(source, fraction=1.0)) + _batch_words(images)
    return f"python -m darts_lite.retrain genotype={shlex.quote(str(path))}{words}"


def first_search(plan: RunPlan) -> str:
    """The command that searches on the data of a retraining."""
    dataset = plan.dataset
    parts = split(dataset.y_train, USUAL_FRACTION, 0) if dataset.y_val is None else (dataset.y_train, dataset.y_val)
    return f"python -m darts_lite.search{data_words(plan.config.dataset)}{_batch_words(min(map(len, parts)))}"


def least_whole(labels: np.ndarray, fraction: float) -> int:
    """The least number of images of which `labels` can be a `dataset.fraction`, see `splits.split`."""
    if fraction == 1:
        return len(labels)
    kept = np.unique(labels, return_counts=True)[1].tolist()
    return sum(max(number, math.ceil((number - 0.5) / fraction)) if number > 1 else 1 for number in kept)


def _batch_words(images: int) -> str:
    """The batch size, where it has to be given: a batch is not larger than its part of the data."""
    return f" batch_size={images}" if images < USUAL_BATCH else ""
