"""A data set: uint8 images and integer labels of its parts, with the checks that every source shares. Nothing here needs torch."""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from darts_lite.data.images import Files, Images
from darts_lite.data.splits import split
from darts_lite.errors import Exit, UserError, all_of, printable
from darts_lite.options import DatasetConfig

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_val", "y_val")  # a validation part of the user's own; both or none
LARGEST_LABEL = 99_999  # a guard: labels beyond are identifiers of something; ImageNet-21k has 21,841 classes
MEASURED = 2000  # decoded files whose pixels give mean and std, evenly spaced
_CHUNK = 1 << 22  # pixels counted at once: bounds the temporary int64 copy to 32 MB


Some = TypeVar("Some", np.ndarray, Files)


class Form(Protocol):
    """What is known of an array before it is read: an ndarray has it, the header of a file too."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...


@dataclass(frozen=True)
class Dataset:
    """Images `x` uint8 (N, H, W, C), labels `y` int64 (N,); mean and std of each channel, of pixels in [0, 1].

    `x_test` is for the final evaluation only. The alphas of a search learn from `x_val`; without it, both halves are cut from `x_train`.
    """

    name: str
    x_train: Images
    y_train: np.ndarray
    x_test: Images
    y_test: np.ndarray
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    x_val: Images | None = None
    y_val: np.ndarray | None = None
    whole: str | None = None  # what a fraction was taken of, see `source`; None: all of the data is used

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return self.x_train.shape[3]

    @property
    def image_size(self) -> tuple[int, int]:
        return self.x_train.shape[1], self.x_train.shape[2]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over dtype, shape and bytes of the arrays that are used: equal data in another place has the same one."""
        return _fingerprint({name: getattr(self, name) for name in (*ARRAYS, *OPTIONAL)})

    @property
    def source(self) -> str:
        """The same with every `dataset.fraction`: what runs on parts of the same data have in common."""
        return self.whole or self.fingerprint


def in_words(dataset: Dataset) -> str:
    """`image_folder: 5,000 training and 1,000 test images of 32x32x3, 10 classes (airplane, automobile, bird, ...)`."""
    size = "x".join(str(number) for number in (*dataset.image_size, dataset.channels))
    validation = "" if dataset.x_val is None else f", {len(dataset.x_val):,} validation"
    counts = f"{len(dataset.x_train):,} training{validation} and {len(dataset.x_test):,} test images"
    names = [printable(name) for name in dataset.class_names[:3]] + ["..."] * (dataset.classes > 3)
    numbered = all(name.isdecimal() for name in dataset.class_names)
    return f"{dataset.name}: {counts} of {size}, {dataset.classes} classes" + f" ({', '.join(names)})" * (not numbered)


def parts_of(names: Collection[str]) -> list[str]:
    """`train`, `test` and, where there is one, `val`."""
    return ["train", "test", *(["val"] if OPTIONAL[0] in names else [])]


def check_forms(forms: Mapping[str, Form], where: str) -> None:
    """Whether the arrays fit together, from dtype and shape alone. Raises UserError (DATA) with every problem."""
    found: list[UserError] = []

    def wrong(name: str, reason: str, fix: str, value: object) -> None:
        found.append(UserError(f"{where}:{name}", reason, fix, value=value, code=Exit.DATA))

    for part in parts_of(forms):
        x, y = forms[f"x_{part}"], forms[f"y_{part}"]
        if x.dtype != np.uint8:
            wrong(f"x_{part}", "images must be uint8", "store pixels 0 to 255 as uint8", str(x.dtype))
        if len(x.shape) not in (3, 4):
            wrong(f"x_{part}", "images must be (N, H, W) or (N, H, W, C)", "reshape them", x.shape)
        elif 0 in x.shape:
            wrong(f"x_{part}", "there is no image", "store at least one image in each part", x.shape)
        elif len(x.shape) == 4 and x.shape[1] in (1, 3) and x.shape[2] == x.shape[3] > 4:
            # A height of 3 beside 32 channels would train without complaint, on images read the wrong way round.
            wrong(f"x_{part}", "channels come first", "store (N, H, W, C): x.transpose(0, 2, 3, 1)", x.shape)
        if y.dtype.kind not in "iu":
            wrong(f"y_{part}", "labels must be integers", "store class numbers 0, 1, 2, ... as int64", str(y.dtype))
        if len(y.shape) != 1:
            wrong(f"y_{part}", "labels must be (N,), one number an image", "store class numbers, not one-hot", y.shape)
        elif x.shape[:1] != y.shape:
            reason = f"x_{part} has {x.shape[0] if x.shape else 'no'} images, this another number of labels"
            wrong(f"y_{part}", reason, "store one label an image", y.shape[0])
    for part in parts_of(forms)[1:] if not found else ():
        if _image_shape(forms["x_train"]) != _image_shape(forms[f"x_{part}"]):
            reason = f"images of x_train are {_image_shape(forms['x_train'])} (H, W, C), these are not"
            wrong(f"x_{part}", reason, "bring all parts to one size", _image_shape(forms[f"x_{part}"]))
    error = all_of(found)
    if error:
        raise error


