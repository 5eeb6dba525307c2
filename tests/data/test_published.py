"""Published data sets: what their files hold is what is loaded; what is not theirs, or only a part, is named and does nothing."""

import gzip
import os
import pickle
import shlex
import struct
import sys
from dataclasses import replace

import numpy as np
import published_files as files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_lite import data
from darts_lite.cli.line import read_line
from darts_lite.cli.run import run_verb
from darts_lite.data import published
from darts_lite.data.files import open_regular
from darts_lite.data.idx import read_idx
from darts_lite.data.published import PUBLISHED
from darts_lite.errors import Exit, UserError
from darts_lite.runs.next_command import data_words
from darts_lite.settings.datasets import DatasetConfig, preset_config


def load(name, root, **changes):
    return data.load(preset_config(name, root=str(root), **changes))


def refused(call, code, *words):
    with pytest.raises(UserError) as caught:
        call()
    line = f"darts_lite: error: {caught.value}"
    assert caught.value.code == code and "\n" not in line and len(line) <= 400, line
    for word in words:
        assert word in line, line
    return caught.value


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """make(name, **changes of the test batch) -> root of a data set whose MD5 sums are the published ones."""

    def make(name="cifar10", **changes):
        made = files.cifar(name, **changes)
        files.trust(monkeypatch, name, made)
        files.write(tmp_path / PUBLISHED[name].folder, made)
        return tmp_path

    return make


# What is right


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_what_its_files_hold(name, cifar):
    root = cifar(name)
    loaded = load(name, root)
    stored = {"train": [], "test": []}
    for file in PUBLISHED[name].files:
        with open(root / PUBLISHED[name].folder / file.name, "rb") as stream:
            stored[file.holds].append(pickle.load(stream, encoding="latin1"))
    for part, batches in stored.items():
        rows = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = [label for batch in batches for label in batch["labels" if name == "cifar10" else "fine_labels"]]
        assert np.array_equal(getattr(loaded, f"x_{part}"), rows.transpose(0, 2, 3, 1))
        assert getattr(loaded, f"y_{part}").tolist() == labels
    assert loaded.name == name and loaded.class_names == PUBLISHED[name].classes[:10]


def test_class_names():
    counts = {name: len(set(source.classes)) for name, source in PUBLISHED.items()}
    assert counts == {"cifar10": 10, "cifar100": 100, "mnist": 10, "fashion_mnist": 10, "svhn": 10}
    assert all(list(PUBLISHED[name].classes) == sorted(PUBLISHED[name].classes) for name in ("cifar10", "cifar100"))


def test_facts_are_those_of_torchvision():
    from torchvision import datasets

    for name, theirs in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        ours = PUBLISHED[name]
        assert [[file.name, file.md5] for file in ours.files] == theirs.train_list + theirs.test_list
        package = ours.downloads[0]
        assert (package.addresses, package.name, package.md5) == ((theirs.url,), theirs.filename, theirs.tgz_md5)
        assert ours.folder == theirs.base_folder
    for name, theirs in (("mnist", datasets.MNIST), ("fashion_mnist", datasets.FashionMNIST)):
        ours = PUBLISHED[name]
        assert [(package.name, package.md5) for package in ours.downloads] == theirs.resources
        assert {address.rpartition("/")[0] + "/" for package in ours.downloads for address in package.addresses} == set(
            theirs.mirrors
        )
        assert ours.folder == f"{theirs.__name__}/raw"
    assert PUBLISHED["fashion_mnist"].classes == tuple(datasets.FashionMNIST.classes)
    svhn = [datasets.SVHN.split_list[part] for part in ("train", "test")]
    assert [[p.addresses[0], p.name, p.md5] for p in PUBLISHED["svhn"].downloads] == svhn
    assert [[file.name, file.md5] for file in PUBLISHED["svhn"].files] == [entry[1:] for entry in svhn]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["", "usual"])
def test_idx_files_plain_or_gzipped(name, packed, place, tmp_path):
    files.write(tmp_path / (PUBLISHED[name].folder if place else ""), files.mnist_files(packed))
    loaded = load(name, tmp_path)
    for array, values in files.mnist().items():
        assert np.array_equal(getattr(loaded, array).squeeze(), values)
    assert loaded.class_names == PUBLISHED[name].classes and loaded.x_train.shape == (files.TRAIN, 28, 28, 1)


