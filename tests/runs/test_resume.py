"""A run that was stopped anywhere and resumed is bit-identical to one that was never stopped; what cannot be resumed says so."""

import json
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import pytest
import tiny
import torch

from darts_lite.cli.run import run_verb
from darts_lite.errors import Exit, UserError
from darts_lite.runs import signals
from darts_lite.search import search
from darts_lite.storage import checkpoint
from darts_lite.training import search_step

pytestmark = pytest.mark.usefixtures("tiny_folder")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """name -> folder in which a configuration has run without a stop, made when it is first asked for."""
    folders = {}

    def get(name):
        if name not in folders:
            folder = tmp_path_factory.mktemp(name)
            before = os.getcwd()
            os.chdir(folder)
            tiny.write_data()
            try:
                assert tiny.outcome(tiny.killed_run, CONFIGS[name], ()) == 0, Path("said").read_text()
            finally:
                os.chdir(before)
            folders[name] = folder
        return folders[name] / "run"

    return get


CONFIGS = {
    "first_order": tiny.search_config(),
    "unrolled": tiny.search_config(solver="unrolled", edge_weights=True, warmup_epochs=1),
    "bf16": tiny.search_config(precision="bf16"),
    "retrain": tiny.retrain_config(),
}


def stop(config, *points, every=1):
    """Start the run and let it die at the first point, go on until the second, ..., and finish."""
    folder = None
    for point in [*points, ()]:
        code = tiny.outcome(tiny.killed_run, tiny.replace(config, resume=folder, checkpoint_steps=every), point)
        assert code == (-signal.SIGKILL if point else 0), Path("said").read_text()
        folder = "run"


def assert_exact(name, whole):
    left, right = tiny.trace("run"), tiny.trace(whole(name))
    for one in (left, right):  # inert settings may differ, nothing else
        del one["config.yaml"], one["checkpoint"]["config"]["checkpoint_steps"]
    tiny.assert_same(left, right)


# kill -9


@pytest.mark.parametrize("moment", tiny.MOMENTS)
def test_every_moment_is_a_call_of_something(moment):
    owner, name = tiny.place(moment)
    assert callable(getattr(owner, name))


def test_a_killed_search(whole):
    stop(
        CONFIGS["first_order"],
        ("before", "search step"),  # the first checkpoint is there, and nothing else
        ("before", "search step"),  # and again, after it was resumed
        ("before", "weight step", 2),  # between the two halves of a step
        ("torn", "alphas.jsonl", 1),  # in the middle of the end of an epoch
        ("before", "rename", 1, "step_"),  # a checkpoint is written, and not renamed
        ("after", "rename", 1, "step_"),  # it is renamed, and older ones are not pruned
        ("before", "board again", 2),  # while TensorBoard's view is made again
        ("before", "json", 1, "result.json"),  # after the last checkpoint
        ("after", "json", 1, "result.json"),  # all is there, but it does not say that it is finished
    )
    assert_exact("first_order", whole)


def test_a_killed_unrolled_search(whole):
    """Steps are repeated from the first checkpoint, then from the only other one; what they had recorded is taken back."""
    stop(
        CONFIGS["unrolled"],
        ("after", "search step", 3),
        ("before", "weight step", 6),
        ("after", "search step", 2),
        every=4,
    )
    assert_exact("unrolled", whole)


def test_a_killed_retraining(whole):
    stop(
        CONFIGS["retrain"],
        ("after", "retrain step", 3),
        ("torn", "metrics.jsonl", 2),
        ("before", "lines taken back"),  # while it is being resumed
        ("before", "evaluation"),  # at the end of an epoch
        ("before", "rename", 1, "model.pt"),
        ("before", "json", 1, "result.json"),
    )
    assert_exact("retrain", whole)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stride"), [("first_order", 1), ("unrolled", 7), ("bf16", 7), ("retrain", 2)])
@pytest.mark.timeout(3600)
def test_killed_at_every_moment(name, stride, whole):
    """Every `stride`-th of all moments before and after a rename, removal, line or step; and again soon after each resume."""
    number = 1
    while True:
        number += stride
        shutil.rmtree("run", ignore_errors=True)
        config = tiny.replace(CONFIGS[name], checkpoint_steps=2)
        code = tiny.outcome(tiny.killed_run, config, ("at_event", number))
        assert code in (0, -signal.SIGKILL), Path("said").read_text()
        if code == 0:
            break
        if checkpoint.files(Path("run/checkpoints")):
            again = tiny.outcome(tiny.killed_run, tiny.replace(config, resume="run"), ("at_event", 1 + number % 37))
            assert again in (0, -signal.SIGKILL), Path("said").read_text()
            config = tiny.replace(config, resume="run")
        assert tiny.outcome(tiny.killed_run, config, ()) == 0, Path("said").read_text()
        assert_exact(name, whole)
    assert number > 100


