"""Several runs in one command: each is what it would be by itself, all are reported, and a stop anywhere changes nothing."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from process import ROOT

from darts_lite import data
from darts_lite.cli.run import run_verb
from darts_lite.discretize import DiscretizeConfig, discretize
from darts_lite.errors import Exit, Interrupted, UserError
from darts_lite.evaluate import EvaluateConfig, evaluate
from darts_lite.genotypes.genotype import from_json, to_json
from darts_lite.methods.method import Stateful
from darts_lite.models import load_model
from darts_lite.retrain import RetrainConfig, retrain
from darts_lite.runs import repetitions
from darts_lite.runs.repetitions import best_restart, every_seed
from darts_lite.runs.resume import newest_finished, resolve, runs_below
from darts_lite.search import search
from darts_lite.settings.configs import RunConfig
from darts_lite.settings.options import LARGEST_SEED
from darts_lite.spaces import find_genotype
from darts_lite.storage import checkpoint
from darts_lite.training import retrain_step as retrain_state

pytestmark = pytest.mark.usefixtures("tiny_folder")


def seeds(**changes):
    """Two retrainings of two steps."""
    small = {"seeds": [2, 0], "cells": 2, "channels": 2, "epochs": 1, "batch_size": 48, "test_every": None}
    return tiny.retrain_config(**{**small, "ema": 0.9, "checkpoint_steps": 1, **changes})


def restarts(**changes):
    """Two searches of three steps, and a retraining of three steps after each."""
    small = {"restarts": 2, "restart_epochs": 1, "epochs": 1, "alpha_lr": 0.5, "seed": 3, "checkpoint_steps": 1}
    return tiny.search_config(**{**small, **changes})


def family(parent):
    """`tiny.trace` of the children, and what of the parent does not depend on how often it was stopped."""
    parent = Path(parent)
    state = tiny.newest(parent)
    del state["time"]
    result = tiny.read_json(parent / "result.json")
    for row in result.get("seeds", []):
        del row["training_seconds"]
    return {
        "checkpoint": tiny.frozen(state),
        "result": {key: value for key, value in result.items() if key not in tiny.RAN},
        "status": {key: value for key, value in tiny.read_json(parent / "status.json").items() if key != "time"},
        "files": sorted(str(path.relative_to(parent)) for path in parent.glob("[!.t]*") if path.name != "checkpoints"),
        "drawn": {path.name: path.read_bytes() for path in parent.glob("cells/*")},
        **{path.parent.name: tiny.trace(path.parent) for path in parent.glob("*/metrics.jsonl")},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with finished runs of both kinds, `seeds` and `restarts`, their traces before they were moved, and their results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("made"))
        tiny.write_data()
        traces, results = {}, {}
        for name, config in (("seeds", seeds()), ("restarts", restarts())):
            results[name] = tiny.run(config)
            traces[name] = family("run")
            shutil.move("run", name)
        return Path.cwd(), traces, results


@pytest.fixture
def both(made):
    for name in ("seeds", "restarts"):
        shutil.copytree(made[0] / name, name)
    return made[2]


# What is run and reported


def without(trace, *keys):
    """A trace without settings that two commands may differ in."""
    config = trace["checkpoint"]["config"]
    return {**trace, "config.yaml": None, "checkpoint": {**trace["checkpoint"], "run": None, "config": {
        key: value for key, value in config.items() if key not in ("run_dir", *keys)}}, "status": None, "board": None}  # fmt: skip


def test_each_seed_is_the_run_that_it_would_be_by_itself(both):
    tiny.run(seeds(seeds=None, seed=0))
    tiny.assert_same(without(tiny.trace("run")), without(tiny.trace("seeds/seed_0")))
    assert tiny.trace("seeds/seed_2")["model.pt"] != tiny.trace("seeds/seed_0")["model.pt"]


def test_all_seeds_are_reported(both):
    result = json.loads(Path("seeds/result.json").read_text())
    assert result == both["seeds"]
    single = [json.loads(Path(f"seeds/seed_{seed}/result.json").read_text()) for seed in (2, 0)]
    assert [(row["seed"], row["run"], row["test"]["accuracy"], row["test"]["loss"]) for row in result["seeds"]] == [
        (one["seed"], f"seed_{one['seed']}", one["test"]["accuracy"], one["test"]["loss"]) for one in single
    ]
    for name in ("accuracy", "loss"):
        values = [one["test"][name] for one in single]
        assert result["test"][name] == pytest.approx(statistics.mean(values))
        assert result["test"][f"{name}_std"] == pytest.approx(statistics.stdev(values))
    assert result["genotype"] == single[0]["genotype"] and result["test"]["runs"] == 2


def test_a_single_seed_and_random_genotypes():
    report = tiny.Report()
    result = retrain(seeds(seeds=[5], genotype="random", drop_path=0.0), report=report)
    assert result["test"]["accuracy_std"] is None and result["test"]["runs"] == 1
    assert from_json(json.dumps(result["genotype"])) == find_genotype("random", seed=5)
    assert any(line.startswith("test: accuracy") and line.endswith("run/result.json") for line in report.lines)


def test_several_runs_serve_as_a_genotype_where_they_have_one(both):
    found = from_json(json.dumps(both["seeds"]["genotype"]))
    assert find_genotype("seeds") == find_genotype("seeds/result.json") == found
    result = {**both["seeds"], "genotype": None}  # as after `genotype=random`
    Path("seeds/result.json").write_text(json.dumps(result))
    with pytest.raises(UserError, match="genotype: is null: the runs have different genotypes") as error:
        find_genotype("seeds")
    assert error.value.code == Exit.CONFIGURATION
    assert find_genotype("restarts/result.json") == find_genotype("restarts")


def test_each_restart_is_the_search_that_it_would_be_by_itself(both):
    tiny.run(restarts(restarts=1, seed=4))
    ours, theirs = tiny.trace("run"), tiny.trace("restarts/restart_1")
    tiny.assert_same(without(ours), without(theirs))


class Tired(Stateful):
    """A regularization that does less each time."""

    def __init__(self):
        self.calls = 0

    def __call__(self, gradients, loss, mixing, progress):
        self.calls += 1
        for gradient in tiny.moved(gradients):
            gradient.div_(self.calls)

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def test_an_object_of_the_users_own_starts_anew_in_each_restart():
    tiny.run(restarts(regularization=Tired(), run_dir="several"))
    tiny.run(restarts(regularization=Tired(), restarts=1, seed=4))
    assert Path("several/restart_1/alphas.jsonl").read_text() == Path("run/alphas.jsonl").read_text()


def test_the_short_retraining_picks_and_all_are_reported(both):
    result = json.loads(Path("restarts/result.json").read_text())
    assert result == both["restarts"]
    scores = []
    for i, row in enumerate(result["restarts"]):
        searched, judged = (tiny.read_json(f"restarts/{kind}_{i}/result.json") for kind in ("restart", "validation"))
        assert row["seed"] == searched["seed"] == judged["seed"] == 3 + i and row["run"] == f"restart_{i}"
        assert row["genotype"] == searched["genotype"] == judged["genotype"] and "test" not in judged
        for name in ("accuracy", "loss"):
            assert row["validation"][name] == judged["validation"][name]
            assert row["supernet"][name] == searched["validation"][name]
        # The halves of the search, at its size.
        settings = tiny.newest(f"restarts/validation_{i}")["config"]
        assert (settings["train_fraction"], settings["cells"], settings["channels"]) == (0.5, 3, 2)
        assert judged["validation"]["samples"] == searched["validation"]["samples"] == 48
        scores.append((judged["validation"]["accuracy"], -judged["validation"]["loss"]))
    best = max(range(2), key=scores.__getitem__)
    assert result["picked"] == f"restart_{best}" and result["genotype"] == result["restarts"][best]["genotype"]
    assert Path("restarts/genotype.json").read_text() == Path(f"restarts/restart_{best}/genotype.json").read_text()
    assert result["validation"]["accuracy"] == pytest.approx(statistics.mean(accuracy for accuracy, _ in scores))
    assert result["validation"]["runs"] == 2 and "highest accuracy" in result["rule"]


def test_data_are_loaded_once_and_a_notice_is_said_once(monkeypatch):
    loads, load = [], data.load
    monkeypatch.setattr(data, "load", lambda config, given: (loads.append(config), load(config, given))[1])
    report = tiny.Report()
    retrain(seeds(), report=report)
    assert len(loads) == 1 and sum("is a trial" in line for line in report.lines) == 1


# Where others look


def test_a_parent_is_the_newest_finished_search(both):
    shutil.copytree("restarts", "outputs/search/npz/parent")
    fingerprint = tiny.read_json("restarts/env.json")["data"]
    assert newest_finished("search", fingerprint) == Path("outputs/search/npz/parent")
    assert list(runs_below(Path("outputs"))) == [Path("outputs/search/npz/parent")], "children are not looked at"
    found = from_json(Path("restarts/genotype.json").read_text())
    assert to_json(find_genotype("restarts")) == to_json(found)
    # Retraining it, from the supernet of the restart that was picked.
    small = seeds(seeds=None, genotype=None, init="supernet", cells=3, drop_path=0.0)
    result = tiny.run(small)
    assert from_json(json.dumps(result["genotype"])) == found
    state = tiny.newest("run")["config"]
    assert state["genotype"] == "outputs/search/npz/parent"


def test_auto_finds_parents_and_not_their_children(both, capsys):
    for name, config in (("seeds", seeds), ("restarts", restarts)):
        verb = "retrain" if name == "seeds" else "search"
        shutil.move(name, f"outputs/{verb}/npz/parent")
        parent = Path(f"outputs/{verb}/npz/parent")
        assert resolve(verb, config(resume="auto", run_dir=None)).folder == parent
        single = config(resume="auto", run_dir=None, **({"seeds": None} if name == "seeds" else {"restarts": 1}))
        assert resolve(verb, single).folder is None
        before = sorted(parent.rglob("*"))
        assert tiny.run(config(resume="auto", run_dir=None)) == json.loads((parent / "result.json").read_text())
        assert sorted(parent.rglob("*")) == before


def test_auto_without_a_genotype_is_about_the_newest_search(both):
    """Of one seed and of several: stored is the search that was taken, and a newer one is another configuration."""
    shutil.copytree("restarts", "outputs/search/npz/first")
    for name, config in (("one", seeds(seeds=None)), ("two", seeds())):
        config = replace(config, genotype=None, drop_path=0.0, resume="auto", run_dir=f"outputs/retrain/npz/{name}")
        tiny.run(config)
        found = resolve("retrain", replace(config, run_dir=None))
        assert found.finished and found.folder == Path(config.run_dir)
        assert found.config.genotype == "outputs/search/npz/first"
    shutil.copytree("restarts/restart_0", "outputs/search/npz/second")
    status = tiny.read_json("outputs/search/npz/second/status.json")
    status["time"]["created"] += 1000
    Path("outputs/search/npz/second/status.json").write_text(json.dumps(status))
    assert resolve("retrain", replace(config, run_dir=None)).folder is None


@pytest.mark.parametrize(
    ("call", "config", "said"),
    [
        (
            evaluate,
            EvaluateConfig(run="seeds"),
            "run: holds several runs, got 'seeds'; fix: give one of them: seeds/seed_0, seed_2",
        ),
        (discretize, DiscretizeConfig(run="restarts"), "give one of them: restarts/restart_0, restart_1"),
        (lambda config, report: load_model(config), "seeds", "give one of them: seeds/seed_0, seed_2"),
        (lambda config, report: tiny.run(config), seeds(init="seeds"), "init: holds several runs"),
    ],
)
def test_where_one_run_is_needed(call, config, said, both):
    with pytest.raises(UserError) as error:
        call(config, report=tiny.Report())
    assert said in str(error.value) and error.value.code == Exit.RUN
    assert not Path("run").exists() and not Path("outputs").exists()


# Stopped and resumed


@pytest.mark.parametrize(
    ("name", "config", "points"),
    [
        (
            "seeds",
            seeds(),
            [
                ("before", "new network"),  # the parent is there, and no child
                ("after", "retrain step", 2),
                (
                    "before",
                    "checkpoint",
                    2,
                ),  # the first is finished, the parent does not know
                ("before", "json", 1, "'runs': 2"),  # all is done but the result
            ],
        ),
        (
            "restarts",
            restarts(),
            [
                ("before", "retrain step", 2),
                ("after", "text", 1, "'genotype.json', '{"),
                ("after", "json", 1, "'picked'"),
            ],
        ),
    ],
    ids=["seeds", "restarts"],
)
def test_killed(name, config, points, made):
    folder = None
    for point in [*points, ()]:
        code = tiny.outcome(tiny.killed_run, replace(config, resume=folder), point)
        assert code == (-signal.SIGKILL if point else 0), (point, Path("said").read_text())
        folder = "run"
    tiny.assert_same(family("run"), made[1][name])


def test_data_that_has_moved(made, capsys):
    assert tiny.outcome(tiny.killed_run, seeds(), ("after", "retrain step", 3)) == -signal.SIGKILL
    Path("data.npz").rename("moved.npz")
    tiny.write_data("other.npz", seed=1)
    assert run_verb("retrain", ["resume=run", "dataset.path=other.npz"]) == Exit.RUN
    assert "began with other data" in capsys.readouterr().err
    assert run_verb("retrain", ["resume=run", "dataset.path=moved.npz"]) == 0
    assert tiny.read_json("run/result.json")["test"] == made[2]["seeds"]["test"]
    for folder in ("run", "run/seed_0"):
        assert "moved.npz" in Path(folder, "config.yaml").read_text()
    assert evaluate(EvaluateConfig(run="run/seed_0"))["test"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "config", "stride"), [("seeds", seeds(), 11), ("restarts", restarts(), 29)])
def test_killed_at_every_moment(name, config, stride, made):
    """Every `stride`-th of all moments before and after a rename, removal, line or step, of parent and children."""
    number = 1
    while True:
        shutil.rmtree("run", ignore_errors=True)
        code = tiny.outcome(tiny.killed_run, config, ("at_event", number))
        assert code in (0, -signal.SIGKILL), Path("said").read_text()
        if code == 0:
            break
        again = replace(config, resume="run") if checkpoint.files(Path("run/checkpoints")) else config
        assert tiny.outcome(tiny.killed_run, again, ()) == 0, (number, Path("said").read_text())
        tiny.assert_same(family("run"), made[1][name])
        number += stride
    assert number > 100


def signalled(number, at):
    """The training step that sends a signal first, once."""
    step, calls = retrain_state.WeightOptimizer.step, []

    def once(self, *arguments, **named):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return step(self, *arguments, **named)

    return once


@pytest.mark.parametrize(("number", "code", "at"), [(signal.SIGTERM, 143, 3), (signal.SIGINT, 130, 2)])
def test_signals(number, code, at, made, monkeypatch):
    """In the middle of the second run, and in the last step of the first."""
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch, pytest.raises(Interrupted) as error:
        patch.setattr(retrain_state.WeightOptimizer, "step", signalled(number, at))
        tiny.run(seeds())
    assert error.value.code == code and str(error.value).endswith("go on with: python -m darts_lite.retrain resume=run")
    assert signal.getsignal(number) == handler
    status = tiny.read_json("run/status.json")
    assert status["state"] == "interrupted" and status["step"] == 1
    tiny.run(replace(seeds(), seeds=None, resume="run"))
    tiny.assert_same(family("run"), made[1]["seeds"])


def test_a_second_sigint_says_how_to_go_on_with_the_parent():
    script = "import os, signal\nfrom darts_lite.runs.signals import Signals\n"
    script += (
        "with Signals('parent\\n') as outer, Signals('child\\n') as inner:\n    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    script += "    assert inner.raised == outer.raised == 2\n    os.kill(os.getpid(), signal.SIGINT)\n    print('no')"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout, answer.stderr) == (130, "", "parent\n")


def test_from_another_folder(made, monkeypatch):
    """The parent has moved, and is named by a relative path from elsewhere."""
    shutil.copytree(made[0] / "restarts", "moved/run")
    shutil.rmtree("moved/run/validation_1")
    for name in ("result.json", "status.json"):
        os.remove(f"moved/run/{name}")
    result = tiny.run(restarts(resume="moved/run", run_dir=None))
    expected = made[2]["restarts"]
    assert {key: value for key, value in result.items() if key != "time"} == {
        key: value for key, value in expected.items() if key != "time"
    }


# Refused


def tree():
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(Path().rglob("*"))}


WORDS = ["dataset=npz", "dataset.path=data.npz", "cells=2", "channels=2", "run_dir=a/run"]


@pytest.mark.parametrize(
    ("verb", "words", "code", "said"),
    [
        ("retrain", ["seeds=[]"], 2, "seeds: must not be empty"),
        ("retrain", ["seeds=[1,1]"], 2, "seeds: must be distinct"),
        ("retrain", ["seeds=[0,-1]"], 2, "seeds[1]: must be at least 0"),
        ("retrain", ["seeds=[0,0.5]"], 2, "seeds[1]: must be an integer"),
        ("retrain", ["seeds=3"], 2, "seeds: must be a list, got 3"),
        ("retrain", ["seeds=0,1"], 2, "write [a,b] for a list"),
        ("retrain", ["seeds=[0,1]", "seed=0"], 2, "seed: cannot be given beside seeds"),
        ("retrain", ["seeds=[0,1]", "seed=4"], 2, "seed: cannot be given beside seeds"),
        ("retrain", ["seeds=[0,1]", "genotype=nowhere"], 2, "genotype: no such file"),
        ("retrain", ["seeds=[0,1]"], 2, "genotype: none given"),
        ("retrain", ["seeds=[0,1]", "genotype=pc_darts", "batch_size=97"], 2, "batch_size: larger than its part"),
        ("retrain", ["seeds=[0,1]", "genotype=pc_darts", "init=data.npz"], 4, "init: no such run folder"),
        ("retrain", ["seeds=[0,1]", "dataset.path=no.npz"], 3, "no.npz"),
        ("retrain", ["seeds=[0,1]", "genotype=pc_darts", "device=tpu"], 6, "device: not usable here"),
        ("search", ["restarts=0"], 2, "restarts: must be at least 1"),
        ("search", ["restarts=1.5"], 2, "restarts: must be an integer"),
        ("search", ["restarts=2", "restart_epochs=0"], 2, "restart_epochs: must be at least 1"),
        ("search", ["restarts=2", f"seed={LARGEST_SEED}"], 2, "restarts: need seeds up to seed + restarts - 1"),
        ("search", ["restarts=2", "batch_size=49"], 2, "batch_size: larger than its part"),
        ("search", ["restarts=2", "selection=none"], 2, "selection: unknown name"),
    ],
)
def test_refused_without_a_trace(verb, words, code, said, capsys):
    before = tree()
    assert run_verb(verb, [*WORDS, *words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("darts_lite: error: ") and said in line and len(line) <= 400
    assert tree() == before


@pytest.mark.parametrize("kind", ["run", "link", "file"])
def test_a_child_is_there_already(kind, both):
    os.mkdir("run")
    if kind == "run":
        shutil.move("seeds/seed_0", "run/seed_0")
    elif kind == "link":
        os.symlink("../seeds/seed_0", "run/seed_0")
    else:
        Path("run/seed_0").touch()
    before = tree()
    with pytest.raises(UserError, match="is already there") as error:
        tiny.run(seeds())
    assert error.value.code == Exit.RUN and tree() == before


def unfinished(parent):
    for name in ("result.json", "status.json"):
        os.remove(f"{parent}/{name}")


@pytest.mark.parametrize("damage", ["link", "file", "link inside", "checkpoints", "other", "result", "number", "huge"])
def test_a_damaged_child(damage, both):
    unfinished("seeds")
    child = Path("seeds/seed_2")
    said = "is a symbolic link"
    if damage == "link":
        shutil.move(child, "elsewhere")
        child.symlink_to(Path("elsewhere").resolve())
    elif damage == "file":
        shutil.rmtree(child)
        child.touch()
        said = "is a file"
    elif damage == "link inside":
        (child / "notes").symlink_to("/etc/passwd")
    elif damage == "checkpoints":
        for path in checkpoint.files(child / "checkpoints"):
            path.write_bytes(b"no")
        said = "no checkpoint can be loaded"
    elif damage == "other":
        shutil.rmtree(child)
        shutil.copytree("seeds/seed_0", child)
        said = "the run has another configuration: seed 0 -> 2"
    else:
        result = tiny.read_json(child / "result.json")
        result["test"]["accuracy"] = {"number": float("nan"), "huge": 10**400}.get(damage)
        (child / "result.json").write_text("{}" if damage == "result" else json.dumps(result))
        said = "holds no test accuracy"
    before = tree()
    with pytest.raises(UserError) as error:
        tiny.run(seeds(resume="seeds", run_dir=None))
    assert error.value.code == Exit.RUN and said in str(error.value)
    if damage not in ("result", "number", "huge"):  # those are seen at the end
        assert tree() == before


def test_a_parent_is_held_while_its_children_run(monkeypatch):
    seen = []

    def step(self, *arguments, **named):
        with pytest.raises(UserError) as error:
            tiny.run(seeds(resume="run"))
        seen.append(error.value.code)
        return inner(self, *arguments, **named)

    inner = retrain_state.WeightOptimizer.step
    monkeypatch.setattr(retrain_state.WeightOptimizer, "step", step)
    tiny.run(seeds(seeds=[0]))
    assert seen == [Exit.IN_USE] * 2


def test_other_settings_of_a_parent(both, capsys):
    unfinished("seeds")
    assert run_verb("retrain", ["resume=seeds", "seeds=[2,1]"]) == Exit.RUN
    assert "seeds [2, 0] -> [2, 1]" in capsys.readouterr().err
    assert run_verb("retrain", ["resume=seeds", "seeds=[2,0]", "log_every=5"]) == 0
    assert tiny.read_json("seeds/status.json")["state"] == "finished"


# What the children get


OTHER = {"seed": 5, "device": "cpu", "precision": "bf16", "deterministic": True, "cuda_graph": False, "run_dir": "elsewhere",
         "resume": "auto", "debug": "fast", "log_every": 7, "checkpoint_minutes": 9.0, "checkpoint_steps": 11}  # fmt: skip


@pytest.mark.parametrize("key", [field.name for field in fields(RunConfig)])
@pytest.mark.parametrize("kind", [seeds, restarts])
def test_children_run_with_the_settings_of_their_parent(kind, key, monkeypatch):
    changed = kind(**{key: OTHER[key]})
    assert OTHER[key] != getattr(RunConfig(), key)
    made = []
    monkeypatch.setattr(
        repetitions, "run_children", lambda plan, children, finish: made.extend(children(Path("parent"), {}))
    )
    plan = SimpleNamespace(config=changed, report=tiny.Report())
    every_seed(plan, retrain) if kind is seeds else best_restart(plan, search, retrain)
    assert len(made) == (2 if kind is seeds else 4)
    if key == "seed":  # each has its own
        expected = [2, 0] if kind is seeds else [5, 5, 6, 6]
        assert [child.config.seed for child in made] == expected
    elif key in ("run_dir", "resume"):  # set where the child is started
        assert all(getattr(child.resolve(Path("parent")).config, key) != OTHER[key] for child in made)
    else:
        ours = [child for child in made if not (key == "debug" and child.name.startswith("validation"))]
        assert all(getattr(child.config, key) == OTHER[key] for child in ours)


def test_settings_that_a_search_and_a_retraining_have_in_common_reach_the_validation_or_are_its_own(monkeypatch):
    """Of those of its recipe it has its own: a new setting has to be put on one side."""
    recipe = {
        "lr",
        "lr_min",
        "momentum",
        "nesterov",
        "weight_decay",
        "gradient_clip",
        "warmup_epochs",
        "experiment",
        "epochs",
    }
    own = {"seed", "run_dir", "resume", "debug"}
    made = []
    monkeypatch.setattr(
        repetitions, "run_children", lambda plan, children, finish: made.extend(children(Path("parent"), {}))
    )
    config = restarts(reductions=[1], stem="cifar", train_fraction=0.4, cells=4, channels=3, batch_size=9, cutout=1)
    config = replace(config, **{key: OTHER[key] for key in OTHER if key not in own})
    best_restart(SimpleNamespace(config=config, report=tiny.Report()), search, retrain)
    common = {field.name for field in fields(config)} & {field.name for field in fields(made[1].config)}
    for key in common - recipe - own:
        assert getattr(made[1].config, key) == getattr(config, key) != getattr(RetrainConfig(), key), key