def check_labels(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Whether labels lie in 0..the largest of `y_train`, and are not all equal. Raises UserError (DATA)."""
    y_train = arrays["y_train"]
    low, high = int(y_train.min()), int(y_train.max())
    if low < 0:
        raise _label_error(where, "y_train", y_train, low, "is negative", "number the classes from 0")
    if high > LARGEST_LABEL:
        raise _label_error(where, "y_train", y_train, high, f"is above {LARGEST_LABEL}", "number the classes from 0")
    if low == high:
        reason = "every image has the same label: nothing can be learned"
        raise UserError(f"{where}:y_train", reason, "use data of at least two classes", value=low, code=Exit.DATA)
    for name in (f"y_{part}" for part in parts_of(arrays)[1:]):
        for label in (int(arrays[name].min()), int(arrays[name].max())):
            if not 0 <= label <= high:
                reason, fix = (
                    f"is outside 0..{high}, the classes of y_train",
                    "remove such images or train on their class too",
                )
                raise _label_error(where, name, arrays[name], label, reason, fix)


def assemble(
    name: str,
    arrays: Mapping[str, Any],
    config: DatasetConfig,
    where: str,
    class_names: Sequence[str] | None = None,
    whole: str | None = None,
) -> Dataset:
    """Check the arrays, bring them to one form and measure the channels, or take mean and std from `config`.

    `where` names the source in errors. Classes = 1 + the largest label of `y_train`; one without an image is allowed.
    `whole`: see Dataset, where a fraction has been taken already.
    """
    check_forms(arrays, where)
    check_labels(arrays, where)
    made: dict[str, Any] = {}
    for part in parts_of(arrays):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        made |= {f"x_{part}": x[..., None] if len(x.shape) == 3 else x, f"y_{part}": y.astype(np.int64)}
    if class_names is None:
        class_names = [str(label) for label in range(int(made["y_train"].max()) + 1)]
    if whole is None and config.fraction < 1:
        whole = _fingerprint(made)
    x_train, made["y_train"] = fraction_of(made["x_train"], made["y_train"], config.fraction)
    made["x_train"] = x_train
    mean, std = given_statistics(config, x_train.shape[3]) or channel_statistics(x_train)
    return Dataset(name, class_names=tuple(class_names), mean=mean, std=std, whole=whole, **made)


def fraction_of(images: Some, labels: np.ndarray, fraction: float) -> tuple[Some, np.ndarray]:
    """That fraction of each class, at least one image. Drawn without the run's seed, so that every run of a study sees the same images."""
    if fraction == 1:
        return images, labels
    kept, _ = split(labels, fraction, seed=0)
    return images[kept], labels[kept]


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and (population) standard deviation of each channel of uint8 (N, H, W, C), of pixels in [0, 1].

    The 256 values are counted and summed as integers: exact, so the same on every machine and thread count. A constant
    channel gets std 1: without its mean it is zero, and dividing by its true std would be 0/0. Of `Files` every k-th is measured, at most
    2,000, decoded or not: where the images wait must not change the result.
    """
    if isinstance(images, Files):
        images = np.asarray(images[:: -(-len(images) // MEASURED)])
    mean, std = [], []
    for channel in range(images.shape[3]):
        counts = np.zeros(256, np.int64)
        rows = max(1, _CHUNK // (images.shape[1] * images.shape[2]))
        for start in range(0, len(images), rows):
            counts += np.bincount(images[start : start + rows, ..., channel].ravel(), minlength=256)
        number = sum(counts.tolist())
        total = sum(value * count for value, count in enumerate(counts.tolist()))
        squares = sum(value * value * count for value, count in enumerate(counts.tolist()))
        mean.append(total / (255 * number))
        std.append(math.sqrt(number * squares - total * total) / (255 * number) or 1.0)
    return tuple(mean), tuple(std)


def given_statistics(config: DatasetConfig, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """`dataset.mean` and `dataset.std`, or None when they are to be measured. Raises UserError (CONFIGURATION)."""
    if config.mean is None or config.std is None:
        return None
    for key, values in (("dataset.mean", config.mean), ("dataset.std", config.std)):
        if len(values) != channels:
            raise UserError(key, f"the images have {channels} channels", f"give {channels} numbers", value=list(values))
    for value in config.mean:
        if not 0 <= value <= 1:  # NaN fails too
            raise UserError("dataset.mean", "pixels lie in [0, 1]", "divide by 255", value=value)
    for value in config.std:
        if not 1e-6 <= value < math.inf:
            raise UserError(
                "dataset.std", "must be finite, at least 1e-6", "use 1.0 for a constant channel", value=value
            )
    return tuple(map(float, config.mean)), tuple(map(float, config.std))


def _fingerprint(arrays: Mapping[str, Images | None]) -> str:
    digest = hashlib.sha256()
    for name in (*ARRAYS, *OPTIONAL):
        array = arrays.get(name)
        if isinstance(array, Files):
            array.identify(digest)
        elif array is not None:
            array = np.ascontiguousarray(array)
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.data)
    return digest.hexdigest()


def _image_shape(form: Form) -> tuple[int, ...]:
    return (*form.shape[1:], 1) if len(form.shape) == 3 else tuple(form.shape[1:])


def _label_error(where: str, name: str, labels: np.ndarray, label: int, reason: str, fix: str) -> UserError:
    position = int(np.flatnonzero(labels == label)[0])
    return UserError(f"{where}:{name}", f"label {label} at index {position} {reason}", fix, code=Exit.DATA)