def test_a_subset_may_lack_the_last_classes(tmp_path):
    labels = {name: array % 4 for name, array in files.mnist().items() if name[0] == "y"}
    files.write(tmp_path, files.mnist_files(**labels))
    assert load("mnist", tmp_path).class_names == ("0", "1", "2", "3")


def test_the_real_mnist(data_folder):
    loaded = load("mnist", data_folder / "mnist")
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # published counts of the classes
    assert np.bincount(loaded.y_train).tolist() == train and loaded.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(loaded.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (round(loaded.mean[0], 4), round(loaded.std[0], 4)) == (0.1307, 0.3081)  # as in everybody's scripts


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """make(**arrays of the test file) -> root."""
    savemat = pytest.importorskip("scipy.io").savemat

    def make(**changes):
        made = {}
        for name, count in (("train_32x32.mat", files.TRAIN), ("test_32x32.mat", files.TEST)):
            labels = 1 + np.arange(count, dtype=np.uint8)[:, None] % 10
            stored = {"X": files.images(count, 32, 32, 3).transpose(1, 2, 3, 0), "y": labels}
            savemat(tmp_path / name, stored | (changes if name[:4] == "test" else {}), do_compression=True)
            made[name] = (tmp_path / name).read_bytes()
        files.trust(monkeypatch, "svhn", made)
        return tmp_path

    return make


def test_svhn(svhn):
    loaded = load("svhn", svhn())
    assert np.array_equal(loaded.x_train, files.images(files.TRAIN, 32, 32, 3))
    assert loaded.y_train.tolist() == (np.arange(1, files.TRAIN + 1) % 10).tolist(), "10 stands for the digit 0"
    assert loaded.classes == 10


def test_svhn_that_is_wrong(svhn, monkeypatch):
    root = svhn(y=np.full((files.TEST, 1), 11, np.uint8))
    refused(lambda: load("svhn", root), Exit.DATA, "test_32x32.mat", "outside 1..10")
    refused(lambda: load("svhn", svhn(X=np.zeros(3))), Exit.DATA, "test_32x32.mat: cannot be read")
    refused(lambda: load("svhn", svhn(y=np.ones((7, 1), np.uint8))), Exit.DATA, "y_test", "20 images", "got 7")
    path = svhn() / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr("scipy.io.loadmat", None)  # would fail if it were called
    refused(lambda: load("svhn", root), Exit.DATA, "train_32x32.mat: is not the published file", "MD5")


def test_svhn_without_scipy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    refused(lambda: load("svhn", tmp_path, download=True), Exit.ENVIRONMENT, "scipy: ", "python -m pip install scipy")
    assert list(tmp_path.iterdir()) == []


# Pickles

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.tuples(inner, inner, inner, inner) | st.dictionaries(st.text(), inner)
    ),
)


