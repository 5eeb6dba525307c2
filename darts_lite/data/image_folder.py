"""Images of the user's own in folders: `dataset=image_folder dataset.root=photos`, with

    root/train/<class>/*      or, without train/, root/<class>/*
    root/val/<class>/*        optional: what the alphas of a search learn from
    root/test/<class>/*       optional: else dataset.test_fraction of train/, drawn from the file names

Classes are the folders of train/, sorted by name. Hidden files and files that hold no image are passed over; everything else that is odd
is refused, because an image that is silently left out is found too late.
"""

import hashlib
import os
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from darts_lite.data.dataset import Dataset, assemble, fraction_of
from darts_lite.data.files import data_error, why
from darts_lite.data.images import EXTENSIONS, LISTED, Files, check_each, inspect
from darts_lite.data.splits import held_out
from darts_lite.errors import UserError, did_you_mean, raise_all, show
from darts_lite.hardware.machine import available_memory
from darts_lite.settings.datasets import DatasetConfig

PARTS = ("train", "val", "test")
# Images that Pillow's decoders do not read: photographs of telephones, and what cameras write beside or in place of a JPEG.
OTHERS = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")
KINDS = "png, jpg, bmp, gif, webp, tif, ppm or pgm"
_LAYOUT = "lay them out as <root>/train/<class>/<image>"


def problems(config: DatasetConfig) -> list[UserError]:
    """Errors of the settings alone."""
    found = []
    if not config.root:
        found.append(UserError("dataset.root", "dataset=image_folder needs a folder", "give dataset.root=<folder>"))
    if config.channels == 2:
        fix = "give 3 (RGB) or 1 (grey)"
        found.append(UserError("dataset.channels", "images have three channels or one", fix, value=2))
    return found


def load(config: DatasetConfig) -> Dataset:
    """List the folder, look at every file's header, and decode what fits into memory.

    Raises UserError: DATA, with the path of each folder or file that is wrong, or how many there are beyond the first few.
    """
    root = os.fspath(config.root or "")
    classes, parts = _list(root)
    if "test" not in parts:
        names, labels = parts["train"]
        alone = [classes[label] for label, count in Counter(labels.tolist()).items() if count < 2]
        if alone:
            reason = f"{_few(alone)}: a class of one image cannot be cut into train and test"
            raise data_error(root, reason, "add images of it, or give a test/ folder")
        kept, out = held_out(names.tolist(), labels, config.test_fraction)
        parts |= {"train": (names[kept], labels[kept]), "test": (names[out], labels[out])}
    whole = _listing(root, parts, config)
    parts["train"] = fraction_of(*parts["train"], config.fraction)
    images = _files(root, {part: names for part, (names, _) in parts.items()}, config)
    arrays: dict[str, Any] = {f"x_{part}": files for part, files in images.items()}
    arrays |= {f"y_{part}": labels for part, (_, labels) in parts.items()}
    return assemble("image_folder", arrays, replace(config, fraction=1.0), root, classes, whole)


def _files(root: str, names: dict[str, np.ndarray], config: DatasetConfig) -> dict[str, Files]:
    """The images of each part, all of one size; their pixels are in memory where they may and can be."""
    everything = Files(root, np.concatenate(list(names.values())), (0, 0, config.channels), fits=True)
    numbers = range(len(everything))
    shapes = check_each(numbers, lambda number: inspect(everything.path(number), config.channels), root)
    fits = len(set(shapes)) == 1
    if config.image_size is None and not fits:
        (common, _), *_ = Counter(shapes).most_common()
        usual, odd = shapes.index(common), next(number for number in numbers if shapes[number] != common)
        reason = f"is {_size(shapes[odd])}, but {everything.path(usual)} is {_size(common)}"
        raise data_error(
            everything.path(odd), reason, "give dataset.image_size=N: the centre is cropped and resized to N x N"
        )
    side = config.image_size
    shape = shapes[0] if side is None else (side, side, config.channels)
    everything = replace(everything, image_shape=shape, fits=fits and shapes[0] == shape)
    ends = np.cumsum([len(part) for part in names.values()])
    files = {part: everything[end - len(names[part]) : end] for part, end in zip(names, ends.tolist(), strict=True)}
    files["test"] = replace(files["test"], center=config.test_center)
    if config.storage != "stream":
        free, needed = available_memory(), 2 * everything.nbytes  # and the copy that training makes of them
        if free is None or needed <= free:
            return {part: replace(one, pixels=np.asarray(one)) for part, one in files.items()}
        if config.storage == "device":
            reason = f"decoded and copied once it takes {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
            raise data_error(root, reason, "give dataset.storage=stream, or a smaller dataset.image_size")
    return files


def _listing(root: str, parts: dict[str, tuple[np.ndarray, np.ndarray]], config: DatasetConfig) -> str:
    """SHA-256 over the names and lengths of all files, also of those beyond `dataset.fraction`, which are not opened."""
    digest = hashlib.sha256(f"{config.image_size} {config.channels}\n".encode())
    for part, (names, _) in parts.items():
        for name in names.tolist():
            size = 0
            with suppress(OSError):  # a link that leads nowhere is refused later
                size = os.stat(os.path.join(root, os.fsdecode(name))).st_size
            digest.update(f"{part} {size} ".encode() + name + b"\0")
    return digest.hexdigest()