# Signals and exceptions


def signalled(words, number, times):
    """The command line, with a signal to itself in the third step."""

    def interrupt():
        for _ in range(times):
            os.kill(os.getpid(), number)

    tiny.act("weight step", 3, interrupt)
    return run_verb("search", words)


WORDS = [
    *(
        "method=darts_first_order",
        "dataset=npz",
        "dataset.path=data.npz",
        "dataset.flip=true",
        "space.nodes=2",
        "cells=3",
        "channels=2",
        "epochs=2",
    ),
    *("space.candidates=[none,max_pool_3x3,skip_connect,sep_conv_3x3]", "batch_size=16", "alpha_lr=0.1", "cutout=2"),
    *("run_dir=run", "log_every=2"),
]


@pytest.mark.parametrize(
    ("number", "times", "code", "step"),
    [(signal.SIGTERM, 2, 143, 3), (signal.SIGINT, 1, 130, 3), (signal.SIGINT, 2, 130, 0)],
)
def test_signals(number, times, code, step, whole):
    assert tiny.outcome(signalled, WORDS, number, times) == code
    said = Path("said").read_text()
    last = said.splitlines()[-1]
    assert "python -m darts_lite.search resume=run" in last and "Traceback" not in said and "\x1b" not in said
    assert tiny.newest("run")["step"] == step
    status = json.loads(Path("run/status.json").read_text())
    assert status["state"] == ("interrupted" if step else "running") and status["step"] == step
    assert tiny.outcome(run_verb, "search", ["resume=run"]) == 0, Path("said").read_text()
    assert_exact("first_order", whole)


def at_step(number, action):
    """The weight step that does `action` instead, at one step."""
    weight_step = search_step.weight_step

    def step(state, *arguments):
        if state.clock.done == number:
            action()
        return weight_step(state, *arguments)

    return step


def boom():
    raise RuntimeError("boom")


def test_an_exception(whole, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="boom"):
        patch.setattr(search_step, "weight_step", at_step(4, boom))
        tiny.run(CONFIGS["first_order"], checkpoint_steps=3)
    status = json.loads(Path("run/status.json").read_text())
    assert (status["state"], status["step"], status["reason"]) == ("failed", 3, "RuntimeError: boom")
    tiny.run(CONFIGS["first_order"], resume="run")
    assert_exact("first_order", whole)


