"""Data: digits, untrusted .npz files, statistics, splits and orders, and augmentation against a loop over images."""

import dataclasses
import io
import os
import pickle
import zipfile
from itertools import pairwise

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional
from torch.utils.data import TensorDataset

from darts_lite.cli.line import read_line
from darts_lite.data import DATASETS, digits, files, load, npz, problems
from darts_lite.data.arrays import Arrays, from_torch
from darts_lite.data.augmentation import AREA, RATIO, Augmentation, crop, cutout, flip, random_windows
from darts_lite.data.dataset import channel_order, in_words, remarks
from darts_lite.data.parts import BatchFeed, Order
from darts_lite.data.splits import split
from darts_lite.data.statistics import channel_statistics
from darts_lite.errors import Exit, UserError
from darts_lite.settings.datasets import PRESETS, USED_BY, DatasetConfig, preset_config


def small(train=12, test=4, shape=(6, 5, 3), classes=3, seed=0):
    random = np.random.default_rng(seed)
    return {
        "x_train": random.integers(0, 256, (train, *shape), dtype=np.uint8),
        "y_train": np.arange(train) % classes,
        "x_test": random.integers(0, 256, (test, *shape), dtype=np.uint8),
        "y_test": np.arange(test) % classes,
    }


def saved(folder, save=np.savez, **changes):
    arrays = {**small(), **changes}
    path = folder / "data.npz"
    save(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def load_npz(path, **settings):
    return load(DatasetConfig(name="npz", path=None if path is None else str(path), **settings))


def refused(call, code, *words):
    with pytest.raises(UserError) as caught:
        call()
    for problem in caught.value.problems:
        assert problem.code == code, str(problem)
        assert "\n" not in str(problem) and len(str(problem)) <= 400
    text = "\n".join(map(str, caught.value.problems))
    for word in words:
        assert word in text, text
    return caught.value


# Data sets


def test_digits():
    data = load(DatasetConfig())
    assert data.name == "digits" and data.classes == 10 and data.channels == 1 and data.image_size == (8, 8)
    assert data.x_train.shape == (1437, 8, 8, 1) and data.x_test.shape == (360, 8, 8, 1)
    assert data.x_train.dtype == np.uint8 and data.y_train.dtype == data.y_test.dtype == np.int64
    assert data.class_names == tuple("0123456789")
    assert set(np.unique(data.x_train)) == {(255 * v + 8) // 16 for v in range(17)}
    assert set(np.bincount(data.y_test)) <= {35, 36, 37}
    assert load(DatasetConfig()).fingerprint == data.fingerprint
    assert digits.FILE.with_name("digits.LICENSE.txt").read_text().count("CC BY 4.0") == 1
    assert digits.FILE.stat().st_size < 50_000


def test_digits_are_the_published_ones():
    published = pytest.importorskip("sklearn.datasets").load_digits()
    data, file = load(DatasetConfig()), np.load(digits.FILE, allow_pickle=False)
    assert np.array_equal(file["images"], published.images) and np.array_equal(file["labels"], published.target)
    assert np.array_equal(file["test"], np.unique(file["test"])) and len(file["test"]) == 360
    assert np.array_equal(data.y_test, published.target[file["test"]])
    assert np.array_equal(data.x_test[..., 0], np.floor(published.images[file["test"]] * 255 / 16 + 0.5))


def test_digits_damaged(tmp_path, monkeypatch):
    content = bytearray(digits.FILE.read_bytes())
    content[1000] ^= 1
    copy = tmp_path / "digits.npz"
    monkeypatch.setattr(digits, "FILE", copy)
    refused(lambda: load(DatasetConfig()), Exit.DATA, "digits.npz", "reinstall")
    copy.write_bytes(content)
    refused(lambda: load(DatasetConfig()), Exit.DATA, "hash", "reinstall")


def test_settings_are_checked_first():
    refused(lambda: load(DatasetConfig(name="digit")), Exit.CONFIGURATION, "dataset.name", "'digits'")
    refused(lambda: load_npz(None), Exit.CONFIGURATION, "dataset.path")
    refused(lambda: load(DatasetConfig(path="x.npz")), Exit.CONFIGURATION, "dataset.path", "dataset=npz")
    refused(lambda: load(DatasetConfig(mean=[0.5])), Exit.CONFIGURATION, "dataset.mean", "dataset.std")
    refused(lambda: load(DatasetConfig(std=[0.5])), Exit.CONFIGURATION, "dataset.std: ", "dataset.mean")
    refused(lambda: load(DatasetConfig(mean=[0.5] * 3, std=[0.5])), Exit.CONFIGURATION, "1 channels", "dataset.mean")
    refused(lambda: load(DatasetConfig(mean=[0.5], std=[0.5, 0.5])), Exit.CONFIGURATION, "1 channels", "dataset.std")
    for mean in (-0.1, 125.0, float("nan")):
        refused(lambda mean=mean: load(DatasetConfig(mean=[mean], std=[1.0])), Exit.CONFIGURATION, "dataset.mean")
    for std in (0.0, 1e-320, float("inf"), float("nan")):
        refused(lambda std=std: load(DatasetConfig(mean=[0.0], std=[std])), Exit.CONFIGURATION, "dataset.std")
    data = load(DatasetConfig(mean=[0.25], std=[0.5]))
    assert data.mean == (0.25,) and data.std == (0.5,)
    assert set(DATASETS) >= {"digits", "npz"}
    error = refused(lambda: load(DatasetConfig(name="npz", mean=[0.5])), Exit.CONFIGURATION)
    assert len(error.problems) == 2


GIVEN = {
    "path": "x.npz",
    "root": "photos",
    "download": True,
    "image_size": 32,
    "channels": 1,
    "test_fraction": 0.5,
    "test_center": 0.5,
}


@pytest.mark.parametrize("key", GIVEN)
@pytest.mark.parametrize("name", DATASETS)
def test_settings_that_the_data_set_does_not_use(name, key):
    given = {**PRESETS.get(name, {}), "path": "y" if name == "npz" else None, key: GIVEN[key]}
    if name == "image_folder":
        given.setdefault("root", "y")
    found = problems(DatasetConfig(name=name, **given))
    if name in USED_BY[key]:
        assert not found
    else:
        (error,) = found
        assert error.key == f"dataset.{key}" and error.code == Exit.CONFIGURATION and error.value == GIVEN[key]
        assert f"fix: add dataset={USED_BY[key][0]}" in str(error)
    assert not problems(preset_config(name, **{part: "y" for part in ("root", "path") if name in USED_BY[part]}))


def test_a_folder_in_place_of_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").mkdir()
    for word, words in (
        ("my photos", "write dataset=image_folder dataset.root='my photos'"),
        ("there/my.NPZ", "write dataset=npz dataset.path=there/my.NPZ"),
        ("digit", "did you mean 'digits'? one of"),
        ("x" * 5000, "one of: "),
    ):
        (problem,) = read_line("search", [f"dataset={word}"]).problems
        assert problem.key == "dataset" and problem.code == Exit.CONFIGURATION and words in str(problem), str(problem)
        refused(lambda word=word: load(DatasetConfig(name=word)), Exit.CONFIGURATION, "dataset.name", words)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("labels", [np.int8, np.uint8, np.int64, np.uint64, ">i4"])
def test_npz(tmp_path, save, labels):
    arrays = small()
    changes = {name: arrays[name].astype(labels) for name in ("y_train", "y_test")}
    data = load_npz(saved(tmp_path, save, **changes))
    for name, array in arrays.items():
        assert np.array_equal(getattr(data, name), array), name
    assert data.classes == 3 and data.channels == 3 and data.image_size == (6, 5) and data.y_train.dtype == np.int64
    assert data.y_train.dtype.isnative and data.x_train.flags.writeable


def test_npz_grey_fortran_and_extra_keys(tmp_path):
    arrays = small(shape=(6, 5))
    data = load_npz(saved(tmp_path, **{**arrays, "x_train": np.asfortranarray(arrays["x_train"])}, notes=np.zeros(3)))
    assert data.x_train.shape == (12, 6, 5, 1) and data.x_train.flags.c_contiguous
    assert np.array_equal(data.x_train[..., 0], arrays["x_train"])


@pytest.mark.parametrize("labels", [(0, 4), (1, 2, 3), (3, 57, 902)])
def test_classes_are_the_labels_that_occur(tmp_path, labels):
    train, test = (np.array(labels)[np.arange(number) % len(labels)] for number in (12, 4))
    data = load_npz(saved(tmp_path, y_train=train[:, None], y_test=test.astype(np.uint16)))
    assert data.class_names == tuple(map(str, labels)) and data.y_train.shape == (12,)
    assert np.array_equal(np.array(labels)[data.y_train], train) and np.array_equal(np.array(labels)[data.y_test], test)
    (line,) = remarks(data)
    assert f"numbers, in this order: {', '.join(map(str, labels))}" in line
    assert not remarks(load_npz(saved(tmp_path)))
    strange = np.array([labels[0], labels[1], labels[-1] + 1, labels[0]])
    path = saved(tmp_path, y_train=train, y_test=strange)
    refused(lambda: load_npz(path), Exit.DATA, f"y_test: label {labels[-1] + 1} at index 2", str(labels[0]))


def test_names_of_classes_in_the_file(tmp_path):
    names = np.array(["cat", "dog", "Übung", "hen"])
    data = load_npz(saved(tmp_path, class_names=names))
    assert data.class_names == tuple(names.tolist()) and set(data.y_train.tolist()) == {0, 1, 2}
    assert remarks(data) == [f"npz: the {part} part has no image of hen" for part in ("training", "test")]
    assert load_npz(saved(tmp_path, class_names=np.array([b"a", b"b", b"c"]))).class_names == ("a", "b", "c")
    for wrong, words in (
        (names[:2], "label 2 at index 2 is outside 0..1"),
        (np.array(["a", "b", "a"]), "'a'"),
        (np.array(["a", "", "c"]), "is no name of a class"),
        (np.arange(3), "names of at least two classes"),
        (np.array("abc"), "names of at least two classes"),
        (np.array(["a"]), "names of at least two classes"),
        (np.array(["a", "b", "\ud800"]), "class_names"),
        (np.array([b"a", b"b", b"\xff"]), "class_names"),
        (np.array(["a", "b", None], dtype=object), "allow_pickle=False"),
    ):
        path = saved(tmp_path, class_names=wrong)
        refused(lambda path=path: load_npz(path), Exit.DATA, "fix: ", words)
    path = saved(tmp_path, class_names=names, y_test=np.array([0, 1, 4, 2]))
    refused(lambda: load_npz(path), Exit.DATA, "y_test: label 4 at index 2", "0..3")
    path = saved(tmp_path, class_names=names, y_train=np.ones(12, int))
    refused(lambda: load_npz(path), Exit.DATA, "same label")


def medmnist(**changes):
    """The arrays of `small` under the names of MedMNIST, labels (N, 1)."""
    parts = {"train": "train", "test": "test", "val": "test"}
    arrays = {f"{part}_images": small()[f"x_{ours}"] for part, ours in parts.items()}
    arrays |= {f"{part}_labels": small()[f"y_{ours}"][:, None].astype(np.uint8) for part, ours in parts.items()}
    return {**arrays, **changes}


def test_files_of_medmnist(tmp_path):
    path = tmp_path / "medmnist.npz"
    np.savez(path, **medmnist())
    data, ours = load_npz(path), small()
    assert all(np.array_equal(getattr(data, name), ours[name]) for name in ours)
    assert np.array_equal(data.x_val, ours["x_test"]) and np.array_equal(data.y_val, ours["y_test"])
    for changes, *words in (
        ({"test_labels": np.zeros((4, 14), np.uint8)}, ":test_labels", "one-hot"),
        ({"test_labels": np.full((4, 1), 7)}, ":test_labels: label 7 at index 0", "the classes of train_labels"),
        ({"val_images": np.zeros((4, 5, 6, 3), np.uint8)}, ":val_images", "those of train_images 5x6 with 3 channels"),
        ({"train_images": np.zeros((12, 28, 28, 28), np.uint8)}, ":train_images", "not clear which axis"),
    ):
        np.savez(path, **medmnist(**changes))
        error = refused(lambda: load_npz(path), Exit.DATA, *words)
        assert "x_train" not in str(error) and "y_train" not in str(error)
    np.savez(path, **{name: value for name, value in medmnist().items() if name != "val_labels"})
    refused(lambda: load_npz(path), Exit.DATA, "missing: val_labels")


def test_arrays_from_python():
    given = small(shape=(6, 5))
    data = load(DatasetConfig(name="arrays", mean=[0.5], std=[0.25]), Arrays(**given, class_names=["a", "b", "c"]))
    assert data.name == "arrays" and data.class_names == ("a", "b", "c") and data.mean == (0.5,)
    assert np.array_equal(data.x_test[..., 0], given["x_test"]) and np.array_equal(data.y_train, given["y_train"])
    listed = {name: value.tolist() if name[0] == "y" else torch.from_numpy(value) for name, value in given.items()}
    assert load(DatasetConfig(name="arrays"), Arrays(**listed)).fingerprint == data.fingerprint
    for changes, words in (
        ({"x_train": given["x_train"][:, None]}, "dataset:x_train: channels come first"),
        ({"x_val": given["x_test"]}, "belong together"),
        ({"class_names": ["a", "b"]}, "y_train: label 2"),
        ({"class_names": ["a", "b", 3]}, "class_names"),
        ({"class_names": ["a", "b", "a"]}, "'a'"),
    ):
        wrong = Arrays(**{**given, **changes})
        refused(lambda wrong=wrong: load(DatasetConfig(name="arrays"), wrong), Exit.DATA, words)
    refused(lambda: load(DatasetConfig(name="arrays")), Exit.DATA, "were given from Python")
    for settings_ in ({"root": "x"}, {"mean": [0.5]}, {"name": "npz", "path": "x"}):
        config = DatasetConfig(**{"name": "arrays", **settings_})
        refused(lambda config=config: load(config, Arrays(**given)), Exit.CONFIGURATION, "dataset.")


def test_data_sets_of_torch():
    given, names = small(), ["a", "b", "c"]

    class Pairs(list):
        classes = names

    def pairs(part, image):
        labels = [np.array([label]) if part == "test" else int(label) for label in given[f"y_{part}"]]
        return Pairs(zip(map(image, given[f"x_{part}"]), labels, strict=True))

    kinds = {
        "Pillow": Image.fromarray,
        "tensors": lambda image: torch.from_numpy(image).permute(2, 0, 1),
        "arrays": lambda image: image,
    }
    for image in kinds.values():
        made = from_torch(pairs("train", image), pairs("test", image), pairs("test", image))
        data = load(DatasetConfig(name="arrays"), made)
        assert all(np.array_equal(getattr(data, name), given[name]) for name in given)
        assert np.array_equal(data.x_val, given["x_test"]) and data.class_names == tuple(names)
    plain = TensorDataset(torch.from_numpy(given["x_train"][..., 0]), torch.from_numpy(given["y_train"]))
    assert from_torch(plain, plain).class_names is None and from_torch(plain, plain, class_names=names).class_names
    assert load(DatasetConfig(name="arrays"), from_torch(plain, plain)).channels == 1
    good = given["x_train"][0]
    for items, words in (
        ([(good / 255.0, 0)], "uint8"),
        ([(good, [0, 1])], "y_train[0]: is no class number"),
        ([(good, 0.5)], "class number"),
        ([(good, 0), (good[:5], 1)], "images of 2 shapes"),
        ([(Image.new("I;16", (4, 4)), 0)], "8-bit"),
    ):
        refused(lambda items=items: from_torch(items, items), Exit.DATA, words)


ORDERS = {  # an image's shape -> which axis holds its channels
    **{(32, 24, 3): "last", (32, 32, 4): "last", (8, 8, 1): "last", (4, 4, 3): "last", (2, 2, 1): "last"},
    **{(64, 64, 13): "last", (32, 24, 8): "last", (28, 1, 3): "last", (5, 5, 9): "last"},
    **{(3, 32, 24): "first", (4, 32, 32): "first", (1, 28, 28): "first", (3, 4, 4): "first", (2, 5, 9): "first"},
    **{(13, 64, 64): "first", (8, 24, 32): "first", (9, 5, 5): "first"},
    **{(28, 28, 28): None, (3, 32, 3): None, (1, 28, 1): None, (3, 3, 3): None, (32, 5, 24): None, (8, 32, 8): None},
    (3, 32, 2): None,
}


@pytest.mark.parametrize("shape", ORDERS)
def test_which_axis_holds_the_channels(tmp_path, shape):
    assert channel_order(shape) == ORDERS[shape]
    path = saved(tmp_path, **small(shape=shape))
    if ORDERS[shape] == "last":
        height, width, channels = shape
        assert f" of {width}x{height} with {channels} channel" in in_words(load_npz(path))
    else:
        words = "come first" if ORDERS[shape] else "not clear which axis"
        refused(lambda: load_npz(path), Exit.DATA, words, "x_train", "x_test", "fix: ")


def test_unicode_and_spaces_in_the_path(tmp_path):
    folder = tmp_path / "mit Übung = (1)"
    folder.mkdir()
    assert load_npz(saved(folder)).classes == 3
    refused(lambda: load_npz(folder / "fehlt.npz"), Exit.DATA, "no such file")


def test_a_fraction_is_of_each_class_and_of_the_training_part_only(tmp_path):
    path = saved(tmp_path, **small(train=90, test=9))
    whole, part = load_npz(path), load_npz(path, fraction=0.3)
    assert np.bincount(part.y_train).tolist() == [9, 9, 9] and np.array_equal(part.x_test, whole.x_test)
    kept = [np.flatnonzero((whole.x_train == image).all((1, 2, 3)))[0] for image in part.x_train]
    assert kept == sorted(set(kept)) and np.array_equal(whole.y_train[kept], part.y_train)
    assert part.fingerprint != whole.fingerprint == load_npz(path, fraction=1.0).fingerprint
    assert part.source == whole.source == whole.fingerprint
    assert (part.mean, part.std) == channel_statistics(part.x_train) != (whole.mean, whole.std)
    assert np.bincount(load_npz(path, fraction=1e-9).y_train).tolist() == [1, 1, 1]  # no class is lost


def test_fingerprint_is_of_the_content(tmp_path):
    arrays = small()
    first = load_npz(saved(tmp_path)).fingerprint
    same = load_npz(saved(tmp_path, np.savez_compressed, y_train=arrays["y_train"].astype(np.uint8))).fingerprint
    assert len(first) == 64 and first == same
    changed = arrays["x_test"].copy()
    changed[0, 0, 0, 0] ^= 1
    other = load_npz(saved(tmp_path, x_test=changed)).fingerprint
    reshaped = load_npz(
        saved(tmp_path, **{n: arrays[n].reshape(-1, 5, 6, 3) for n in ("x_train", "x_test")})
    ).fingerprint
    assert len({first, other, reshaped}) == 3


BAD_ARRAYS = {
    "missing key": ({"y_test": None}, "y_test", "missing"),
    "object array": ({"y_train": np.array([{}] * 12, dtype=object)}, "y_train", "allow_pickle=False", "plain numbers"),
    "float images": ({"x_train": np.zeros((12, 6, 5, 3), np.float32)}, "x_train", "uint8", "'float32'"),
    "int64 images": ({"x_test": np.zeros((4, 6, 5, 3), np.int64)}, "x_test", "uint8"),
    "structured images": ({"x_test": np.zeros((4, 6, 5), [("r", np.uint8)])}, "x_test", "uint8"),
    "float labels": ({"y_train": np.zeros(12)}, "y_train", "integers"),
    "bool labels": ({"y_train": np.zeros(12, bool)}, "y_train", "integers"),
    "text labels": ({"y_train": np.array(["cat"] * 12)}, "y_train", "integers"),
    "one-hot labels": ({"y_train": np.eye(12, dtype=np.int64)}, "y_train", "one-hot"),
    "0-d labels": ({"y_train": np.array(3)}, "y_train", "one number an image"),
    "2-d images": ({"x_train": np.zeros((12, 30), np.uint8)}, "x_train", "(N, H, W)"),
    "0-d images": ({"x_train": np.array(3, np.uint8)}, "x_train", "(N, H, W)"),
    "5-d images": ({"x_train": np.zeros((12, 1, 2, 3, 3), np.uint8)}, "x_train", "(N, H, W)"),
    "channels first": ({"x_train": np.zeros((12, 3, 32, 32), np.uint8)}, "x_train", "channels come first"),
    "length mismatch": ({"y_train": np.arange(11) % 3}, "y_train", "12 images", "11"),
    "empty train": ({"x_train": np.zeros((0, 6, 5, 3), np.uint8), "y_train": np.zeros(0, int)}, "x_train", "no image"),
    "empty test": ({"x_test": np.zeros((0, 6, 5, 3), np.uint8), "y_test": np.zeros(0, int)}, "x_test", "no image"),
    "no height": ({"x_train": np.zeros((12, 0, 5, 3), np.uint8)}, "x_train", "no image"),
    "no channels": ({"x_train": np.zeros((12, 6, 5, 0), np.uint8)}, "x_train", "no image"),
    "other test size": ({"x_test": np.zeros((4, 5, 6, 3), np.uint8)}, "x_test", "5x6 with 3", "6x5 with 3"),
    "other test channels": ({"x_test": np.zeros((4, 6, 5), np.uint8)}, "x_test", "5x6 with 1 channel,"),
    "negative label": ({"y_train": np.arange(12) % 3 - 1}, "y_train", "label -1 at index 0", "negative"),
    "negative test label": ({"y_test": np.array([0, 1, -5, 2])}, "y_test", "label -5 at index 2"),
    "label in test only": ({"y_test": np.array([0, 1, 2, 3])}, "y_test", "label 3 at index 3", "0..2"),
    "huge label": ({"y_train": np.arange(12) * 10**12}, "y_train", "above 99999"),
    "huge unsigned label": ({"y_train": np.full(12, 2**64 - 1, np.uint64)}, "y_train", "18446744073709551615"),
    "single class": ({"y_train": np.zeros(12, int), "y_test": np.zeros(4, int)}, "y_train", "same label"),
    "single class 3": ({"y_train": np.full(12, 3)}, "y_train", "same label"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(tmp_path, case):
    changes, *words = BAD_ARRAYS[case]
    path = saved(tmp_path, **changes)
    error = refused(lambda: load_npz(path), Exit.DATA, *words)
    assert "fix: " in str(error) and (f":{words[0]}" in str(error))


def test_every_problem_is_listed(tmp_path):
    path = saved(tmp_path, x_train=np.zeros((12, 6, 5, 3)), y_test=np.zeros(4))
    assert len(refused(lambda: load_npz(path), Exit.DATA, "x_train", "y_test").problems) == 2


def test_bad_files(tmp_path):
    good = saved(tmp_path).read_bytes()
    file = tmp_path / "bad.npz"
    refused(lambda: load_npz(file), Exit.DATA, "bad.npz", "no such file")
    refused(lambda: load_npz(tmp_path), Exit.DATA, "directory")
    refused(lambda: load_npz(file / "below"), Exit.DATA, "below")
    refused(lambda: load_npz("nul\0byte"), Exit.DATA)
    refused(lambda: load_npz("long" * 2000), Exit.DATA)
    for content in (b"", b"not a zip", good[: len(good) // 2], good[:-1], pickle.dumps({"x_train": 1})):
        file.write_bytes(content)
        refused(lambda: load_npz(file), Exit.DATA, "not an .npz archive")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    refused(lambda: load_npz(fifo), Exit.DATA, "not a regular file")  # and does not wait for a writer


def header(shape, dtype="|u1", order=False):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": order, "shape": shape})
    return file.getvalue()


def header_of(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def archive(path, compression=zipfile.ZIP_DEFLATED, **members):
    plain = {}
    for name, array in small().items():
        file = io.BytesIO()
        np.save(file, array)
        plain[name] = file.getvalue()
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in {**plain, **members}.items():
            file.writestr(f"{name}.npy", content)
    return path


def test_bad_headers(tmp_path):
    path = tmp_path / "data.npz"
    assert load_npz(archive(path)).classes == 3
    bad = {
        "empty": b"",
        "no magic": b"x" * 100,
        "version": b"\x93NUMPY\x09\x00" + b" " * 100,
        "code": b"\x93NUMPY\x01\x00\x30\x00" + b"__import__('os').system('touch owned')".ljust(48),
        "short": header((12, 6, 5, 3)) + b"x" * 10,
        "long": header((12, 6, 5, 3)) + b"x" * 2000,
        "negative": header((-12, 6, 5, -3)) + b"x" * 1080,
        "terabytes": header((10**6, 1000, 1000, 3)) + b"x" * 1000,
        "beyond 64 bits": header((10**30, 10**30, 3)) + b"x" * 1000,
        "open parentheses": header_of(b"(" * 9000),
        "nested": header_of(b"(" * 4000 + b")" * 4000),
        "unary": header_of(b"-" * 9000 + b"1"),
        "indented": header_of(b"  {\n 'a'"),
        "latin": header_of(b"\xff\xfe{'descr'"),
        "odd dtype": header_of(b"{'descr': [], 'fortran_order': False, 'shape': (12, 6, 5, 3)}"),
        "odd shape": header_of(b"{'descr': '|u1', 'fortran_order': False, 'shape': 'ab'}"),
        "odd order": header_of(b"{'descr': '|u1', 'fortran_order': 3, 'shape': (12, 6, 5, 3)}"),
        "subarray": header_of(b"{'descr': ('|u1', (3,)), 'fortran_order': False, 'shape': (12, 6, 5)}") + b"x" * 1080,
        "no header": b"\x93NUMPY\x01\x00\xff\xff" + b"{" * 65535,
    }
    for content in bad.values():
        refused(lambda content=content: load_npz(archive(path, x_train=content)), Exit.DATA, ":x_train")
    refused(lambda: load_npz(archive(path, zipfile.ZIP_LZMA)), Exit.DATA, "compression")


def test_decompression_bomb_takes_no_memory(tmp_path, monkeypatch):
    path, size = tmp_path / "data.npz", 64 * 10**6
    archive(path, x_train=header((10**6, 8, 8, 1)) + bytes(size), y_train=header((10**6,)) + bytes(10**6))
    assert path.stat().st_size < 200_000
    monkeypatch.setattr(files, "available_memory", lambda: 2 * size)
    monkeypatch.setattr(npz, "_read", None)  # would fail if it were called
    refused(lambda: load_npz(archive_like(path)), Exit.DATA, "GB")


def archive_like(path):
    """The archive at `path` with a test part of the same image size."""
    with zipfile.ZipFile(path) as old:
        kept = {name: old.read(f"{name}.npy") for name in ("x_train", "y_train")}
    return archive(path, **kept, x_test=header((4, 8, 8, 1)) + bytes(256))


def test_available_memory():
    assert files.available_memory() > 1 << 24


@settings(max_examples=150, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), compressed=st.booleans())
def test_a_flipped_bit_is_refused_or_harmless(tmp_path_factory, position, bit, compressed):
    folder = tmp_path_factory.mktemp("flip")
    path = saved(folder, np.savez_compressed if compressed else np.savez)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        data = load_npz(path)
    except UserError as error:
        assert error.code == Exit.DATA
    else:  # times and attributes of the archive are not data
        assert all(np.array_equal(getattr(data, name), array) for name, array in small().items())


# Statistics


def test_statistics_are_exact():
    images = np.random.default_rng(0).integers(0, 256, (50, 7, 9, 3), dtype=np.uint8)
    images[..., 1] = 77
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, [(images[..., 0] / 255).std(), 1.0, (images[..., 2] / 255).std()], rtol=1e-12)
    assert channel_statistics(np.tile(images, (4, 1, 1, 1))) == (mean, std)


def test_statistics_in_chunks(monkeypatch):
    images = np.random.default_rng(1).integers(0, 256, (37, 4, 4, 2), dtype=np.uint8)
    whole = channel_statistics(images)
    monkeypatch.setattr("darts_lite.data.statistics._CHUNK", 50)
    assert channel_statistics(images) == whole


# Splits and orders


@settings(max_examples=200, deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**63 - 1),
)
def test_split(labels, fraction, seed):
    labels = np.array(labels)
    first, second = split(labels, fraction, seed)
    assert np.array_equal(np.sort(np.concatenate((first, second))), np.arange(len(labels)))
    assert np.array_equal(first, np.sort(first)) and np.array_equal(second, np.sort(second))
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        got = (labels[first] == label).sum()
        assert abs(got - count * fraction) <= 0.5 or got in (1, count - 1)
        assert count < 2 or 1 <= got <= count - 1
    again = split(labels, fraction, seed)
    assert np.array_equal(first, again[0]) and np.array_equal(second, again[1])


def test_split_depends_on_the_seed():
    labels = np.arange(1000) % 10
    first, second = split(labels, 0.5, 0)
    assert len(first) == len(second) == 500 and set(np.bincount(labels[first])) == {50}
    assert not np.array_equal(first, split(labels, 0.5, 1)[0])
    assert not np.array_equal(first[labels[first] == 0], first[labels[first] == 1] - 1)  # classes are drawn apart


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 50), batch=st.integers(1, 50), seed=st.integers(0, 2**63 - 1))
def test_order(n, batch, seed):
    batch = min(n, batch)
    order = Order(n, batch, seed)
    steps = order.steps_per_epoch
    assert steps == n // batch
    for epoch in range(2):
        seen = torch.cat([order.indices(step) for step in range(epoch * steps, (epoch + 1) * steps)])
        assert seen.dtype == torch.int64 and len(seen) == len(seen.unique()) == steps * batch
        assert seen.min() >= 0 and seen.max() < n
    step = 2 * steps - 1  # a pure function of the step: asked in any order, by another object
    assert torch.equal(Order(n, batch, seed).indices(step), order.indices(step))


def test_order_epochs_and_seeds_differ():
    order = Order(100, 100, 0)
    a, b, c = order.indices(0), order.indices(1), Order(100, 100, 1).indices(0)
    assert not torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(order.indices(0), a)


def test_order_refuses():
    error = refused(lambda: Order(10, 11, 0), Exit.CONFIGURATION, "10 images", "got 11")
    assert error.key == "batch_size"
    refused(lambda: Order(0, 1, 0), Exit.DATA)


# Augmentation


def uint8_images(count, height, width, channels, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (count, height, width, channels), dtype=np.uint8)


def slow_batch(images, indices, mean, std, augmentation, draws):
    """The same batch, one image after the other, in NumPy: (B, H, W, C) float32."""
    batch = []
    for number, index in enumerate(indices.tolist()):
        image = images[index]
        height, width, channels = image.shape
        padding = min(height, width) // 8 if augmentation.crop_padding is None else augmentation.crop_padding
        if augmentation.resized:
            image = slow_resized(image, *(int(draw[number]) for draw in draws.resized))
        elif padding:
            row, column = int(draws.crop[0][number]), int(draws.crop[1][number])
            padded = np.zeros((height + 2 * padding, width + 2 * padding, channels), np.uint8)
            padded[padding : padding + height, padding : padding + width] = image
            image = padded[row : row + height, column : column + width]
        if augmentation.flip and draws.flip[number]:
            image = image[:, ::-1]
        image = (image.astype(np.float32) / np.float32(255) - np.float32(mean)) / np.float32(std)
        if augmentation.cutout:
            top = int(draws.cutout[0][number]) - augmentation.cutout // 2
            left = int(draws.cutout[1][number]) - augmentation.cutout // 2
            image[
                max(top, 0) : max(top + augmentation.cutout, 0), max(left, 0) : max(left + augmentation.cutout, 0)
            ] = 0
        batch.append(image)
    return np.stack(batch)


def slow_resized(image, top, left, rows, columns):
    """The window, resized to the size of the image by torch's bilinear interpolation."""
    window = torch.from_numpy(image[top : top + rows, left : left + columns].astype(np.float32)).permute(2, 0, 1)
    assert window.shape[1:] == (rows, columns), "it lies inside of the image"
    return functional.interpolate(window[None], image.shape[:2], mode="bilinear")[0].permute(1, 2, 0).numpy()


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([1, 2, 3, 4]),
    padding=st.one_of(st.none(), st.integers(0, 12)),
    mirror=st.booleans(),
    side=st.integers(0, 11),
    seed=st.integers(0, 1000),
    resized=st.booleans(),
)
def test_batch_is_the_slow_loop(height, width, channels, padding, mirror, side, seed, resized):
    padding = padding and min(padding, height, width)
    side = min(side, height - 1, width - 1)
    images = uint8_images(9, height, width, channels, seed)
    mean, std = [0.3, 0.5, 0.1, 0.9][:channels], [0.2, 0.7, 1.0, 0.05][:channels]
    augmentation = Augmentation(padding, mirror, side, resized)
    part = tiny.resident(images, np.arange(9), "cpu", mean, std, augmentation)
    indices = torch.tensor([8, 0, 3, 3, 5])
    batch, labels = tiny.batch(part, indices, torch.Generator().manual_seed(seed))
    draws = augmentation.draw(5, height, width, torch.Generator().manual_seed(seed))
    expected = slow_batch(images, indices, mean, std, augmentation, draws)
    made = batch.permute(0, 2, 3, 1).numpy()
    # 2e-3 of a pixel's value, in units of std: where to look is a float32 between -1 and 1.
    assert np.allclose(made, expected, rtol=0, atol=2e-3 / min(std)) if resized else np.array_equal(made, expected)
    assert torch.equal(labels, indices) and labels.dtype == torch.int64
    assert batch.dtype == torch.float32
    assert batch.stride() == (
        height * width * channels,
        1,
        width * channels,
        channels,
    )  # channels_last, also with one channel


def test_normalization_is_that_of_torchvision():
    transforms = pytest.importorskip("torchvision.transforms")
    images, mean, std = uint8_images(5, 8, 8, 3), (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    part = tiny.resident(images, np.zeros(5), "cpu", mean, std)
    expected = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    batch, _ = tiny.batch(part, torch.arange(5), torch.Generator())
    for got, image in zip(batch, images, strict=True):
        assert torch.equal(got, expected(image))


def test_draws_are_in_range_and_uniform():
    n, augmentation = 20_000, Augmentation(2, True, 3)
    draws = augmentation.draw(n, 6, 4, torch.Generator().manual_seed(0))
    for values, high in zip((*draws.crop, *draws.cutout, draws.flip.long()), (5, 5, 6, 4, 2), strict=True):
        counts = torch.bincount(values)
        assert len(counts) == high  # every value occurs, none outside
        assert ((counts - n / high).abs() < 5 * (n / high) ** 0.5).all()  # 5 standard deviations, binomial
    both = torch.stack((*draws.crop, *draws.cutout, draws.flip.long())).double()
    assert (torch.corrcoef(both) - torch.eye(5)).abs().max() < 0.04  # drawn independently of each other


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 64)])
def test_windows_are_those_of_torchvision(height, width):
    """Quantiles of place and size, against those of RandomResizedCrop, an image after the other."""
    transforms = pytest.importorskip("torchvision.transforms")
    n = 4000
    drawn = torch.stack(random_windows(n, height, width, torch.Generator().manual_seed(0)))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        image = torch.empty(1, height, width)
        theirs = [transforms.RandomResizedCrop.get_params(image, AREA, RATIO) for _ in range(n)]
    for ours, other in zip(drawn.double(), torch.tensor(theirs).T.double(), strict=True):
        steps = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
        assert (ours.quantile(steps) - other.quantile(steps)).abs().max() < 0.05 * width  # 4 standard deviations
    top, left, rows, columns = drawn
    assert min(top.min(), left.min(), rows.min() - 1, columns.min() - 1) >= 0
    assert (top + rows).max() == height and (left + columns).max() == width
    everywhere = torch.stack(random_windows(50_000, 3, 2, torch.Generator().manual_seed(0)))
    assert (everywhere[0] + everywhere[2] <= 3).all() and (everywhere[1] + everywhere[3] <= 2).all()


