"""Checkpoints: what is written is what is read, damage is noticed, and nothing in a file is ever executed."""

import hashlib
import os
import pickle
import resource
import zipfile
from collections import OrderedDict

import pytest
import torch

from darts_lite.errors import Exit, UserError
from darts_lite.storage import checkpoint

SECTIONS = {"run": {}, "config": {"lr": 0.1}, "env": {}, "files": {}, "time": {}}


def state(value=0.0, **more):
    return {**SECTIONS, "weights": {"w": torch.full((3,), value)}, **more}


@pytest.fixture
def warnings():
    return []


def put(folder, step, data):
    """A checkpoint with the right hash in its name, whatever `data` is."""
    folder.mkdir(exist_ok=True)
    path = folder / f"step_{step:08d}.{hashlib.sha256(data).hexdigest()[:16]}.pt"
    path.write_bytes(data)
    return path


def listing(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_round_trip(tmp_path, warnings):
    parameter = torch.nn.Parameter(torch.randn(2, 3))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    given = state(
        phase=1,
        masks=[torch.tensor([True, False]), None],
        pair=(1, "two", 3.5),
        empty=(),
        model=OrderedDict(p=parameter, view=torch.arange(1000)[3:5]),
        optimizer=optimizer.state_dict(),
        half=torch.ones(2, dtype=torch.bfloat16),
    )
    path = checkpoint.save(tmp_path / "c", 42, given)
    assert path.name == f"step_00000042.{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.pt"
    loaded = checkpoint.load_newest(tmp_path / "c", warnings.append)
    assert loaded.path == path and not loaded.damaged and not warnings
    read = loaded.state
    assert (
        read["format_version"] == checkpoint.FORMAT_VERSION and read["step"] == 42 and read["pair"] == (1, "two", 3.5)
    )
    assert type(read["model"]) is dict and type(read["model"]["p"]) is torch.Tensor
    assert torch.equal(read["model"]["p"], parameter) and not read["model"]["p"].requires_grad
    assert torch.equal(read["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert read["half"].dtype == torch.bfloat16


def test_a_view_does_not_drag_its_storage_along():
    assert len(checkpoint.pack({"view": torch.zeros(100_000)[:2]})) < 4000


def test_equal_states_are_equal_files(tmp_path):
    first = checkpoint.save(tmp_path / "a", 1, state(1.0))
    assert checkpoint.save(tmp_path / "b", 1, state(1.0)).name == first.name


def test_two_are_kept_and_leftovers_cleaned(tmp_path):
    for step in range(3):
        checkpoint.save(tmp_path, step, state(step))
    (tmp_path / ".step_00000003.0123456789abcdef.pt.tmp").write_bytes(b"half a check")
    (tmp_path / "notes.txt").write_text("mine")
    assert [path.name[:13] for path in checkpoint.files(tmp_path)] == ["step_00000002", "step_00000001"]
    checkpoint.save(tmp_path, 100_000_000, state())
    steps = [path.name.split(".")[0] for path in checkpoint.files(tmp_path)]
    assert steps == ["step_100000000", "step_00000002"]
    assert len(list(tmp_path.iterdir())) == 3 and (tmp_path / "notes.txt").exists()


def test_the_same_step_twice(tmp_path, warnings):
    checkpoint.save(tmp_path, 5, state(1.0))
    second = checkpoint.save(tmp_path, 5, {**state(1.0), "time": {"saved": 2.0}})
    assert checkpoint.load_newest(tmp_path, warnings.append).path == second


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "name", "payload", "not plain", "other step"])
def test_damaged_newest(tmp_path, warnings, damage):
    checkpoint.save(tmp_path, 1, state(1.0))
    newest = checkpoint.save(tmp_path, 2, state(2.0))
    data = bytearray(newest.read_bytes())
    newest.unlink()
    if damage in ("flip", "cut", "empty"):
        data[len(data) // 2] ^= 1
        newest.write_bytes({"flip": data, "cut": data[:100], "empty": b""}[damage])
    elif damage == "name":
        newest.with_name("step_00000002.0000000000000000.pt").write_bytes(data)
    elif damage == "payload":
        put(tmp_path, 2, pickle.dumps(Payload(tmp_path / "executed")))
    elif damage == "not plain":
        put(
            tmp_path, 2, bytes(checkpoint.pack({"format_version": checkpoint.FORMAT_VERSION, "step": 2, "weights": {}}))
        )
    else:
        put(tmp_path, 3, bytes(data))
    before = listing(tmp_path)
    loaded = checkpoint.load_newest(tmp_path, warnings.append)
    assert loaded.state["step"] == 1 and torch.equal(loaded.state["weights"]["w"], torch.full((3,), 1.0))
    assert len(warnings) == 1 and "step 1" in warnings[0] and "\n" not in warnings[0]
    assert listing(tmp_path) == before, "reading changes nothing"
    checkpoint.set_aside(loaded.damaged)
    assert len(list(tmp_path.glob("*.corrupt"))) == 1
    assert checkpoint.load_newest(tmp_path, warnings.append).state["step"] == 1 and len(warnings) == 1


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def hostile(kind, folder):
    """Bytes that `torch.load` would read, or worse."""
    shared = [1]
    for _ in range(60):
        shared = [shared, shared]
    cycle = []
    cycle.append(cycle)
    base = {"format_version": 1, "step": 1, **SECTIONS}
    if kind == "pickle":
        return pickle.dumps({**base, "weights": Payload(folder / "executed")})
    if kind == "old format":
        path = folder / "hostile"
        torch.save(base, path, _use_new_zipfile_serialization=False)
        return path.read_bytes()
    content = {
        "torch pickle": {**base, "x": Payload(folder / "executed")},
        "dtype": {**base, "x": torch.float32},
        "size": {**base, "x": torch.Size([1])},
        "version": {**base, "x": torch.__version__},
        "set": {**base, "x": {1}},
        "ordered": OrderedDict(base),
        "parameter": {**base, "x": torch.nn.Parameter(torch.ones(1))},
        "sparse": {**base, "x": torch.ones(2, 2).to_sparse()},
        "list": [base],
        "key": {**base, 1: 2},
        "float key": {**base, "x": {1.5: 2}},
        "no version": {name: value for name, value in base.items() if name != "format_version"},
        "version true": {**base, "format_version": True},
        "version text": {**base, "format_version": "1"},
        "tensor in config": {**base, "config": {"lr": torch.ones(1)}},
        "nan in config": {**base, "config": {"lr": float("nan")}},
        "files missing": {name: value for name, value in base.items() if name != "files"},
        "endless": {**base, "x": shared},
        "cycle": {**base, "x": cycle},
        "stride": {**base, "x": torch.ones(1).expand(2**40)},
        "meta": {**base, "x": torch.empty(2**40, device="meta")},
        "compressed": {**base, "x": torch.zeros(2**18)},
    }[kind]
    path = folder / "hostile"
    torch.save(content, path)
    if kind == "compressed":
        with zipfile.ZipFile(path) as archive:
            entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, text in entries:
                archive.writestr(entry.filename, text)
    data = path.read_bytes()
    path.unlink()
    return data


KINDS = ["pickle", "torch pickle", "dtype", "size", "version", "set", "ordered", "parameter", "sparse", "list", "key"]
KINDS += ["float key", "no version", "version true", "version text", "tensor in config", "nan in config"]
KINDS += ["old format", "files missing", "endless", "cycle", "stride", "meta", "compressed"]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_content_is_refused(tmp_path, warnings, kind):
    path = put(tmp_path / "c", 1, hostile(kind, tmp_path))
    before = listing(tmp_path / "c")
    with pytest.raises(UserError) as error:
        checkpoint.load_newest(tmp_path / "c", warnings.append)
    assert error.value.code == Exit.RUN and path.name in str(error.value)
    assert not (tmp_path / "executed").exists() and listing(tmp_path / "c") == before and not warnings


def test_nothing_to_load(tmp_path, warnings):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError) as error:
            checkpoint.load_newest(folder, warnings.append)
        assert error.value.code == Exit.RUN


@pytest.mark.parametrize("version", [0, 1, checkpoint.FORMAT_VERSION + 1])
def test_another_format_is_not_damage(version, tmp_path, warnings):
    checkpoint.save(tmp_path, 1, state())
    put(tmp_path, 2, bytes(checkpoint.pack({"format_version": version, "step": 2})))
    with pytest.raises(
        UserError, match=f"has format {version}, this version reads {checkpoint.FORMAT_VERSION}"
    ) as error:
        checkpoint.load_newest(tmp_path, warnings.append)
    assert error.value.code == Exit.RUN


def test_links_are_not_followed(tmp_path, warnings):
    real = checkpoint.save(tmp_path / "elsewhere", 1, state())
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / real.name).symlink_to(real)
    with pytest.raises(UserError):
        checkpoint.load_newest(tmp_path / "c", warnings.append)


