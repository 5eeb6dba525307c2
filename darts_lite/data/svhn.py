"""SVHN, cropped house numbers (Netzer et al. 2011): 32x32 colour images of a digit, 73,257 to train and 26,032 to test.

The files are MATLAB's, which scipy reads (extra `svhn`). Its reader is compiled code that was not made for hostile files, so
the MD5 sum is compared first.
"""

import io
from pathlib import Path

import numpy as np

from darts_lite.data.dataset import Dataset
from darts_lite.data.fetch import AGAIN, contents, load_published
from darts_lite.data.files import damage
from darts_lite.data.published import File
from darts_lite.errors import Exit, UserError
from darts_lite.settings.datasets import DatasetConfig


def load(config: DatasetConfig) -> Dataset:
    """Images uint8 (N, 32, 32, 3). Raises UserError: DATA for the files, ENVIRONMENT for their download or without scipy."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        reason = f"dataset=svhn needs scipy, which cannot be imported ({error})"
        raise UserError("scipy", reason, "python -m pip install scipy", code=Exit.ENVIRONMENT) from error

    def read(path: Path, file: File) -> dict[str, np.ndarray]:
        content = contents(path, file)
        with damage(path, AGAIN):
            stored = loadmat(io.BytesIO(content), variable_names=["X", "y"])
            images, labels = stored["X"].transpose(3, 0, 1, 2), stored["y"].reshape(-1).astype(np.int64)
            if labels.min(initial=1) < 1 or labels.max(initial=1) > 10:
                raise ValueError("a label is outside 1..10")
        # The digit 0 has the label 10.
        return {f"x_{file.holds}": np.ascontiguousarray(images), f"y_{file.holds}": labels % 10}

    return load_published(config, read)
