"""A data set: uint8 images and integer labels of its parts, with the checks that every source shares. Nothing here needs torch."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from darts_lite.data.files import data_error
from darts_lite.data.images import Files, Images
from darts_lite.data.splits import split
from darts_lite.data.statistics import channel_statistics, given_statistics
from darts_lite.errors import UserError, printable, raise_all
from darts_lite.settings.datasets import DatasetConfig

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_val", "y_val")  # a validation part of the user's own; both or none
LARGEST_LABEL = 99_999  # a guard: labels beyond are identifiers of something; ImageNet-21k has 21,841 classes
WORDS = {"train": "training", "val": "validation", "test": "test"}
NO_OTHER_NAMES: Mapping[str, str] = {}
CHANNELS = 4  # images have no more; where an axis of an array is longer, it counts rows or columns


Some = TypeVar("Some", np.ndarray, Files)


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
        """SHA-256 of the data before `dataset.fraction` was applied: equal for runs on different fractions of it."""
        return self.whole or self.fingerprint


def in_words(dataset: Dataset) -> str:
    """`image_folder: 5,000 training and 1,000 test images of 32x24 with 3 channels, 10 classes (airplane, automobile, bird, ...)`.

    Width x height, as everywhere.
    """
    size = size_in_words((*dataset.image_size, dataset.channels))
    validation = "" if dataset.x_val is None else f", {len(dataset.x_val):,} validation"
    counts = f"{len(dataset.x_train):,} training{validation} and {len(dataset.x_test):,} test images"
    names = [printable(name) for name in dataset.class_names[:3]] + ["..."] * (dataset.classes > 3)
    listed = f" ({', '.join(names)})" * (not _are_numbers(dataset.class_names))
    return f"{dataset.name}: {counts} of {size}, {dataset.classes} classes{listed}"


def remarks(dataset: Dataset) -> list[str]:
    """Lines about what is easily misread: classes whose names are numbers, but not 0, 1, 2, ..., and parts that lack a class."""
    names, lines = dataset.class_names, []
    if _are_numbers(names) and names != tuple(map(str, range(len(names)))):
        lines.append(f"{dataset.name}: the names of the classes are numbers, in this order: {_few(names, 20)}")
    for part in parts_of([name for name in OPTIONAL if getattr(dataset, name) is not None]):
        counts = np.bincount(getattr(dataset, f"y_{part}"), minlength=dataset.classes)
        missing = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
        if missing:
            lines.append(f"{dataset.name}: the {WORDS[part]} part has no image of {_few(missing, 10)}")
    return lines


def size_in_words(shape: Sequence[int]) -> str:
    """`32x24 with 3 channels`, width x height, of an image's shape (H, W, C)."""
    height, width, channels = shape
    return f"{width}x{height} with {channels} channel{'' if channels == 1 else 's'}"


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in names)


def _few(names: Sequence[str], number: int) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(printable(name) for name in names[:number]) + more


def parts_of(names: Collection[str]) -> list[str]:
    """`train`, `test` and, where there is one, `val`."""
    return ["train", "test", *(["val"] if OPTIONAL[0] in names else [])]


def channel_order(shape: Sequence[int]) -> str | None:
    """`last` where an image's shape is (H, W, C), `first` where it is (C, H, W), None where it may be either.

    Of the two readings the one with at most 4 channels is meant; where that leaves both or none, the one whose image is square; then,
    with more than 4 channels, the one whose channels are the shortest axis.
    """
    first, middle, last = shape
    if (first <= CHANNELS) != (last <= CHANNELS):
        return "last" if last <= CHANNELS else "first"
    if (first == middle) != (middle == last):
        return "last" if first == middle else "first"
    if first > CHANNELS and min(first, last) < middle and first != last:
        return "last" if last < first else "first"
    return None


def check_forms(forms: Mapping[str, Images], where: str, called: Mapping[str, str] = NO_OTHER_NAMES) -> None:
    """Whether the arrays fit together, from dtype and shape alone. Raises UserError (DATA) with every problem.

    `called`: what the source calls the arrays, where that is not x_train and so on.
    """
    found: list[UserError] = []

    def key(name: str) -> str:
        return f"{where}:{called.get(name, name)}"

    def wrong(name: str, reason: str, fix: str, value: object) -> None:
        found.append(data_error(key(name), reason, fix, value=value))

    for part in parts_of(forms):
        x, y = forms[f"x_{part}"], forms[f"y_{part}"]
        if x.dtype != np.uint8:
            wrong(f"x_{part}", "images must be uint8", "store pixels 0 to 255 as uint8", str(x.dtype))
        if len(x.shape) not in (3, 4):
            wrong(f"x_{part}", "images must be (N, H, W) or (N, H, W, C)", "reshape them", x.shape)
        elif 0 in x.shape:
            wrong(f"x_{part}", "there is no image", "store at least one image in each part", x.shape)
        elif len(x.shape) == 4 and not isinstance(x, Files):  # decoded files have their channels last
            # A height of 3 beside 32 channels would train without complaint, on images read the wrong way round.
            order = channel_order(x.shape[1:])
            if order == "first":
                wrong(f"x_{part}", "channels come first", "store (N, H, W, C): x.transpose(0, 2, 3, 1)", x.shape)
            elif order is None:
                reason = "it is not clear which axis holds the channels of (N, H, W, C)"
                fix = "leave the axis out where there is one channel, else pad or resize images to 5x5 or more"
                wrong(f"x_{part}", reason, fix, x.shape)
        if y.dtype.kind not in "iu":
            wrong(f"y_{part}", "labels must be integers", "store class numbers 0, 1, 2, ... as int64", str(y.dtype))
        if y.shape[1:] not in ((), (1,)) or not y.shape:
            reason = "labels must be (N,) or (N, 1), one number an image"
            wrong(f"y_{part}", reason, "store class numbers, not one-hot", y.shape)
        elif x.shape[:1] != y.shape[:1]:
            reason = f"{called.get(f'x_{part}', f'x_{part}')} has {x.shape[0] if x.shape else 'no'} images, this another number of labels"
            wrong(f"y_{part}", reason, "store one label an image", y.shape[0])
    for part in parts_of(forms)[1:] if not found else ():
        if _image_shape(forms["x_train"]) != _image_shape(forms[f"x_{part}"]):
            ours, theirs = (size_in_words(_image_shape(forms[name])) for name in ("x_train", f"x_{part}"))
            reason = f"images are {theirs}, those of {called.get('x_train', 'x_train')} {ours} (width x height)"
            found.append(data_error(key(f"x_{part}"), reason, "bring all parts to one size"))
    raise_all(found)