@pytest.mark.parametrize("value", [torch.__version__, {1, 2}, torch.float32, {1.5: 1}, torch.Size([1]), object()])
def test_what_could_not_be_read_is_not_written(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\.x"):
        checkpoint.save(tmp_path, 1, state(x={"y": value}))
    assert not list(tmp_path.iterdir())


def test_full_disk(tmp_path, warnings):
    checkpoint.save(tmp_path, 1, state())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # writing stops in the middle, as on a full disk
    try:
        with pytest.raises(UserError) as error:
            checkpoint.save(tmp_path, 2, state(big=torch.zeros(100_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.code == Exit.ENVIRONMENT and "step_00000002" in str(error.value)
    assert [path.name[:13] for path in tmp_path.iterdir()] == ["step_00000001"]
    assert checkpoint.load_newest(tmp_path, warnings.append).state["step"] == 1


@pytest.mark.parametrize("call", ["os.open", "os.fsync", "os.replace"])
def test_refusals_of_the_system(tmp_path, monkeypatch, call):
    checkpoint.save(tmp_path, 1, state())
    original = getattr(os, call[3:])

    def refuse(target, *rest, **named):
        if call == "os.open" and not str(target).endswith(".tmp"):
            return original(target, *rest, **named)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(call, refuse)
    with pytest.raises(UserError, match="Permission denied") as error:
        checkpoint.save(tmp_path, 2, state())
    monkeypatch.undo()
    assert error.value.code == Exit.ENVIRONMENT and len(list(tmp_path.iterdir())) == 1


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "c").write_text("")
    with pytest.raises(UserError) as error:
        checkpoint.save(tmp_path / "c", 1, state())
    assert error.value.code == Exit.ENVIRONMENT


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, warnings, monkeypatch):
    checkpoint.save(tmp_path, 1, state())

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(UserError) as error:
        checkpoint.load_newest(tmp_path, warnings.append)
    assert error.value.code == Exit.ENVIRONMENT
