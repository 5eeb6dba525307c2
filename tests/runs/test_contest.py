"""Candidates compete in short trainings: each run is what it would be by itself, all are reported, and a stop anywhere changes nothing."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from darts_lite.cli.line import group_options
from darts_lite.cli.run import run_verb
from darts_lite.discretize import DiscretizeConfig, discretize
from darts_lite.errors import Exit, Interrupted, UserError
from darts_lite.genotypes.find import read
from darts_lite.genotypes.genotype import from_plain
from darts_lite.methods.selections.validated import Validated
from darts_lite.runs.resume import newest_finished
from darts_lite.search import search
from darts_lite.spaces import find_genotype
from darts_lite.training.optimizers import WeightOptimizer

pytestmark = pytest.mark.usefixtures("tiny_folder")
K = 4  # rungs of 4 and 2 candidates


def contest(**changes):
    """Two searches of three steps, and six short trainings of three or six steps."""
    small = {"selection": Validated(k=K, epochs=1), "restarts": 2, "epochs": 1, "alpha_lr": 0.5, "seed": 3}
    return tiny.search_config(**{**small, "checkpoint_steps": 1, **changes})


def family(parent):
    """`tiny.trace` of the children, and what of the parent does not depend on how often it was stopped."""
    parent, result = Path(parent), tiny.read_json(Path(parent) / "result.json")
    state = tiny.newest(parent)
    del state["time"], result["selection"]["seconds"]
    return {
        "checkpoint": tiny.frozen(state),
        "result": {key: value for key, value in result.items() if key not in tiny.RAN},
        "genotype": (parent / "genotype.json").read_text(),
        "files": sorted(str(path.relative_to(parent)) for path in parent.glob("[!.t]*") if path.name != "checkpoints"),
        **{path.parent.name: tiny.trace(path.parent) for path in parent.glob("*/metrics.jsonl")},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a finished contest, its trace before it was moved, its result, and the lines that it said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("made"))
        tiny.write_data()
        report = tiny.Report()
        result = search(contest(), report=report)
        trace = family("run")
        shutil.move("run", "parent")
        return Path.cwd() / "parent", trace, result, report.lines


@pytest.fixture
def parent(made):
    shutil.copytree(made[0], "parent")
    return made[2]


def children(folder, pattern):
    return {path.name: tiny.read_json(path / "result.json") for path in sorted(Path(folder).glob(pattern))}


def test_the_better_half_goes_on_and_the_last_one_is_picked(made):
    folder, _, result, lines = made
    rows = result["selection"]["candidates"]
    runs = children(folder, "candidate_*")
    assert len(rows) == K and len({json.dumps(row["genotype"]) for row in rows}) == K
    assert set(runs) == {score["run"] for row in rows for score in row["rungs"]} and len(runs) == K + 2
    for number, row in enumerate(rows):
        assert row["candidate"] == number
        for rung, score in enumerate(row["rungs"]):
            run = runs[score["run"]]
            assert score["run"] == f"candidate_{number}_rung_{rung}" and score["epochs"] == 2**rung
            assert run["genotype"] == row["genotype"] and run["parameters"] == row["parameters"]
            assert {name: run["validation"][name] for name in ("accuracy", "loss")} == {
                name: score[name] for name in ("accuracy", "loss")
            }
            assert run["steps"] == 3 * 2**rung and "test" not in run and run["seed"] == 3

    def best(rung):
        scores = [(row["rungs"][rung], row["candidate"]) for row in rows if len(row["rungs"]) > rung]
        return [n for _, _, n in sorted((-score["accuracy"], score["loss"], n) for score, n in scores)]

    assert sorted(best(1)) == sorted(best(0)[:2])
    assert result["selection"]["picked"] == best(1)[0]
    winner = rows[best(1)[0]]
    assert result["genotype"] == winner["genotype"] and result["picked"] == winner["run"]
    assert result["validation"]["accuracy"] == winner["rungs"][1]["accuracy"] and result["validation"]["runs"] == 1
    assert read(folder / "genotype.json") == from_plain(winner["genotype"])
    assert any(line.startswith(f"picked candidate {best(1)[0]} (") for line in lines)
    assert json.loads((folder / "result.json").read_text()) == result


def test_its_cost_is_reported_and_counts(made):
    folder, _, result, lines = made
    runs, searches = children(folder, "candidate_*"), children(folder, "restart_*")
    seconds = sum(run["time"]["seconds"] for run in runs.values())
    evidence = result["selection"]
    assert evidence["seconds"] == pytest.approx(seconds) and evidence["runs"] == len(runs)
    assert evidence["steps"] == sum(run["steps"] for run in runs.values()) == 4 * 3 + 2 * 6
    assert result["time"]["seconds"] == pytest.approx(
        seconds + sum(run["time"]["seconds"] for run in searches.values())
    )
    assert any(
        line.startswith("the selection took 0:00:") and "24 steps in 6 short trainings" in line for line in lines
    )


def test_candidates_come_from_both_searches(made):
    folder, _, result, _ = made
    rows, searches = result["selection"]["candidates"], children(folder, "restart_*")
    assert [row["genotype"] for row in rows[:2]] == [one["genotype"] for one in searches.values()]
    assert {row["run"] for row in rows} == set(searches) == {"restart_0", "restart_1"}
    assert {row["source"] for row in rows} >= {"score", "consensus"}
    assert [(row["seed"], row["run"]) for row in result["restarts"]] == [(3, "restart_0"), (4, "restart_1")]
    for row in result["restarts"]:
        assert row["genotype"] == searches[row["run"]]["genotype"]


def without(trace, *keys):
    """A trace without settings that two commands may differ in."""
    config = trace["checkpoint"]["config"]
    return {**trace, "config.yaml": None, "status": None, "board": None, "checkpoint": {**trace["checkpoint"], "run": None,
        "config": {key: value for key, value in config.items() if key not in ("run_dir", *keys)}}}  # fmt: skip


def test_each_search_is_what_it_would_be_by_itself(made):
    tiny.run(contest(selection="darts", restarts=1, seed=4))
    tiny.assert_same(without(tiny.trace("run")), without(made[1]["restart_1"]))


def test_a_short_training_is_one_retrain_command(made):
    score = made[2]["selection"]["candidates"][made[2]["selection"]["picked"]]["rungs"][1]
    config = tiny.newest(made[0] / score["run"])["config"]
    assert (config["epochs"], config["train_fraction"], config["seed"], config["init"]) == (2, 0.5, 3, "none")
    result = run_verb(
        "retrain",
        [
            *("dataset=npz", "dataset.path=data.npz", "dataset.flip=true", "cells=3", "channels=2", "batch_size=16"),
            *("cutout=2", "epochs=2", "train_fraction=0.5", "seed=3", "run_dir=alone", f"genotype={made[0]}"),
        ],
    )
    assert result == 0
    alone = tiny.read_json("alone/result.json")["validation"]
    assert (alone["accuracy"], alone["loss"]) == (score["accuracy"], score["loss"])


@pytest.mark.slow
def test_the_test_part_is_not_touched(made):
    tiny.write_data(garbage=7)
    result = tiny.run(contest())
    assert result["genotype"] == made[2]["genotype"]
    assert result["selection"]["candidates"] == made[2]["selection"]["candidates"]


@pytest.mark.parametrize("name", group_options("method", "search"))
def test_it_composes_with_every_method(name, composed):
    small = contest(restarts=1, selection=Validated(k=2, epochs=1))
    size = ("dataset", "space", "cells", "channels", "epochs", "batch_size", "run_dir", "selection")
    config = replace(
        composed("search", [f"method={name}"]), warmup_epochs=0, **{key: getattr(small, key) for key in size}
    )
    result = tiny.run(config)
    assert result["selection"]["runs"] >= 1 and find_genotype("run") == from_plain(result["genotype"])


def test_one_candidate_is_trained_once():
    result = tiny.run(contest(restarts=1, selection=Validated(k=1, epochs=2)))
    assert result["selection"]["runs"] == 1 and result["selection"]["steps"] == 6
    assert result["genotype"] == tiny.read_json("run/restart_0/result.json")["genotype"]


def test_random_candidates_alone_need_no_search(capsys):
    report = tiny.Report()
    result = search(contest(selection=Validated(k=3, epochs=1, of=["random"]), restarts=1), report=report)
    rows = result["selection"]["candidates"]
    assert {path.parent.name for path in Path("run").glob("*/result.json")} == {
        score["run"] for row in rows for score in row["rungs"]
    }, "no search was made"
    assert result["restarts"] == [] and result["picked"] is None and "agreement" not in result
    assert len({json.dumps(row["genotype"]) for row in rows}) == 3
    assert all(row["run"] is None and row["source"] == "random" for row in rows)
    assert any(line.startswith("picked candidate ") and "(random): " in line for line in report.lines)
    plain = ["dataset=npz", "dataset.path=data.npz", "cells=2", "channels=2", "epochs=1", "run_dir=b"]
    assert run_verb("retrain", [*plain, "genotype=run", "init=supernet"]) == Exit.CONFIGURATION
    assert "so there is no supernet" in capsys.readouterr().err


def test_it_says_how_far_the_searches_agree(made):
    _, _, result, lines = made
    assert result["agreement"]["runs"] == 2 and result["agreement"]["sentence"] in lines
    assert result["control"] is None and "benchmark" not in result


def test_random_candidates_refuse_restarts(capsys):
    with pytest.raises(UserError, match="restarts: random candidates need no search"):
        search(contest(selection=Validated(k=3, epochs=1, of=["random"])))


def test_one_rung_picks_and_trainings_have_settings_of_their_own():
    training = {"channels": 3, "lr": 0.2}
    result = search(contest(selection=Validated(k=3, epochs=1, rungs=1, of=["score"], training=training), restarts=1))
    rows, runs = result["selection"]["candidates"], children("run", "candidate_*")
    assert len(rows) == 3 == len(runs)
    scores = [(-row["rungs"][0]["accuracy"], row["rungs"][0]["loss"], number) for number, row in enumerate(rows)]
    assert result["selection"]["picked"] == min(scores)[-1]
    config = tiny.newest(Path("run/candidate_0_rung_0"))["config"]
    assert {name: config[name] for name in training} == training and config["cells"] == contest().cells


def test_a_debug_run_is_short():
    result = tiny.run(contest(debug="fast", selection=Validated(k=3, epochs=7)))
    assert [row["rungs"][0]["epochs"] for row in result["selection"]["candidates"]] == [1, 1, 1]


# Where others look


def test_the_parent_is_the_newest_finished_search_and_has_a_supernet(parent):
    shutil.copytree("parent", "outputs/search/npz/parent")
    assert newest_finished("search", tiny.read_json("parent/env.json")["source"]) == Path("outputs/search/npz/parent")
    small = tiny.retrain_config(
        genotype=None, init="supernet", channels=2, epochs=1, auxiliary_weight=0.0, drop_path=0.0
    )
    result = tiny.run(small)
    assert result["genotype"] == parent["genotype"] and result["search_seconds"] == parent["time"]["seconds"]


def test_discretize_uses_the_rule_that_ranked_and_says_so():
    tiny.run(contest(restarts=1))
    report = tiny.Report()
    for epoch in (0, 1):
        found = discretize(DiscretizeConfig(run="run", epoch=epoch, run_dir=f"a{epoch}"), report=report)
        inner = discretize(
            DiscretizeConfig(run="run/restart_0", epoch=epoch, run_dir=f"b{epoch}"), report=tiny.Report()
        )
        assert found["genotype"] == inner["genotype"]
    assert found["genotype"] == tiny.read_json("run/restart_0/result.json")["genotype"]
    assert sum("the rule that ranked its candidates is used" in line for line in report.lines) == 2


def test_discretize_with_a_competition_uses_the_rule_of_the_space():
    tiny.run(contest(restarts=1, selection="darts"))
    report = tiny.Report()
    found = discretize(DiscretizeConfig(run="run", selection="validated", run_dir="a"), report=report)
    assert found["genotype"] == tiny.read_json("run/result.json")["genotype"]
    assert any("the rule that ranked its candidates is used" in line for line in report.lines)


def test_discretize_of_several_searches_names_them(parent):
    with pytest.raises(UserError, match="give one of them: parent/restart_0, restart_1") as error:
        discretize(DiscretizeConfig(run="parent"), report=tiny.Report())
    assert error.value.code == Exit.RUN


def test_auto_finds_it(parent):
    shutil.move("parent", "outputs/search/npz/parent")
    again = contest(resume="auto", run_dir=None)
    assert tiny.run(again) == parent
    assert len(list(Path("outputs/search/npz").iterdir())) == 1


# Stopped and resumed


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        ("after", "search step", 2),
        ("before", "retrain step", 5),  # in the second candidate
        ("after", "end", 6),  # between the rungs
        ("before", "retrain step", 15),  # in the second rung
        ("after", "text", 1, "candidate_1_rung_0"),
        ("before", "json", 1, "'ranked_by'"),  # all is done but the result
    ],
)
def test_killed(point, made):
    assert tiny.outcome(tiny.killed_run, contest(), point) == -signal.SIGKILL, Path("said").read_text()
    assert tiny.outcome(tiny.killed_run, contest(resume="run"), ()) == 0, Path("said").read_text()
    tiny.assert_same(family("run"), made[1])


def test_stopped_by_a_signal(made, monkeypatch):
    """In the last run but one; the parent says how to go on with itself."""
    step, calls = WeightOptimizer.step, []

    def once(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 2 * 3 + 4 * 3 + 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(Interrupted) as error:
        patch.setattr(WeightOptimizer, "step", once)
        tiny.run(contest())
    assert str(error.value).endswith("go on with: python -m darts_lite.search resume=run")
    assert tiny.read_json("run/status.json")["state"] == "interrupted"
    tiny.run(contest(resume="run"))
    tiny.assert_same(family("run"), made[1])


def test_a_moved_parent_goes_on(parent):
    for name in ("result.json", "status.json"):
        os.remove(f"parent/{name}")
    last = parent["selection"]["candidates"][parent["selection"]["picked"]]["rungs"][-1]["run"]
    shutil.rmtree(f"parent/{last}")
    shutil.move("parent", "moved")
    result = tiny.run(contest(resume="moved", run_dir=None))
    assert result["selection"]["candidates"] == parent["selection"]["candidates"]
    assert result["genotype"] == parent["genotype"]


# Refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["selection.k=0"], "selection.k: must be at least 1"),
        (["selection.of=[scores]"], "did you mean 'score'?"),
        (["selection.of=[]"], "selection.of: must not be empty"),
        (["selection.rule=validated"], "selection.rule: unknown name"),
        (
            ["selection.rule=darts", "selection.rule_options={k: 3}"],
            "selection.k: is an option of selection=validated, not of darts",
        ),
        (["debug=overfit"], "debug: looks at a single run"),
        (
            ["selection.training={cels: 3}"],
            "selection.training.cels: unknown key; fix: did you mean 'selection.training.cells'?",
        ),
        (["selection.training={epochs: 3}"], "selection.training.epochs: unknown key"),
        (["selection.training={lr: -1}"], "selection.training.lr: must be above 0"),
    ],
)
def test_refused_without_a_trace(words, said, capsys):
    before = sorted(Path().rglob("*"))
    plain = ["dataset=npz", "dataset.path=data.npz", "cells=2", "channels=2", "run_dir=a/run", "selection=validated"]
    assert run_verb("search", [*plain, *words]) == Exit.CONFIGURATION
    answer = capsys.readouterr()
    (line,) = answer.err.splitlines()
    assert said in line and ("images" not in answer.out or "debug" in said)
    assert sorted(Path().rglob("*")) == before


def test_an_option_of_it_needs_it(capsys):
    assert run_verb("search", ["selection.k=3"]) == Exit.CONFIGURATION
    assert "selection.k: is an option of selection=validated" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["link", "alphas", "score"])
def test_damaged_children_are_refused(damage, parent):
    for name in ("result.json", "status.json"):
        os.remove(f"parent/{name}")
    if damage == "link":
        shutil.move("parent/candidate_1_rung_0", "elsewhere")
        Path("parent/candidate_1_rung_0").symlink_to(Path("elsewhere").resolve())
        said = "is a symbolic link"
    elif damage == "alphas":
        Path("parent/restart_1/alphas.jsonl").write_text("")
        said = "alphas.jsonl: cannot be used"
    else:
        Path("parent/candidate_2_rung_0/result.json").write_text("{}")
        said = "holds no validation accuracy"
    before = {path: path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}
    with pytest.raises(UserError) as error:
        tiny.run(contest(resume="parent", run_dir=None))
    assert error.value.code == Exit.RUN and said in str(error.value)
    if damage != "score":
        assert before == {path: path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}