def test_augmentation_that_leaves_nothing_is_refused():
    def part(augmentation):
        return tiny.resident(uint8_images(4, 8, 9, 1), np.zeros(4), "cpu", [0.5], [0.5], augmentation)

    error = refused(lambda: part(Augmentation(10**9, False, 16)), Exit.CONFIGURATION, "9x8", "got 1000000000", "got 16")
    assert [problem.key for problem in error.problems] == ["dataset.crop_padding", "cutout"]
    refused(lambda: part(Augmentation(0, False, 8)), Exit.CONFIGURATION, "at most 4")
    part(Augmentation(8, True, 7))
    part(Augmentation(10**9, resized=True))  # of which it makes no use


def test_augmentation_off_makes_no_draw():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    part = tiny.resident(uint8_images(4, 7, 7, 1), np.zeros(4), "cpu", [0.5], [0.5], Augmentation(None, False, 0))
    tiny.batch(part, torch.arange(4), generator)  # an eighth of 7 is 0
    assert torch.equal(generator.get_state(), before)
    assert (
        Augmentation().padding(32, 40) == 4
        and Augmentation(0).padding(32, 32) == 0
        and Augmentation(3).padding(8, 8) == 3
    )


def test_batch_is_determined_by_the_generator():
    part = tiny.resident(
        uint8_images(16, 8, 8, 3), np.arange(16), "cpu", [0.5] * 3, [0.2] * 3, Augmentation(None, True, 4)
    )
    indices = torch.arange(16)
    first, second, other = (tiny.batch(part, indices, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)


def alternating(count, batch_size=5, seed=0, flip=True):
    """A feed of images that differ from their mirror images, neither cropped nor cut."""
    images = uint8_images(count, 3, 4, 1)
    augmentation = Augmentation(0, flip, alternating=True)
    return BatchFeed(
        tiny.resident(images, np.arange(count), "cpu", [0.5], [0.2], augmentation), batch_size, seed
    ), images


def mirrored(feed, images, epoch):
    """Image -> whether it is flipped in this epoch, by looking at it."""
    found = {}
    for step in range(epoch * feed.steps_per_epoch, (epoch + 1) * feed.steps_per_epoch):
        batch, labels = tiny.fed(feed, step, torch.Generator().manual_seed(step))
        plain = feed.part.preparation.normalized(torch.from_numpy(images[labels.numpy()]))
        for shown, image, label in zip(batch, plain, labels.tolist(), strict=True):
            found[label] = torch.equal(shown, image.flip(-1))
            assert found[label] or torch.equal(shown, image)
    return found


@settings(max_examples=20, deadline=None)
@given(count=st.integers(5, 23), batch_size=st.integers(1, 5), seed=st.integers(0, 2**63 - 1))
def test_two_successive_epochs_show_every_image_both_ways_round(count, batch_size, seed):
    feed, images = alternating(count, batch_size, seed)
    epochs = [mirrored(feed, images, epoch) for epoch in range(4)]
    assert all(len(epoch) == feed.steps_per_epoch * batch_size for epoch in epochs)  # the rest of an epoch is dropped
    for first, second in pairwise(epochs):
        assert all(first[image] != second[image] for image in first.keys() & second.keys())
    again, _ = alternating(count, batch_size, seed)  # one that goes on after two epochs
    assert mirrored(again, images, 3) == epochs[3]
    other = alternating(count, 1, seed)  # a function of image and epoch: neither of batch nor of position
    assert epochs[2].items() <= mirrored(*other, 2).items()


def test_coins_of_alternating_flips():
    first, other = (mirrored(*alternating(2000, 200, seed), 0) for seed in (0, 1))
    assert abs(sum(first.values()) - 1000) < 5 * 500**0.5  # 5 standard deviations, binomial
    assert abs(sum(first[image] == other[image] for image in range(2000)) - 1000) < 5 * 500**0.5


def test_alternating_flips_draw_nothing_and_need_flips():
    for mirror in (True, False):
        feed, images = alternating(10, flip=mirror)
        generator = torch.Generator().manual_seed(0)
        before = generator.get_state()
        tiny.fed(feed, 0, generator)
        assert torch.equal(generator.get_state(), before)
        assert any(mirrored(feed, images, 0).values()) == mirror


def test_images_of_a_batch_have_their_own_draws():
    part = tiny.resident(
        np.tile(uint8_images(1, 16, 16, 1), (32, 1, 1, 1)),
        np.zeros(32),
        "cpu",
        [0.5],
        [0.2],
        Augmentation(None, True, 4),
    )
    batch, _ = tiny.batch(part, torch.arange(32), torch.Generator().manual_seed(0))
    assert len(torch.unique(batch.flatten(1), dim=0)) > 28


def test_pure_functions():
    images = torch.arange(24.0).view(2, 1, 3, 4) + 1
    kept = images.clone()
    zero, one = torch.tensor([0, 0]), torch.tensor([1, 1])
    assert torch.equal(crop(images, 1, one, one), images)
    assert (
        torch.equal(crop(images, 1, zero, one)[:, :, 1:], images[:, :, :-1])
        and (crop(images, 1, zero, one)[:, :, 0] == 0).all()
    )
    assert torch.equal(flip(images, torch.tensor([False, True])), torch.stack((images[0], images[1].flip(-1))))
    assert (cutout(images, 1, zero, zero) == 0).sum() == 2 and (cutout(images, 20, zero, zero) == 0).all()
    assert torch.equal(images, kept)


def test_evaluation_batches():
    images, labels = uint8_images(10, 8, 8, 2), np.arange(10)
    part = tiny.resident(images, labels, "cpu", [0.5, 0.4], [0.2, 0.3], Augmentation(None, True, 4))
    plain = tiny.resident(images, labels, "cpu", [0.5, 0.4], [0.2, 0.3])
    batches = list(part.batches(4))
    assert [len(y) for _, y in batches] == [4, 4, 2] and len(part) == 10
    assert torch.equal(torch.cat([y for _, y in batches]), torch.arange(10))
    assert torch.equal(torch.cat([x for x, _ in batches]), tiny.batch(plain, torch.arange(10), torch.Generator())[0])
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x, _ in batches)
    assert part.images.shape == (10, 2, 8, 8) and part.images.dtype == torch.uint8
    assert np.array_equal(part.images.permute(0, 2, 3, 1).numpy(), images)  # unchanged by the batches


