"""Images and labels that a Python program has already: `search(config, dataset=Arrays(...))`; `from_torch` makes them of torch's data sets.

They are checked as those of an .npz file are. How they are varied is a setting: `SearchConfig(dataset=DatasetConfig(flip=True))`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from darts_lite.data.dataset import ARRAYS, OPTIONAL, Dataset, assemble, check_class_names
from darts_lite.data.files import data_error
from darts_lite.data.images import MODES, fitted
from darts_lite.settings.datasets import DatasetConfig

NAME = "arrays"  # of such a data set in configurations, results and paths


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images uint8 (N, H, W) or (N, H, W, C), labels integers (N,) or (N, 1); `class_names` in the order of the labels 0, 1, 2, ...

    Without `class_names` the classes are the labels that occur in `y_train`.
    """

    x_train: Any
    y_train: Any
    x_test: Any
    y_test: Any
    x_val: Any = None  # what the alphas of a search learn from; None: a part of the training images
    y_val: Any = None
    class_names: Sequence[str] | None = None

    def load(self, config: DatasetConfig) -> Dataset:
        """The data set, as `config` says. Raises UserError: DATA, or CONFIGURATION for mean and std."""
        if (self.x_val is None) != (self.y_val is None):
            reason, fix = "x_val and y_val belong together", "give both or neither"
            raise data_error("dataset", reason, fix)
        names = ARRAYS if self.x_val is None else ARRAYS + OPTIONAL
        class_names = None if self.class_names is None else list(self.class_names)
        if class_names is not None:
            check_class_names(class_names, "dataset:class_names")
        arrays = {name: np.asarray(getattr(self, name)) for name in names}
        return assemble(NAME, arrays, config, "dataset", class_names)


def from_torch(train: Any, test: Any, val: Any = None, class_names: Sequence[str] | None = None) -> Arrays:
    """The images and labels of torch data sets, each item (image, label), read once.

    Images are those of Pillow, uint8 tensors (C, H, W) or (H, W), or uint8 arrays (H, W, C) or (H, W). `class_names`: by default the
    training set's `classes`, as torchvision has them. Raises UserError (DATA).
    """
    if class_names is None:
        class_names = getattr(train, "classes", None)  # a Subset, for one, has none
    parts = {"train": train, "test": test} if val is None else {"train": train, "test": test, "val": val}
    arrays: dict[str, Any] = {}
    for part, source in parts.items():
        items = [source[number] for number in range(len(source))]
        images = [_pixels(image, f"dataset:x_{part}[{number}]") for number, (image, _) in enumerate(items)]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            reason = f"images of {len(shapes)} shapes"
            fix = "resize them to one size with a transform"
            raise data_error(f"dataset:x_{part}", reason, fix, value=sorted(shapes)[:3])
        arrays[f"x_{part}"] = np.stack(images) if images else np.zeros((0, 1, 1, 1), np.uint8)
        labels = [_label(label, f"dataset:y_{part}[{number}]") for number, (_, label) in enumerate(items)]
        arrays[f"y_{part}"] = np.array(labels, np.int64)
    return Arrays(**arrays, class_names=class_names)


def from_python(config: DatasetConfig) -> str:
    """Behind a command: that it cannot be typed, because the images were given from Python; empty for other data."""
    return " (from Python, with dataset= the same images)" if config.name == NAME else ""


def _pixels(image: Any, key: str) -> np.ndarray:
    """uint8 (H, W, C)."""
    if isinstance(image, Image.Image):
        if image.mode not in MODES:
            fix = "scale its values to 0..255 and give 8 bits a channel"
            raise data_error(key, "is not an 8-bit image (Pillow's mode)", fix, value=image.mode)
        return fitted(image, 1 if image.mode in ("1", "L", "LA") else 3, None)
    tensor = not isinstance(image, np.ndarray)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        fix = "leave ToTensor and Normalize out of the transform: pixels are uint8 here, and normalized on the device"
        raise data_error(key, "is no uint8 image", fix, value=f"{array.dtype} {array.shape}")
    if array.ndim == 2:
        return array[..., None]
    return array.transpose(1, 2, 0) if tensor else array


def _label(label: Any, key: str) -> int:
    array = np.asarray(label)
    if array.size != 1 or array.dtype.kind not in "iu":
        raise data_error(key, "is no class number", "give integers, not one-hot", value=label)
    return int(array.reshape(()))
