"""The run folder: made late and whole, held by one process, left in a state that can be resumed or used again."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from darts_lite.errors import Exit, Interrupted, UserError
from darts_lite.retrain import RetrainConfig
from darts_lite.runs.signals import Signals
from darts_lite.storage import checkpoint, environment
from darts_lite.storage.json_lines import JsonLines
from darts_lite.storage.lock import FolderLock
from darts_lite.storage.run_folder import RunFolder
from darts_lite.storage.yaml import to_yaml

ENVIRONMENT = {"versions": {"torch": "2"}, "data": "f" * 64}


def create(run_dir, **settings):
    return RunFolder.create(
        "retrain", "digits", None if run_dir is None else str(run_dir), RetrainConfig(**settings), ENVIRONMENT
    )


def tree(path):
    """Every path below `path` with its content: what a refusal must not change."""
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in sorted(path.rglob("*"))}


def state_of(path):
    return json.loads((path / "status.json").read_text())


def refused(code, call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert error.value.code == code, error.value
    return str(error.value)


# A run


def test_default_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with create(None) as run:
        run.save(0, {})
    assert re.fullmatch(r"outputs/retrain/digits/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}", str(run.path))


def test_a_whole_run(tmp_path):
    path = tmp_path / "with space" / "ünï"
    with create(path, lr=1e-5) as run:
        assert sorted(os.listdir(path)) == [".lock"]
        run.save(0, {"weights": {"w": torch.zeros(2)}})
        run.metrics.append({"step": 1, "values": {"train/loss": 0.5}})
        run.log("started")
        run.save(1, {"weights": {"w": torch.ones(2)}, "time": {"epoch": 3.0}})
        run.write_json("result.json", {"test": {"accuracy": 0.5}})
        run.write_text("cells/normal.svg", "<svg/>")
        run.write_bytes("model.pt", b"weights")
        run.status("finished", 1)
    status = state_of(path)
    assert [status[name] for name in ("state", "step", "reason", "verb")] == ["finished", 1, None, "retrain"]
    assert json.loads((path / "env.json").read_text()) == ENVIRONMENT
    stored = yaml.safe_load((path / "config.yaml").read_text())
    assert stored["lr"] == 1e-5 and stored["dataset"]["name"] == "digits" and stored["genotype"] is None
    with RunFolder.reopen(path) as again:
        state = again.load()
    assert state["config"] == stored and state["files"] == {"metrics.jsonl": run.metrics.size, "alphas.jsonl": 0}
    assert state["time"]["epoch"] == 3.0 and not list(path.rglob("*.tmp"))


def test_rewind_takes_the_files_back(tmp_path):
    with create(tmp_path / "run") as run:
        run.save(0, {})
        run.metrics.append({"step": 1})
        run.alphas.append({"epoch": 1})
        run.save(1, {})
        run.metrics.append({"step": 2})
        run.alphas.append({"epoch": 2})
    with RunFolder.reopen(run.path) as again:
        before = tree(run.path)
        state = again.load()
        assert tree(run.path) == before, "loading changes nothing"
        again.rewind(state)
        assert list(again.metrics.read()) == [{"step": 1}] and list(again.alphas.read()) == [{"epoch": 1}]
        assert state_of(run.path)["state"] == "running"
        assert again.seconds >= state["time"]["seconds"]
        again.save(2, {})
    with RunFolder.reopen(run.path) as third:
        assert third.load()["time"]["created"] == state["time"]["created"]


def test_rewind_makes_missing_files_again(tmp_path):
    with create(tmp_path / "run", lr=0.5) as run:
        run.save(0, {})
    for name in ("config.yaml", "env.json", "status.json", ".lock"):
        (run.path / name).unlink()
    with RunFolder.reopen(run.path) as again:
        again.rewind(again.load())
    assert yaml.safe_load((run.path / "config.yaml").read_text())["lr"] == 0.5
    assert {"config.yaml", "env.json", "status.json", ".lock"} < set(os.listdir(run.path))


def test_names_that_a_run_does_not_write(tmp_path):
    with create(tmp_path / "run") as run:
        for name in ("../outside", "notes.txt", "/tmp/x", "cells/a/b"):
            with pytest.raises(ValueError, match="not in the list"):
                run.write_text(name, "")
        with pytest.raises(ValueError, match="folder's own"):
            run.save(0, {"config": {}})
        with pytest.raises(ValueError):
            run.write_json("result.json", {"loss": float("nan")})


# How it ends


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (Interrupted(signal.SIGTERM), "interrupted", "SIGTERM"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (UserError("loss", "not finite", "lower lr", code=Exit.NUMERIC), "failed", "not finite"),
        (ZeroDivisionError("oops"), "failed", "oops"),
    ],
)
def test_status_after_an_exception(tmp_path, error, state, reason):
    with pytest.raises(type(error)), create(tmp_path / "run") as run:
        run.save(3, {})
        raise error
    status = state_of(run.path)
    assert status["state"] == state and reason in status["reason"] and status["step"] == 3
    with RunFolder.reopen(run.path):
        pass


@pytest.mark.parametrize("written", [False, True])
def test_refused_before_the_first_step(tmp_path, written):
    (tmp_path / "there").mkdir()
    for path in (tmp_path / "a" / "b", tmp_path / "there"):
        with pytest.raises(UserError), create(path) as run:
            if written:
                run.status("running", 0)
                run.write_text("cells/normal.svg", "")
            raise UserError("genotype", "wrong", "mend it")
    assert os.listdir(tmp_path) == ["there"] and not os.listdir(tmp_path / "there")


def test_a_first_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError) as error, create(tmp_path / "a" / "b") as run:
        monkeypatch.setattr("os.fsync", refuse)
        run.save(0, {})
    assert error.value.code == Exit.ENVIRONMENT and "No space left" in str(error.value) and not os.listdir(tmp_path)


def test_a_reopened_run_that_is_refused_is_unchanged(tmp_path):
    with create(tmp_path / "run") as run:
        run.save(0, {})
        run.status("finished", 0)
    before = tree(run.path)
    with pytest.raises(UserError), RunFolder.reopen(run.path) as again:
        again.load()
        raise UserError("dataset.path", "missing", "mend it", code=Exit.DATA)
    assert tree(run.path) == before


# Where it may be made


def test_a_folder_that_holds_a_run_is_refused(tmp_path):
    with create(tmp_path / "run") as run:
        run.save(0, {})
        assert "this process" in refused(Exit.IN_USE, create, run.path)
    before = tree(run.path)
    assert "already holds a run" in refused(Exit.RUN, create, run.path)
    (run.path / ".lock").unlink()
    refused(Exit.RUN, create, run.path)
    assert tree(run.path) == {name: content for name, content in before.items() if name != ".lock"}


def test_foreign_files_stay_and_are_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with create(tmp_path) as run:
        run.save(0, {})
    assert (tmp_path / "notes.txt").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text("mine: true")
    assert "config.yaml" in refused(Exit.RUN, create, other)
    assert os.listdir(other) == ["config.yaml"]


def test_what_was_killed_before_its_first_checkpoint_can_be_used_again(tmp_path):
    for remains in ({"status.json": '{"state": "running"}', "config.yaml": "", "env.json": "{}"}, {}):
        path = tmp_path / f"run{len(remains)}"
        (path / "checkpoints").mkdir(parents=True)
        (path / ".lock").write_text("host 1\n")
        (path / "checkpoints" / ".step_00000000.0123456789abcdef.pt.tmp").write_bytes(b"half")
        for name, text in remains.items():
            (path / name).write_text(text)
        assert "holds no checkpoint" in refused(Exit.RUN, RunFolder.reopen, path)
        with create(path) as run:
            run.save(0, {})
        assert not list(path.rglob("*.tmp"))


@pytest.mark.parametrize("place", ["file", "below a file", "device", "nul", "long"])
def test_places_where_no_folder_can_be(tmp_path, place):
    (tmp_path / "file").write_text("")
    path = {"file": "file", "below a file": "file/a/b", "device": "/dev/null/x", "nul": "a\0b", "long": "x" * 300}[
        place
    ]
    refused(Exit.ENVIRONMENT, create, f"{tmp_path}/{path}" if path[0] != "/" else path)
    assert os.listdir(tmp_path) == ["file"]


# Hostile run folders


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "status.json", ".lock", "run.log", "tensorboard", "cells", "genotype.json"]
)
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_links_and_pipes_are_refused(tmp_path, name, kind):
    with create(tmp_path / "run") as run:
        run.save(0, {})
    target = run.path / name
    target.unlink(missing_ok=True)
    (tmp_path / "elsewhere").write_text("precious")
    if kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(tmp_path / ("elsewhere" if kind == "link" else "nowhere"))
    assert name in refused(Exit.RUN, RunFolder.reopen, run.path)
    assert (tmp_path / "elsewhere").read_text() == "precious" and not (tmp_path / "nowhere").exists()


def test_a_link_one_level_down_is_refused(tmp_path):
    with create(tmp_path / "run") as run:
        run.save(0, {})
        run.write_text("cells/normal.svg", "")
    (run.path / "cells" / "reduce.svg").symlink_to(tmp_path)
    refused(Exit.RUN, RunFolder.reopen, run.path)


@pytest.mark.parametrize("offset", [-1, 10**6, 1.0, True, None, "3"])
def test_offsets_outside_the_file(tmp_path, offset):
    with create(tmp_path / "run") as run:
        run.metrics.append({"step": 1})
        run.save(0, {})
    before = tree(run.path)
    with RunFolder.reopen(run.path) as again:
        state = again.load()
        state["files"]["metrics.jsonl"] = offset
        assert "metrics.jsonl" in refused(Exit.RUN, again.rewind, state)
    assert tree(run.path) == before


@pytest.mark.parametrize(
    "line", [b"[1]\n", b"{broken\n", b'{"a": NaN}\n', b"[" * 10**5 + b"\n", b'{"a": 1}', b"\xff\n"]
)
def test_broken_records(tmp_path, line):
    with create(tmp_path / "run") as run:
        run.metrics.append({"step": 1})
        with open(run.metrics.path, "ab") as file:
            file.write(line)
        run.save(0, {})
    before = tree(run.path)
    with RunFolder.reopen(run.path) as again:
        assert "line 2" in refused(Exit.RUN, again.rewind, again.load())
    assert tree(run.path) == before


def test_missing_folder(tmp_path):
    for path in (tmp_path / "nothing", Path("")):
        refused(Exit.RUN, RunFolder.reopen, path)


def test_records_on_a_full_disk():
    refused(Exit.ENVIRONMENT, JsonLines(Path("/dev/full")).append, {"step": 1})


# The lock


def in_child(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def hold(path, ready):
    run = create(path)
    run.save(0, {})
    run.metrics.append({"step": 1})
    ready.set()
    time.sleep(60)


def test_kill_9_and_go_on(tmp_path):
    ready = multiprocessing.get_context("fork").Event()
    process = in_child(hold, tmp_path / "run", ready)
    assert ready.wait(30)
    for call in (create, RunFolder.reopen):
        assert f"pid {process.pid} on " in refused(Exit.IN_USE, call, tmp_path / "run")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert state_of(tmp_path / "run")["state"] == "running"
    with RunFolder.reopen(tmp_path / "run") as run:
        run.rewind(run.load())
        assert run.metrics.size == 0


def save_and_save(path, start):
    run = create(path) if start == 0 else RunFolder.reopen(path)
    step = 0
    if start:
        state = run.load()
        run.rewind(state)
        step = state["step"]
        assert [record["step"] for record in run.metrics.read()] == list(range(1, step + 1))
        assert torch.equal(state["weights"], torch.full((1000,), float(step)))
    while True:
        run.save(step, {"weights": torch.full((1000,), float(step))})
        step += 1
        run.metrics.append({"step": step})


def test_kill_9_at_any_moment(tmp_path):
    steps = [-1]
    for attempt in range(6):
        process = in_child(save_and_save, tmp_path / "run", attempt)
        deadline = time.monotonic() + 30
        while newest(tmp_path / "run") <= steps[-1] and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(0.0013 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        with RunFolder.reopen(tmp_path / "run") as run:
            steps.append(run.load(pytest.fail)["step"])
    assert steps == sorted(set(steps))


def newest(path):
    return max((int(file.name[5:13]) for file in checkpoint.files(path / "checkpoints")), default=-1)


def test_a_forked_child_neither_shares_nor_drops_the_lock(tmp_path):
    held = FolderLock(tmp_path)
    held.acquire(print)
    held.sign()
    child = in_child(held.release)
    child.join()
    script = "import sys; from pathlib import Path; from darts_lite.storage.lock import FolderLock\n"
    script += "try: FolderLock(Path(sys.argv[1])).acquire(print)\nexcept Exception as error: print(int(error.code))"
    answer = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert answer.stdout == "7\n"
    held.release()
    FolderLock(tmp_path).acquire(print)


def test_the_lock_is_kept_when_a_second_one_is_refused(tmp_path):
    with create(tmp_path / "run") as run:
        run.save(0, {})
        (tmp_path / "other name").symlink_to(run.path)
        refused(Exit.IN_USE, RunFolder.reopen, tmp_path / "other name")
        child = in_child(_expect_in_use, run.path)
        child.join()
        assert child.exitcode == 0


def _expect_in_use(path):
    from darts_lite.storage import lock

    lock._HELD.clear()  # a process that knows nothing of the other
    refused(Exit.IN_USE, RunFolder.reopen, path)


def test_no_lock_support_is_one_warning(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    warnings = []
    with RunFolder.create(
        "retrain", "digits", str(tmp_path / "run"), RetrainConfig(), ENVIRONMENT, warnings.append
    ) as run:
        run.save(0, {})
    assert len(warnings) == 1 and "No locks available" in warnings[0]


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_sets_a_flag(number, code):
    before = signal.getsignal(number)
    with Signals() as signals:
        signals.check()
        os.kill(os.getpid(), number)
        assert signals.raised == number
        with pytest.raises(Interrupted) as error:
            signals.check()
    assert error.value.code == code and signal.getsignal(number) == before


def test_a_second_sigint_leaves_at_once():
    script = "import os, signal\nfrom darts_lite.runs.signals import Signals\n"
    script += (
        "with Signals('resume=here\\n'):\n    for _ in range(2): os.kill(os.getpid(), signal.SIGINT)\n    print('no')"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout, answer.stderr) == (130, "", "resume=here\n")


# Environment and YAML


def test_environment():
    described = environment.describe("cpu", "abc")
    json.dumps(described)
    assert type(described["versions"]["torch"]) is str and described["data"] == "abc"
    assert environment.differences(described, described) == []
    other = {**described, "threads": 99, "versions": {**described["versions"], "torch": "1.0"}, "git_commit": None}
    assert environment.differences(other, described) == [
        f"torch 1.0 -> {torch.__version__}",
        f"threads 99 -> {torch.get_num_threads()}",
    ]
    assert environment.differences("nonsense", described)


def test_git_is_asked_about_the_package_only(tmp_path, monkeypatch):
    (tmp_path / "package").mkdir()
    assert environment.git_commit(tmp_path / "package") is None
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert environment.git_commit(tmp_path / "package") is None, "no commit yet"
    author = ["-c", "user.name=a", "-c", "user.email=b"]
    subprocess.run(["git", "-C", tmp_path, *author, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert re.fullmatch(r"[0-9a-f]{40}", environment.git_commit(tmp_path / "package"))
    monkeypatch.setenv("PATH", "")
    assert environment.git_commit(tmp_path / "package") is None


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": {}, "b": [], "c": {"d": {"e": 1}}},
        {"float": [1e-5, 1e16, 0.1, -2.5e-300, float("inf")], "int": 2**63 - 1, "bool": True, "none": None},
        {"text": "a: b # c", "odd": "ünï 😀 \x7f\x85\u2028\ufeff \n\t\"'\\ %", "null": "null", "yes": "no"},
        {"on": 1, "y": 2, "1": 3, "a b": 4, "": 5, "é": 6, "list": [{"a": [1, "x"]}, None], "$": "${oc.env:HOME}"},
    ],
)
def test_yaml(value):
    assert yaml.safe_load(to_yaml(value)) == value