def _list(root: str) -> tuple[list[str], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Class names, and of each part that is there the names (N,) below root, as bytes, and the labels (N,)."""
    top = _entries(root)
    folders = [name for name, is_folder in top.items() if is_folder]
    found: list[UserError] = []
    # Train/, validation/, testing/: a part that would not be seen. Without train/ it may be a class, which holds no folders.
    for name in folders:
        part = next((part for part in PARTS if name not in PARTS and name.lower().startswith(part)), None)
        if part and ("train" in folders or any(_entries(os.path.join(root, name)).values())):
            found.append(data_error(os.path.join(root, name), "is not a name of a part", f"call it {part}, or move it"))
    if "train" not in folders:
        _refuse(found, root)
        if lost := [name for name in PARTS if name in folders]:
            raise data_error(root, f"has {lost[0]}/ but no train/", _LAYOUT)
        prefixes = {"train": ""}
    else:
        prefixes = {part: part for part in PARTS if part in folders}
    classes: list[str] = []
    parts = {}
    for part, prefix in prefixes.items():
        names, labels = [], []
        entries = _entries(_below(root, prefix)) if prefix else top
        if loose := [name for name, is_folder in entries.items() if not is_folder and _is_image(name)]:
            reason = f"{len(loose)} images lie outside of the class folders: {_few(loose)}"
            found.append(data_error(_below(root, prefix), reason, _LAYOUT))
        inside = [name for name, is_folder in entries.items() if is_folder]
        if part == "train":
            classes = inside
            if any(not name.isprintable() and any("\ud800" <= c <= "\udfff" for c in name) for name in classes):
                raise data_error(_below(root, prefix), "the name of a class folder is not UTF-8", "rename it")
            if len(classes) < 2:
                reason = f"has {len(classes) or 'no'} class folder{'s' * (not classes)}"
                found.append(data_error(_below(root, prefix), reason, f"use images of at least two classes; {_LAYOUT}"))
                break
        for name in inside:
            below = f"{prefix}/{name}" if prefix else name
            if name not in classes:
                reason = "is a class that train/ does not have"
                fix = f"{did_you_mean(name, classes)}remove it, or train on it too"
                found.append(data_error(os.path.join(root, below), reason, fix))
                continue
            try:
                images = _images(root, below, needed=part == "train")
            except UserError as problem:
                found.append(problem)
                continue
            names += [os.fsencode(f"{below}/{image}") for image in images]
            labels += [classes.index(name)] * len(images)
        parts[part] = np.array(names, "S"), np.array(labels, np.int64)
        if part != "train" and not names and not found:
            found.append(data_error(_below(root, prefix), "holds no image", f"add some, or remove {part}/"))
    _refuse(found, root)
    return classes, parts


def _refuse(found: list[UserError], root: str) -> None:
    """Raise one UserError for what is wrong with the folders, the first few of them named, if anything is."""
    more = [data_error(root, f"{len(found) - LISTED} more folders are wrong", _LAYOUT)] if len(found) > LISTED else []
    raise_all([*found[:LISTED], *more])


def _images(root: str, below: str, *, needed: bool) -> list[str]:
    path = os.path.join(root, below)
    entries = _entries(path)
    if inner := [name for name, is_folder in entries.items() if is_folder]:
        raise data_error(
            path, f"holds a folder: {_few(inner)}", "move its images into the class folder, or the folder away"
        )
    if unreadable := [name for name in entries if name.lower().endswith(OTHERS)]:
        reason = f"holds images of a kind that cannot be read: {_few(unreadable)}"
        raise data_error(path, reason, "convert them to jpg or png, or move them away")
    images = [name for name in entries if _is_image(name)]
    if needed and not images:
        others = f"; it holds {_few(list(entries))}" if entries else ""
        raise data_error(path, f"holds no image ({KINDS}){others}", "add images of this class, or remove the folder")
    return images


def _entries(path: str) -> dict[str, bool]:
    """Sorted name -> whether it is a folder, of everything in a folder that is not hidden."""
    try:
        with os.scandir(path) as entries:
            return {e.name: e.is_dir() for e in sorted(entries, key=lambda e: e.name) if not e.name.startswith(".")}
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({why(error)})"
        fix = "check dataset.root; a relative path starts in the working directory"
        raise data_error(path, reason, _neighbour(path) + fix) from error


def _neighbour(path: str) -> str:
    """The folder beside a missing one whose name is nearest, as the beginning of a fix."""
    above, name = os.path.split(os.path.normpath(path))
    with suppress(OSError, ValueError):
        if not os.path.lexists(path):
            return did_you_mean(name, [entry.name for entry in os.scandir(above or ".") if entry.is_dir()])
    return ""


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _below(root: str, prefix: str) -> str:
    return os.path.join(root, prefix) if prefix else root


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(show(name, quote=False) for name in names[:3]) + more


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]}x{shape[0]}"