@pytest.mark.parametrize("resized", [False, True])
def test_batch_never_waits_for_the_device(resized):
    augmentation = Augmentation(1, True, 4, resized)
    part = tiny.resident(uint8_images(16, 8, 8, 3), np.arange(16), "cpu", [0.5] * 3, [0.2] * 3, augmentation)
    indices, generator = torch.arange(16), torch.Generator()
    with tiny.NoSync():
        tiny.batch(part, indices, generator)
    feed, _ = alternating(10)
    tiny.fed(feed, 0, generator)  # a permutation is drawn
    with tiny.NoSync():
        tiny.fed(feed, 1, generator)


@pytest.mark.cuda
def test_batch_never_waits_for_the_gpu():
    part = tiny.resident(
        uint8_images(16, 8, 8, 3), np.arange(16), "cuda", [0.5] * 3, [0.2] * 3, Augmentation(1, True, 4)
    )
    order, generator = Order(16, 8, 0, "cuda"), torch.Generator("cuda").manual_seed(0)
    images, _ = tiny.batch(part, order.indices(0), generator)  # the first permutation is copied to the device
    torch.cuda.set_sync_debug_mode("error")
    try:
        tiny.batch(part, order.indices(1), generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert images.is_cuda and images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.cuda
def test_gpu_batch_is_the_slow_loop():
    images, augmentation = uint8_images(9, 12, 10, 3), Augmentation(2, True, 5)
    part = tiny.resident(images, np.arange(9), "cuda", [0.5] * 3, [0.25] * 3, augmentation)
    indices = torch.tensor([8, 0, 3, 3, 5], device="cuda")
    batch, _ = tiny.batch(part, indices, torch.Generator("cuda").manual_seed(3))
    draws = augmentation.draw(5, 12, 10, torch.Generator("cuda").manual_seed(3))
    expected = slow_batch(images, indices, [0.5] * 3, [0.25] * 3, augmentation, draws)
    np.testing.assert_allclose(batch.permute(0, 2, 3, 1).cpu().numpy(), expected, rtol=1e-6, atol=1e-6)


def test_dataset_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(DatasetConfig()).name = "other"