@settings(max_examples=60, deadline=None)
@given(value=PLAIN, protocol=st.integers(0, 2))
def test_plain_pickles_are_read_as_python_does(value, protocol):
    assert published.unpickled(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_python_does(order):
    written = files.old_pickle({"data": np.asarray(files.images(5, 7), order=order)})
    expected = pickle.loads(written, encoding="latin1")["data"]
    assert expected.flags.f_contiguous == (order == "F")
    assert np.array_equal(published.uint8_array(published.unpickled(written)["data"]), expected)


class Payload:
    def __reduce__(self):
        return os.system, ("touch owned",)


NAMED = b"cposix\nsystem\n"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
PAYLOADS = {
    **{f"protocol {number}": pickle.dumps({"data": Payload()}, number) for number in range(6)},
    "name only": NAMED + b".",
    "instance": b"(S'touch owned'\niposix\nsystem\n.",
    "object": b"(" + NAMED + b"S'touch owned'\no.",
    "new object": b"\x80\x02" + NAMED + b"U\x0btouch owned\x85\x81.",
    "name from the stack": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0btouch owned\x85R.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Pname\n.",
    "other names of numpy": b"cnumpy\nload\n(S'owned.npy'\ntR.",
    "subtle name": b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
    "call of what is no name": b"I1\n(tR.",
    "state of what is no name": b"}(I1\nI2\nub0.",
    "append to a dict": b"}I1\na.",
    "memory": ARRAY + b"(I999999999999\ntU\x01bI0\n\x87R.",
    "nothing": b"",
    "no end": b"}",
    "unknown opcode": b"\xff",
    "unfinished text": b"\x80\x02T\xff\xff\xff\x7fabc.",
    "pop of nothing": b"aaaa.",
    "no mark": b"t.",
    "odd pairs": b"}(I1\nu.",
    "unhashable key": b"}]I1\ns.",
    "no such memory": b"h\x07.",
}


@pytest.mark.parametrize("case", PAYLOADS)
def test_no_pickle_does_anything(case, tmp_path, monkeypatch, cifar):
    """Even if its MD5 sum were the published one."""
    monkeypatch.chdir(tmp_path)
    cifar()
    folder = PUBLISHED["cifar10"].folder
    bad = {file.name: (tmp_path / folder / file.name).read_bytes() for file in PUBLISHED["cifar10"].files}
    bad["data_batch_3"] = PAYLOADS[case]
    files.trust(monkeypatch, "cifar10", bad)
    files.write(tmp_path / folder, bad)
    refused(lambda: load("cifar10", tmp_path), Exit.DATA, "data_batch_3: cannot be read (", "dataset.download=true")
    assert not (tmp_path / "owned").exists()


def test_a_payload_is_named():
    with pytest.raises(pickle.UnpicklingError, match="posix system, which is never done"):
        published.unpickled(PAYLOADS["protocol 2"])


# What is wrong

BATCHES = {
    "no data": ({"data": None}, "'data'"),
    "no labels": ({"labels": None}, "'labels'"),
    "labels as an array": ({"labels": files.images(files.TEST)}, "cannot be read"),
    "labels as text": ({"labels": ["a"] * files.TEST}, "a label is no integer"),
    "labels as fractions": ({"labels": [0.5] * files.TEST}, "a label is no integer"),
    "labels as truths": ({"labels": [True] * files.TEST}, "a label is no integer"),
    "one label too few": ({"labels": [1] * (files.TEST - 1)}, "reshape"),
    "data as a list": ({"data": [1, 2]}, "there is no array"),
    "data of another size": ({"data": files.images(files.TEST, 3071)}, "reshape"),
    "class 10": ({"labels": [*[0] * (files.TEST - 1), 10]}, "label 10 at index 19 is outside 0..9"),
    "class -1": ({"labels": [-1] * files.TEST}, "label -1 at index 0 is outside 0..9"),
    "no image": ({"labels": [], "data": files.images(0, 3072)}, "there is no image"),
}


@pytest.mark.parametrize("case", BATCHES)
def test_batches_that_are_wrong(case, cifar):
    changes, words = BATCHES[case]
    root = cifar("cifar10", **changes)
    refused(lambda: load("cifar10", root), Exit.DATA, "cifar-10-batches-py", words)


def test_one_class_in_cifar(cifar, monkeypatch):
    made = {
        file.name: files.old_pickle(files.batch(files.images(8, 3072), [4] * 8)) for file in PUBLISHED["cifar10"].files
    }
    root = files.write(cifar() / "one", made)
    files.trust(monkeypatch, "cifar10", made)
    refused(lambda: load("cifar10", root), Exit.DATA, "y_train: every image has the same label")


@pytest.mark.parametrize("change", ["cut", "flipped", "empty", "longer"])
def test_what_is_not_the_published_file_is_not_read(change, cifar, monkeypatch):
    root = cifar()
    path = root / "cifar-10-batches-py" / "data_batch_2"
    whole = path.read_bytes()
    flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
    path.write_bytes({"cut": whole[:-5], "flipped": flipped, "empty": b"", "longer": whole + b"x"}[change])
    read, seen = published.unpickled, []
    monkeypatch.setattr(published, "unpickled", lambda content: seen.append(content) or read(content))
    words = ("data_batch_2: is not the published file, or only a part of it: its MD5", "dataset.download=true")
    refused(lambda: load("cifar10", root), Exit.DATA, *words)
    assert len(seen) == 1, "only the batch before it"


X, Y = files.images(files.TRAIN, 28, 28), np.arange(files.TRAIN, dtype=np.uint8) % 10
HUGE = struct.pack(">IIII", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1)
IDX = {
    "cut images": ({"x_train": files.idx(X)[:-1]}, "train-images", "31375 bytes cannot hold the 31360 values"),
    "cut labels": ({"y_test": files.idx(Y)[:20]}, "t10k-labels", "20 bytes cannot hold the 40 values"),
    "cut header": ({"x_train": files.idx(X)[:10]}, "train-images", "cannot be read"),
    "empty file": ({"x_train": b""}, "train-images", "cannot be read"),
    "longer": ({"x_train": files.idx(X) + b"x"}, "train-images", "cannot hold"),
    "labels for images": ({"x_train": files.idx(Y)}, "train-images", "does not begin as an idx file"),
    "images for labels": ({"y_train": files.idx(X)}, "train-labels", "does not begin as an idx file"),
    "floats": ({"x_train": files.idx(X, magic=0x0D03)}, "train-images", "does not begin as an idx file"),
    "little endian": ({"y_train": b"\x01\x08\0\0" + files.idx(Y)[4:]}, "train-labels", "does not begin"),
    "huge": ({"x_train": HUGE + bytes(100)}, "train-images", "cannot hold the 79228162458924105385300197375 values"),
    "label 10": ({"y_train": np.where(Y == 9, 10, Y).astype(np.uint8)}, "y_train", "label 10 at index 9 is outside"),
    "label 200": ({"y_test": np.full(files.TEST, 200, np.uint8)}, "y_test", "label 200 at index 0 is outside"),
    "one class": ({"y_train": Y * 0, "y_test": Y[: files.TEST] * 0}, "y_train", "every image has the same label"),
    "class of the test only": ({"y_train": Y % 2}, "y_test", "label 9 at index 9 is outside 0..1"),
    "fewer labels": ({"y_train": Y[1:]}, "y_train", "40 images", "got 39"),
    "no image": ({"x_test": X[:0], "y_test": Y[:0]}, "x_test", "there is no image"),
    "no height": ({"x_test": np.zeros((files.TEST, 0, 28), np.uint8)}, "x_test", "there is no image"),
    "other size": ({"x_test": files.images(files.TEST, 27, 28)}, "x_test", "28x28 with 1 channel"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", IDX)
def test_idx_files_that_are_wrong(case, packed, tmp_path):
    changes, *words = IDX[case]
    files.write(tmp_path / "MNIST" / "raw", files.mnist_files(packed, **changes))
    if packed and "cannot hold" in words[-1] and case != "huge":
        words[-1] = "it goes on after" if case == "longer" else "it ends after"  # found when it is unpacked
    refused(lambda: load("mnist", tmp_path), Exit.DATA, *words)


def test_gzip_files_that_are_wrong(tmp_path, monkeypatch):
    path, whole = tmp_path / "x.gz", gzip.compress(files.idx(X))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    later = bytearray(whole)
    later[-6] ^= 1
    for content in (whole[:-4], whole[:-9], whole[:200], bytes(flipped), bytes(later), b"\x1f\x8b", files.idx(X)):
        path.write_bytes(content)
        refused(lambda: read_idx(path, 3), Exit.DATA, "x.gz: cannot be read (")
    path.write_bytes(gzip.compress(struct.pack(">IIII", 2051, 10**4, 100, 100) + bytes(10**8), 1))
    monkeypatch.setattr("darts_lite.data.files.available_memory", lambda: 10**8)
    monkeypatch.setattr("darts_lite.data.idx._values", None)  # would fail if it were called
    refused(lambda: read_idx(path, 3), Exit.DATA, "0.2 GB of memory")


def test_what_is_no_file(tmp_path):
    folder = files.write(tmp_path / "MNIST" / "raw", files.mnist_files())
    path = folder / "train-images-idx3-ubyte"
    path.unlink()
    path.mkdir()
    refused(lambda: load("mnist", tmp_path), Exit.DATA, "train-images-idx3-ubyte: is a directory")
    path.rmdir()
    os.mkfifo(path)
    refused(lambda: load("mnist", tmp_path), Exit.DATA, "is not a regular file")
    refused(lambda: open_regular("nul\0byte", "it", "do"), Exit.DATA, "cannot be read")


# What is not there


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_missing_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    usual = os.path.join(tmp_path, "data", PUBLISHED[name].folder).rstrip("/")
    first, more = PUBLISHED[name].files[0].name, f"{len(PUBLISHED[name].files) - 1} more"
    shown = usual if len(usual) <= 100 else usual[-48:]
    words = (f"{name} is not in ", shown, f"no {first} and {more}", "dataset.download=true", "dataset.root=...")
    refused(lambda: data.load(preset_config(name)), Exit.DATA, *words, "dataset=npz dataset.path=<file>.npz")
    refused(lambda: data.load(DatasetConfig(name=name)), Exit.DATA, *words)
    assert list(tmp_path.iterdir()) == [], "nothing is made"
    deep = tmp_path / ("long" * 50)
    refused(lambda: load(name, deep), Exit.DATA, "dataset=npz dataset.path=<file>.npz")


def test_one_missing_file(tmp_path):
    folder = files.write(tmp_path / "MNIST" / "raw", files.mnist_files())
    (folder / "t10k-labels-idx1-ubyte").unlink()
    refused(lambda: load("mnist", tmp_path), Exit.DATA, "MNIST/raw: no t10k-labels-idx1-ubyte; fix")


# Downloads, from a server on this machine


@pytest.fixture
def packages():
    """data set -> (files, what is downloaded for them)."""
    batches, plain = files.cifar("cifar10"), files.mnist_files()
    packed = {f"{name}.gz": gzip.compress(content) for name, content in plain.items()}
    archive = {"cifar-10-python.tar.gz": files.tar("cifar-10-batches-py", batches)}
    return {"cifar10": (batches, archive), "mnist": (plain, packed)}


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_download(name, packages, tmp_path, monkeypatch, capsys):
    made, served = packages[name]
    root = tmp_path / "new" / "root"
    with files.server(served) as (address, asked):
        files.trust(monkeypatch, name, made, address, served)
        first = load(name, root, download=True)
        assert set(asked) == set(served)
        count = len(asked)
        again = load(name, root, download=True)
        assert len(asked) == count, "what is there is not fetched again"
    assert first.fingerprint == again.fingerprint == load(name, root).fingerprint
    folder = root / PUBLISHED[name].folder
    assert all((folder / file).read_bytes() == content for file, content in made.items())
    said = capsys.readouterr().err
    assert said.startswith(f"darts_lite: downloading {address}") and "\r" not in said and "\x1b" not in said
    victim = folder / PUBLISHED[name].files[1].name
    victim.write_bytes(victim.read_bytes()[:-3])
    refused(lambda: load(name, root), Exit.DATA, victim.name)
    with files.server(served) as (address, asked):
        files.trust(monkeypatch, name, made, address, served)
        assert load(name, root, download=True).fingerprint == first.fingerprint, "a damaged file is mended"


@pytest.mark.parametrize("name", ["cifar10", "mnist", "svhn"])
def test_no_network(name, packages, tmp_path, monkeypatch):
    if name == "svhn":
        pytest.importorskip("scipy")
    empty = {file.name: b"" for file in PUBLISHED[name].files}
    files.trust(monkeypatch, name, packages[name][0] if name in packages else empty)  # nobody listens at port 9
    words = ("dataset.download: ", "could not be downloaded from http://127.0.0.1:9/", "refused", "dataset=npz")
    refused(lambda: load(name, tmp_path / "new" / "root", download=True), Exit.ENVIRONMENT, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", ["absent", "cut", "other"])
def test_downloads_that_fail(failure, packages, tmp_path, monkeypatch):
    made, served = packages["cifar10"]
    wrong = {name: content[:-1] + b"x" for name, content in served.items()}
    offered = {"absent": {}, "cut": served, "other": wrong}[failure]
    with files.server(offered, cut=served if failure == "cut" else ()) as (address, _):
        files.trust(monkeypatch, "cifar10", made, address, served)
        said = {"absent": "Not Found", "cut": "", "other": "is not the published file, or only a part of it"}[failure]
        refused(
            lambda: load("cifar10", tmp_path / "root", download=True),
            Exit.ENVIRONMENT,
            "cifar-10-python.tar.gz could not be downloaded from",
            said,
        )
    assert not (tmp_path / "root" / "cifar-10-batches-py").exists()
    with files.server(served) as (address, _):
        files.trust(monkeypatch, "cifar10", made, address, served)
        assert load("cifar10", tmp_path / "root", download=True).classes == 10, "typed again, it goes on"


def test_the_second_address(packages, tmp_path, monkeypatch):
    made, served = packages["mnist"]
    with files.server(served) as (address, _):
        files.trust(monkeypatch, "mnist", made, address, served)
        source = PUBLISHED["mnist"]
        downloads = tuple(
            replace(package, addresses=("http://127.0.0.1:9/x.gz", *package.addresses)) for package in source.downloads
        )
        monkeypatch.setitem(PUBLISHED, "mnist", replace(source, downloads=downloads))
        assert load("mnist", tmp_path, download=True).classes == 10


def test_downloads_that_cannot_be_written(packages, tmp_path, monkeypatch):
    made, served = packages["mnist"]
    (tmp_path / "file").write_text("")
    with files.server(served) as (address, asked):
        files.trust(monkeypatch, "mnist", made, address, served)
        refused(lambda: load("mnist", tmp_path / "file", download=True), Exit.ENVIRONMENT, "cannot be written")
        assert asked == []


# Settings


def test_settings_that_are_wrong():
    refused(
        lambda: load("mnist", "x", path="a.npz"),
        Exit.CONFIGURATION,
        "dataset.path",
        "dataset=npz in place of",
        "'a.npz'",
    )
    refused(lambda: data.load(DatasetConfig(download=True)), Exit.CONFIGURATION, "dataset.download", "cifar10")
    refused(lambda: data.load(DatasetConfig(name="mnst")), Exit.CONFIGURATION, "did you mean 'mnist'")


@pytest.mark.parametrize(
    "config",
    [
        DatasetConfig(),
        DatasetConfig(name="npz", path="it's ü.npz", flip=True, mean=[0.5], std=[0.25]),
        *(preset_config(name) for name in PUBLISHED),
        preset_config("cifar10", root="/my data/é", flip=False, crop_padding=None),
        preset_config("mnist", root="x", crop_padding=2, flip=True),
    ],
    ids=lambda config: f"{config.name}-{config.root}",
)
def test_the_words_of_the_next_command_give_the_same_data(config, composed):
    words = shlex.split(data_words(config))
    assert words or config == DatasetConfig()
    line = read_line("retrain", words)
    assert not line.problems
    assert composed("retrain", [f"{key}={value}" for key, value in line.overrides.items()]).dataset == config
    assert "download" not in data_words(preset_config("mnist", download=True))


@pytest.mark.parametrize("name", list(data.DATASETS))
def test_what_is_usual_is_what_the_files_say(name, composed):
    assert composed("search", [f"dataset={name}"]).dataset == preset_config(name)


def test_the_main_job(tmp_path, monkeypatch, capsys):
    """From the files of a published set to an evaluation, each command as the one before says, after the data has moved."""
    monkeypatch.chdir(tmp_path)
    files.write(tmp_path / "data" / "MNIST" / "raw", files.mnist_files(side=8))
    tiny = ["epochs=1", "batch_size=10", "cells=1", "channels=2", "device=cpu"]
    space = ["space.nodes=1", "space.candidates=[skip_connect,max_pool_3x3]"]
    assert run_verb("search", ["dataset=mnist", "dataset.fraction=0.5", *tiny, *space]) == 0
    following = capsys.readouterr().out.partition("next: python -m darts_lite.retrain ")[2].split("\n")[0]
    assert " dataset=mnist" in following and "fraction" not in following, "a part is for the search only"
    assert run_verb("retrain", [*following.split(), *tiny]) == 0
    (tmp_path / "data").rename(tmp_path / "other")
    run = next((tmp_path / "outputs/retrain/mnist").iterdir())
    capsys.readouterr()
    assert run_verb("evaluate", [f"run={run}"]) == 3
    assert "mnist is not in " in capsys.readouterr().err.splitlines()[-1]
    assert run_verb("evaluate", [f"run={run}", "dataset_path=other"]) == 0
    resumed = [f"resume={run}", "dataset.download=true"]  # finished: nothing to do, and no other configuration
    (tmp_path / "other").rename(tmp_path / "data")
    assert run_verb("retrain", resumed) == 0
