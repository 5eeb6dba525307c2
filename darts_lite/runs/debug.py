"""Debug runs: the real thing on few images, so that it ends soon and says what is wrong.

    debug=fast      two epochs of three steps: does every part of a run work? Also with seeds= and restarts=
    debug=overfit   one batch, not augmented, again and again: can the network learn at all?
    debug=profile   a dozen steps under torch.profiler: where does the time go? (runs/profile.py)

The status of such a run says so, and `retrain` does not take its genotype for the newest one.
"""

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np

from darts_lite.data.dataset import Dataset
from darts_lite.runs.profile import STEPS
from darts_lite.runs.resume import Config
from darts_lite.settings.configs import SearchConfig

NEAR_ZERO = 0.05  # training loss of a batch that is learned by heart
_CHANGES: dict[str, dict[str, Any]] = {
    "fast": {"epochs": 2, "least_steps": None, "warmup_epochs": 0, "restart_epochs": 1},
    "overfit": {
        "epochs": 60,
        "least_steps": None,
        "warmup_epochs": 0,
        "cutout": 0,
        "drop_path": 0.0,
        "label_smoothing": 0.0,
        "auxiliary_weight": 0.0,
        "weight_decay": 0.0,
        "log_every": 50,
    },
    "profile": {"least_steps": None, "warmup_epochs": 0},
}
_STEPS = {"fast": 3, "overfit": 1, "profile": STEPS}  # of an epoch


def reduced(config: Config, dataset: Dataset) -> tuple[Config, Dataset]:
    """Configuration and data of a debug run; both as they are without `debug`."""
    kind = config.debug
    if kind is None:
        return config, dataset
    names, searches = {field.name for field in fields(config)}, isinstance(config, SearchConfig)
    changes = dict(_CHANGES[kind])
    if kind == "overfit":
        changes["dataset"] = replace(config.dataset, crop="pad", crop_padding=0, flip=False, color_jitter=0.0)
        changes["train_fraction"] = 0.5 if searches else None
    config = replace(config, **{name: changes[name] for name in names & set(changes)})

    # A search cuts the training part into two; the smaller one has to have the batches.
    fraction = config.train_fraction if searches and dataset.x_val is None else None
    fraction = 1.0 if fraction is None else fraction
    least = min(fraction, 1 - fraction or 1.0)
    number = math.ceil(_STEPS[kind] * config.batch_size / least / dataset.classes)
    dataset = first_per_class(dataset, number + number % 2)  # even: halves of one length
    images = len(dataset.y_train)
    if kind == "profile":  # little data has few steps an epoch
        config = replace(config, epochs=math.ceil(STEPS / max(1, int(images * least) // config.batch_size)))
    if kind == "overfit":
        learned = int(images * fraction)
        config = replace(config, batch_size=learned if dataset.y_val is None else min(learned, len(dataset.y_val)))
    return config, dataset


def first_per_class(dataset: Dataset, number: int) -> Dataset:
    """The first `number` images of each class, in every part."""
    kept: dict[str, Any] = {}
    for part in ("train", "val", "test"):
        labels = getattr(dataset, f"y_{part}")
        if labels is not None:
            places = [np.flatnonzero(labels == label)[:number] for label in range(dataset.classes)]
            chosen = np.sort(np.concatenate(places))
            kept |= {f"x_{part}": getattr(dataset, f"x_{part}")[chosen], f"y_{part}": labels[chosen]}
    return replace(dataset, **kept)


def verdict(config: Config, means: dict[str, float]) -> str | None:
    """A line that says whether an overfitting run got there, from the means of its last epoch; None for other runs."""
    if config.debug != "overfit" or "epoch/train/loss" not in means:
        return None
    loss = means["epoch/train/loss"]
    found = (
        "got there: the network can learn" if loss < NEAR_ZERO else "did not get there: look at lr, labels and images"
    )
    return f"overfit: loss {loss:.4f} on one batch of {config.batch_size} after {config.epochs} steps; {found}"