def check_class_names(names: Sequence[str], key: str) -> None:
    """Whether these can name classes: at least two, distinct text that can be written down. Raises UserError (DATA)."""
    fix = "give each class a name of its own, in the order of the labels 0, 1, 2, ..."
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise data_error(key, "must be the names of at least two classes", fix, value=list(names)[:3])
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise data_error(key, "is the name of two classes", fix, value=twice)
    for name in names:
        if not name or any("\ud800" <= letter <= "\udfff" for letter in name):
            raise data_error(key, "is no name of a class", fix, value=name)


def class_labels(
    arrays: Mapping[str, np.ndarray],
    where: str,
    class_names: Sequence[str] | None = None,
    called: Mapping[str, str] = NO_OTHER_NAMES,
) -> np.ndarray:
    """The labels of the classes, ascending: those that occur in `y_train`, or 0, 1, ... where the classes have names.

    Raises UserError (DATA) for a label that is no class, and where there is a single one.
    """

    def wrong(name: str, label: int, reason: str, fix: str) -> UserError:
        position = int(np.flatnonzero(arrays[name].ravel() == label)[0])
        words = f"label {label} at index {position} {reason}"
        return data_error(f"{where}:{called.get(name, name)}", words, fix)

    labels, ours = np.unique(arrays["y_train"]), called.get("y_train", "y_train")
    low, high = int(labels[0]), int(labels[-1])
    if low < 0:
        raise wrong("y_train", low, "is negative", "number the classes from 0, and leave out what has no class")
    if high > LARGEST_LABEL:
        raise wrong("y_train", high, f"is above {LARGEST_LABEL}", "number the classes from 0")
    if low == high:
        reason = "every image has the same label: nothing can be learned"
        raise data_error(f"{where}:{ours}", reason, "use data of at least two classes", value=low)
    if class_names is not None:
        if high >= len(class_names):
            reason = f"is outside 0..{len(class_names) - 1}, the numbers of the {len(class_names)} class names"
            raise wrong("y_train", high, reason, "number the classes from 0, in the order of their names")
        labels = np.arange(len(class_names))
    contiguous = int(labels[-1]) - int(labels[0]) == len(labels) - 1
    known = f"{labels[0]}..{labels[-1]}" if contiguous else _few([str(label) for label in labels[:11]], 10)
    whose = f"the classes of {ours}" if class_names is None else "the numbers of the class names"
    for name in (f"y_{part}" for part in parts_of(arrays)[1:]):
        if (strange := ~np.isin(arrays[name], labels)).any():
            reason = f"is outside {known}, {whose}" if contiguous else f"is not among {known}, {whose}"
            fix = "remove such images or train on their class too"
            raise wrong(name, int(arrays[name][strange].max()), reason, fix)
    return labels


def assemble(
    name: str,
    arrays: Mapping[str, Any],
    config: DatasetConfig,
    where: str,
    class_names: Sequence[str] | None = None,
    whole: str | None = None,
    called: Mapping[str, str] = NO_OTHER_NAMES,
) -> Dataset:
    """Check the arrays, bring them to one form and measure the channels, or take mean and std from `config`.

    `where` names the source in errors. Without `class_names` the classes are the distinct labels of `y_train`, ascending, and their numbers
    are their names; with them labels are places in `class_names`, and a class without an image is allowed.
    `whole`: see Dataset, where a fraction has been taken already. `called`: see `check_forms`.
    """
    check_forms(arrays, where, called)
    labels = class_labels(arrays, where, class_names, called)
    made: dict[str, Any] = {}
    for part in parts_of(arrays):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        numbers = np.searchsorted(labels, y.ravel().astype(np.int64)).astype(np.int64)
        made |= {f"x_{part}": x[..., None] if len(x.shape) == 3 else x, f"y_{part}": numbers}
    if class_names is None:
        class_names = [str(label) for label in labels.tolist()]
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


def _image_shape(images: Images) -> tuple[int, ...]:
    return (*images.shape[1:], 1) if len(images.shape) == 3 else tuple(images.shape[1:])
