"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32x32 photographs, 50,000 to train and 10,000 to test, in pickles of Python 2.

A file is read only when its MD5 sum is the published one, and then nothing in it is executed (pickles.py).
"""

from pathlib import Path

import numpy as np

from darts_lite.data import pickles
from darts_lite.data.dataset import Dataset
from darts_lite.data.fetch import AGAIN, contents, load_published
from darts_lite.data.files import damage
from darts_lite.data.published import File
from darts_lite.settings.datasets import DatasetConfig

LABELS = {"cifar10": "labels", "cifar100": "fine_labels"}


def load(config: DatasetConfig) -> Dataset:
    """Images uint8 (N, 32, 32, 3). Raises UserError: DATA for the files, ENVIRONMENT for their download."""

    def read(path: Path, file: File) -> dict[str, np.ndarray]:
        content = contents(path, file)
        with damage(path, AGAIN):
            batch = pickles.read(content)
            rows, labels = pickles.array(batch["data"]), batch[LABELS[config.name]]
            if not all(type(label) is int for label in labels):
                raise ValueError("a label is no integer")
            images = rows.reshape(len(labels), 3, 32, 32)
        return {
            f"x_{file.holds}": np.ascontiguousarray(images.transpose(0, 2, 3, 1)),
            f"y_{file.holds}": np.array(labels, np.int64),
        }

    return load_published(config, read)
