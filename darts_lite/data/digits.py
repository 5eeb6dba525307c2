"""The bundled default: 1,797 real handwritten digits, 8x8 grey levels (UCI, CC BY 4.0, see digits.LICENSE.txt).

digits.npz holds `images` uint8 (1797, 8, 8) with the published values 0 to 16, `labels` uint8 (1797,) and `test` uint16
(360,): the sorted indices of the test part, drawn once, class by class (35 to 37 each), independent of every seed.
"""

import hashlib
import io
from pathlib import Path

import numpy as np

from darts_lite.data.dataset import Dataset, assemble
from darts_lite.data.files import data_error
from darts_lite.settings.datasets import DatasetConfig

FILE = Path(__file__).with_name("digits.npz")
SHA256 = "b31f909ce1dd66888e58ee2e4beaad557a785dc9fc256c57fac4ccdb356005dd"


def load(config: DatasetConfig) -> Dataset:
    """1,437 training and 360 test images (8, 8, 1); v becomes 255 v / 16, rounded half up: 0, 16, ..., 255."""
    try:
        content = FILE.read_bytes()
    except OSError as error:
        raise data_error(FILE, f"cannot be read ({error.strerror})", "reinstall darts_lite") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise data_error(FILE, "the file is damaged: its hash is wrong", "reinstall darts_lite")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        raw, labels, test = file["images"], file["labels"], file["test"]
    images = ((raw.astype(np.uint16) * 255 + 8) // 16).astype(np.uint8)
    train = np.setdiff1d(np.arange(len(images)), test)
    arrays = {"x_train": images[train], "y_train": labels[train], "x_test": images[test], "y_test": labels[test]}
    return assemble("digits", arrays, config, where=str(FILE))