def test_an_interruption_in_python(monkeypatch):
    monkeypatch.setattr(search_step, "weight_step", at_step(1, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(signals.Interrupted) as error:
        tiny.run(tiny.search_config())
    assert error.value.code == 143 and "resume=run" in str(error.value)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert tiny.newest("run")["step"] == 2


# Damage


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A search that was killed in its fourth step, with a checkpoint after two steps and one after three."""
    folder, before = tmp_path_factory.mktemp("half"), os.getcwd()
    os.chdir(folder)
    tiny.write_data()
    config = tiny.search_config(checkpoint_steps=1)
    try:
        assert tiny.outcome(tiny.killed_run, config, ("before", "weight step", 4)) == -signal.SIGKILL
    finally:
        os.chdir(before)
    return folder / "run"


@pytest.fixture
def stopped(half):
    shutil.copytree(half, "run")
    return Path("run")


def latest(run):
    return checkpoint.files(run / "checkpoints")[0]


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "payload"])
def test_a_damaged_newest_checkpoint(damage, stopped, whole):
    path = latest(stopped)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {
            "cut": data[:middle],
            "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "empty": b"",
            "payload": pickle.dumps(Payload(Path("executed").resolve())),
        }[damage]
    )
    report = tiny.Report()
    search(tiny.search_config(resume="run"), report=report)
    assert len(report.warnings) == 1 and "going on from step 2" in report.warnings[0]
    assert path.with_name(path.name + ".corrupt").exists() and not path.exists()
    assert not Path("executed").exists()
    assert_exact("first_order", whole)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def refusal(capsys, words, code, verb="search"):
    """The one line that a command ends with."""
    capsys.readouterr()
    assert run_verb(verb, words) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    lines = said.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("darts_lite: error: ") and len(lines[0]) <= 400, said.err
    return lines[0]


@pytest.mark.parametrize("kind", ["pickle", "in a checkpoint"])
def test_a_payload_is_not_executed(kind, stopped, capsys):
    payload = Payload(Path("executed").resolve())
    state = checkpoint.unpack(latest(stopped).read_bytes())
    torch.save({**state, "more": payload}, "hostile.pt")
    tiny.rewrite(stopped, pickle.dumps(payload) if kind == "pickle" else Path("hostile.pt").read_bytes())
    before = tree(stopped)
    refusal(capsys, ["resume=run"], Exit.RUN)
    assert not Path("executed").exists() and tree(stopped) == before


def weights(change):
    return lambda state: change(state["weights"])


def first(tensors):
    return next(iter(tensors))


def shrink(tensors):
    name = first(tensors)
    tensors[name] = tensors[name].flatten()[:1].clone()


TAMPERED = {
    "weight small": weights(lambda w: shrink(w["network"])),
    "weight missing": weights(lambda w: w["network"].pop(first(w["network"]))),
    "weight more": weights(lambda w: w["network"].update(more=torch.ones(1))),
    "weights a list": lambda state: state.update(weights=[]),
    "weights missing": lambda state: state.pop("weights"),
    "weight text": weights(lambda w: w["network"].update({first(w["network"]): "text"})),
    "momentum small": weights(lambda w: shrink(w["optimizer"][0])),
    "momentum text": weights(lambda w: w["optimizer"][0].update(momentum_buffer="text")),
    "momentum missing": weights(lambda w: w["optimizer"].pop(0)),
    "momentum a list": weights(lambda w: w.update(optimizer=[1])),
    "alphas small": lambda state: shrink(state["architecture"]),
    "alphas missing": lambda state: state.pop("architecture"),
    "adam small": lambda state: state["alpha_optimizer"][0].update(exp_avg=torch.zeros(1)),
    "adam step": lambda state: state["alpha_optimizer"][0].update(step=torch.zeros(3)),
    "adam missing": lambda state: state.update(alpha_optimizer={}),
    "clock phase": lambda state: state["clock"].update(phase=1),
    "clock before": lambda state: state["clock"].update(phase=-1),
    "clock late": lambda state: state["clock"].update(phase_step=7),
    "clock negative": lambda state: state["clock"].update(phase_step=-1),
    "clock text": lambda state: state["clock"].update(done="3"),
    "clock enormous": lambda state: state["clock"].update(done=2**70),
    "clock missing": lambda state: state.update(clock={}),
    "alive small": lambda state: state.update(alive={cell: mask[:1] for cell, mask in state["alive"].items()}),
    "alive numbers": lambda state: state.update(alive={cell: mask.float() for cell, mask in state["alive"].items()}),
    "alive none": lambda state: state.update(alive={cell: mask & False for cell, mask in state["alive"].items()}),
    "alive missing": lambda state: state["alive"].pop("reduce"),
    "meters text": lambda state: state["meters"]["counts"].update({"train/loss": "3"}),
    "meters without a count": lambda state: state["meters"].update(sums={"train/loss": torch.ones(())}),
    "verdict text": lambda state: state["verdict"].update(stop="yes"),
    "verdict of a setting": lambda state: state["verdict"].update(change={"epochs": 3}),
    "verdict missing": lambda state: state.pop("verdict"),
    "meters large": lambda state: state["meters"].update(sums={"a": torch.zeros(2)}, counts={"a": 1}),
    "meters missing": lambda state: state.pop("meters"),
    "files": lambda state: state["files"].clear(),
    "config": lambda state: state["config"].clear(),
    "config dataset": lambda state: state["config"].pop("dataset"),
    "config large": lambda state: state["config"].update(cells=100, channels=4096, reductions=list(range(100))),
    "config deep": lambda state: state["config"].update(cells=100),
    "config text": lambda state: state["config"].update(cells="3"),
    "verb": lambda state: state["run"].clear(),
    "environment": lambda state: state.update(env=None),
}


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_checkpoint_that_does_not_fit(kind, stopped):
    state = checkpoint.unpack(latest(stopped).read_bytes())
    TAMPERED[kind](state)
    tiny.rewrite(stopped, state)
    before = tree(stopped)
    with pytest.raises(UserError) as error:
        tiny.run(tiny.search_config(resume="run"))
    assert error.value.code == Exit.RUN and len(error.value.problems) == 1, error.value
    assert tree(stopped) == before


def test_a_checkpoint_that_does_not_fit_is_one_line(stopped, capsys):
    state = checkpoint.unpack(latest(stopped).read_bytes())
    TAMPERED["weight small"](state)
    tiny.rewrite(stopped, state)
    assert "does not fit its configuration" in refusal(capsys, ["resume=run"], Exit.RUN)


def test_strides_of_a_checkpoint_do_not_matter(stopped, whole):
    """A fused kernel walks through a buffer as it lies in memory; a stored one with a stride of 0 has but one element there."""
    state = checkpoint.unpack(latest(stopped).read_bytes())
    for number, tensors in state["weights"]["optimizer"].items():
        velocity = tensors["momentum_buffer"]
        state["weights"]["optimizer"][number] = {
            "momentum_buffer": velocity.mT.contiguous().mT if velocity.dim() > 1 else velocity
        }
    tiny.rewrite(stopped, state)
    tiny.run(tiny.search_config(resume="run"))
    assert_exact("first_order", whole)


def test_another_machine_is_one_warning(stopped):
    state = checkpoint.unpack(latest(stopped).read_bytes())
    state["env"]["threads"] = 96
    state["env"]["versions"]["torch"] = "2.11.0"
    tiny.rewrite(stopped, state)
    report = tiny.Report()
    search(tiny.search_config(resume="run"), report=report)
    assert len(report.warnings) == 1 and "threads 96 -> 1" in report.warnings[0] and "2.11.0" in report.warnings[0]


def test_other_data(stopped, capsys):
    tiny.write_data(seed=1)
    before = tree(stopped)
    assert "began with other data" in refusal(capsys, ["resume=run"], Exit.RUN)
    assert tree(stopped) == before


def test_the_same_data_in_another_place(stopped, whole, capsys):
    Path("there").mkdir()
    Path("data.npz").rename("there/here.npz")
    assert "check dataset.path" in refusal(capsys, ["resume=run"], Exit.DATA)
    tiny.write_data("other.npz", seed=1)
    before = tree(stopped)
    assert "began with other data" in refusal(capsys, ["resume=run", "dataset.path=other.npz"], Exit.RUN)
    line = refusal(capsys, ["resume=run", "dataset.path=there/here.npz", "dataset.flip=false"], Exit.RUN)
    assert "dataset.flip" in line and "dataset.path" not in line
    assert "dataset.path" in refusal(capsys, ["resume=run", "dataset.path=null"], Exit.RUN)
    assert tree(stopped) == before
    words = ["resume=run", "dataset.path=there/here.npz"]
    assert run_verb("search", words) == 0
    said = capsys.readouterr()
    assert "dataset.path 'data.npz' -> 'there/here.npz': accepted, if the data is the same" in said.out and not said.err
    left, right = tiny.trace("run"), tiny.trace(whole("first_order"))
    for one in (left, right):
        del one["config.yaml"], one["board"], one["status"]["configuration"]
        for name in ("path", "configuration"):
            one["checkpoint"]["config"]["dataset"].pop(name, None)
        del one["checkpoint"]["run"]["configuration"], one["checkpoint"]["config"]["checkpoint_steps"]
    tiny.assert_same(left, right)
    # From now on the run knows the new place.
    assert "there/here.npz" in Path("run/config.yaml").read_text()
    assert run_verb("search", ["resume=run"]) == 0
    auto = ["resume=auto", "dataset.path=there/here.npz"]
    assert run_verb("search", [*(word for word in WORDS if not word.startswith("dataset.path")), *auto]) == 0
    assert "already finished: run" in capsys.readouterr().out


def test_auto_finds_a_run_whose_data_has_moved(stopped, capsys):
    runs = Path("outputs/search/npz")
    runs.mkdir(parents=True)
    run = stopped.rename(runs / "first")
    Path("data.npz").rename("here.npz")
    tiny.write_data("other.npz", seed=1)
    words = [word for word in WORDS if not word.startswith(("dataset.path", "run_dir"))]
    assert run_verb("search", [*words, "resume=auto", "dataset.path=other.npz"]) == 0
    assert "there is no run of this configuration on this data, so a new one begins" in capsys.readouterr().out
    assert len(list(runs.iterdir())) == 2
    for said in ("resumed at step 3 of 6", "already finished"):
        assert run_verb("search", [*words, "resume=auto", "dataset.path=here.npz"]) == 0
        found = capsys.readouterr()
        assert f"{said}" in found.out and f"{run}" in found.out and not found.err
        assert "is a trial" not in found.out, "that is for who begins"
        assert ("the same data lay elsewhere" in found.out) == (said == "resumed at step 3 of 6"), "then it knows where"
    assert len(list(runs.iterdir())) == 2
    assert run_verb("search", [*words, "resume=auto", "dataset.path=here.npz", "lr=0.1"]) == 0
    assert "so a new one begins" in capsys.readouterr().out and len(list(runs.iterdir())) == 3


# The command line


def test_a_changed_configuration(stopped, capsys):
    before = tree(stopped)
    line = refusal(capsys, ["resume=run", "epochs=5", "lr=0.1", "space.nodes=2"], Exit.RUN)
    assert "epochs 2 -> 5" in line and "lr 0.025 -> 0.1" in line and "nodes" not in line
    assert tree(stopped) == before


def test_settings_that_change_nothing(stopped, capsys, whole):
    assert run_verb("search", ["resume=run", "checkpoint_steps=2", "epochs=2", "log_every=2"]) == 0
    said = capsys.readouterr()
    assert "checkpoint_steps 1 -> 2: accepted" in said.out and not said.err
    assert "resumed at step 3 of 6" in said.out
    assert_exact("first_order", whole)


def waits(words):
    tiny.act("weight step", 2, lambda: (Path("ready").touch(), time.sleep(60)))
    return run_verb("search", words)


def test_a_second_run_in_the_folder(capsys):
    process = tiny.start(waits, WORDS)
    deadline = time.monotonic() + 60
    while not Path("ready").exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    for words in (["resume=run"], WORDS, [*WORDS, "resume=auto"]):
        assert f"pid {process.pid} on " in refusal(capsys, words, Exit.IN_USE)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert json.loads(Path("run/status.json").read_text())["state"] == "running"
    assert "already holds a run" in refusal(capsys, WORDS, Exit.RUN)
    assert run_verb("search", ["resume=run"]) == 0


def test_auto(whole, capsys):
    words = [*(word for word in WORDS if not word.startswith("run_dir")), "resume=auto", "dataset.path=data.npz"]
    assert tiny.outcome(signalled, words, signal.SIGTERM, 1) == 143  # none there: it starts
    (folder,) = Path("outputs/search/npz").iterdir()
    assert run_verb("search", [*words, "epochs=1"]) == 0  # another configuration: it starts
    assert len(list(Path("outputs/search/npz").iterdir())) == 2
    capsys.readouterr()
    assert run_verb("search", words) == 0  # unfinished: it goes on
    assert "resumed at step 3 of 6" in capsys.readouterr().out
    shutil.copytree(folder, "run")
    before = tree(folder)
    for again in (words, [f"resume={folder}"]):  # finished: it says so
        assert run_verb("search", again) == 0
        assert f"already finished: {folder}" in capsys.readouterr().out
    assert tree(folder) == before and len(list(Path("outputs/search/npz").iterdir())) == 2


@pytest.mark.parametrize("path", ["nowhere", "data.npz", "empty"])
def test_nothing_to_resume(path, capsys):
    Path("empty").mkdir()
    refusal(capsys, [f"resume={path}"], Exit.RUN)
    assert sorted(os.listdir()) == ["data.npz", "empty"] and not os.listdir("empty")


def test_a_finished_run_returns_its_result(whole):
    shutil.copytree(whole("retrain"), "run")
    before = tree(Path("run"))
    result = tiny.run(tiny.retrain_config(resume="run"))
    assert result == json.loads(Path("run/result.json").read_text())
    assert tree(Path("run")) == before


def test_an_exception_is_no_user_error():
    """A bug that happens while a new run starts is not blamed on a checkpoint."""

    class Broken:
        def sample(self, *arguments):
            raise ValueError("broken")

        expected = sample

    with pytest.raises(ValueError, match="broken") as error:
        tiny.run(tiny.search_config(relaxation=Broken()))
    assert not isinstance(error.value, UserError)
