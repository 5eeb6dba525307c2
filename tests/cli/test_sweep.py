"""Sweeps: the table at the end, jobs in other processes, and what resume=auto makes of a list that has changed."""

import json
from pathlib import Path

import pytest
from tiny import write_data

from darts_lite.cli.run import run_verb
from darts_lite.cli.sweep import Sweep, table
from darts_lite.errors import Exit, UserError
from darts_lite.hardware.machine import cores

TINY = [
    "dataset=npz",
    "dataset.path=data.npz",
    "epochs=1",
    "batch_size=16",
    "cells=1",
    "channels=2",
    "device=cpu",
    "space.nodes=1",
]
TINY.append("space.candidates=[skip_connect,max_pool_3x3]")


def sweep_json(folder):
    return json.loads((Path(folder) / "sweep.json").read_text())


def test_a_changed_list_finds_its_runs_and_takes_free_numbers(tiny_folder, capsys):
    words = ["-m", *TINY, "run_dir=mine"]
    assert run_verb("search", [*words, "seed=0,1"]) == 0
    first = sweep_json("mine")["jobs"]
    assert [(job["folder"], job["part"], job["state"]) for job in first] == [
        ("mine/0", "validation", "finished"),
        ("mine/1", "validation", "finished"),
    ]
    assert run_verb("search", [*words, "seed=2,1,0", "resume=auto"]) == 0
    again = sweep_json("mine")["jobs"]
    assert [job["folder"] for job in again] == ["mine/2", "mine/1", "mine/0"]
    assert [job["accuracy"] for job in again[1:]] == [job["accuracy"] for job in reversed(first)]
    assert sorted(path.name for path in Path("mine").iterdir()) == ["0", "1", "2", "multirun.yaml", "sweep.json"]
    lines = capsys.readouterr().out.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("job  state"))
    assert "validation accuracy" in lines[header]
    assert lines[header + 1].split()[-2:] == ["seed=0", "mine/0"], "only what differs between the jobs is shown"
    assert run_verb("search", [*words, "seed=7"]) == Exit.RUN, "without resume=auto an occupied number is refused"


def test_the_table_has_every_job_and_the_reason(calls, tmp_path, capsys):
    def act(config):
        if config.seed:
            raise UserError("dataset", "is broken", "mend it", code=Exit(config.seed))

    calls.act = act
    assert run_verb("search", ["-m", "seed=0,4,3", "run_dir=mine"]) == 4
    jobs = sweep_json("mine")["jobs"]
    assert [(job["number"], job["state"], job["code"]) for job in jobs] == [
        (0, "finished", 0),
        (1, "failed", 4),
        (2, "failed", 3),
    ]
    assert jobs[1]["reason"] == "dataset: is broken; fix: mend it" and jobs[1]["folder"] is None
    assert "seed=4" in jobs[1]["overrides"]
    assert "sweep: 2 of 3 jobs failed (1, 2)" in capsys.readouterr().err.splitlines()[-1]


def test_a_job_of_resume_auto_that_is_refused_leaves_no_folder(calls, tmp_path):
    def act(config):
        assert Path(config.run_dir).is_dir(), "the number is taken"
        raise UserError("dataset", "is broken", "mend it", code=Exit.DATA)

    calls.act = act
    assert run_verb("search", ["-m", "seed=0,1", "run_dir=mine", "resume=auto"]) == 3
    assert [config.run_dir for config, *_ in calls] == ["mine/0", "mine/1"]
    assert sorted(path.name for path in Path("mine").iterdir()) == ["multirun.yaml", "sweep.json"]


def test_an_interrupted_sweep_has_a_table(calls):
    from darts_lite.errors import Interrupted

    def act(config):
        raise Interrupted(15)

    calls.act = act
    assert run_verb("search", ["-m", "seed=0,1", "run_dir=mine"]) == 143
    assert [job["state"] for job in sweep_json("mine")["jobs"]] == ["interrupted"]


def test_what_other_processes_left(tmp_path, capsys):
    (tmp_path / "job_9_before.json").write_text("{}")
    sweep = Sweep("search", tmp_path, "now", process=0)
    assert not sweep.here
    sweep.job(1, ["seed=1"])  # began, and was killed
    sweep.job(0, ["seed=0"]).end(Exit.RUN, "no")
    jobs = sweep.conclude()
    assert [(job["number"], job["state"]) for job in jobs] == [(0, "failed"), (1, "killed")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job_9_before.json", "sweep.json"]
    assert Sweep("search", tmp_path, "later").conclude() == []


def test_one_job_shows_all_of_its_settings():
    job = {"number": 0, "state": "finished", "part": "test", "accuracy": 0.5, "parameters": 1234, "seconds": 61.0}
    lines = table([{**job, "overrides": ["seed=1", "lr=2"], "folder": "a/0"}])
    assert "  test accuracy  " in lines[0]
    assert lines[1].split() == ["0", "finished", "0.5000", "1,234", "0:01:01", "seed=1", "lr=2", "a/0"]


def test_jobs_side_by_side(tmp_path, monkeypatch, capfd):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    write_data()
    words = ["-m", *TINY, "seed=0,-1", "run_dir=mine", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert run_verb("search", words) == 2
    assert [job["state"] for job in sweep_json("mine")["jobs"]] == ["finished", "failed"]
    assert json.loads(Path("mine/0/env.json").read_text())["threads"] == max(1, cores() // 2), "they share the cores"
