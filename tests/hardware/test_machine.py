"""What a process of ours sets for itself, and that it does so nowhere else; cores and memory where the system tells less."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from process import environment

import darts_lite
import darts_lite.hardware.machine as machine
from darts_lite.benchmarking.measure import Arm, Hired
from darts_lite.cli.compose import jobs_at_once, own_settings
from darts_lite.cli.line import read_line
from darts_lite.cli.run import command, run_verb
from darts_lite.cli.sweep import Sweep
from darts_lite.hardware import device as devices
from darts_lite.hardware.device import keep_freed_memory, peak_memory, using_threads

CPU = torch.device("cpu")


@pytest.fixture
def settings(monkeypatch):
    """The calls of `mallopt`."""
    made = []
    library = SimpleNamespace(mallopt=lambda *arguments: made.append(arguments))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(sys, "platform", "linux")
    return made


# The allocator


def test_only_a_process_of_ours_has_its_allocator_set(settings):
    keep_freed_memory(CPU)
    assert not settings
    with machine.own_process():
        keep_freed_memory(torch.device("cuda"))
        assert not settings
        keep_freed_memory(CPU)
        assert len(settings) == 3
    keep_freed_memory(CPU)
    assert len(settings) == 3 and not machine.is_own()


@pytest.mark.parametrize(("way", "made"), [(run_verb, 0), (command, 3)])
def test_a_caller_keeps_its_allocator(way, made, settings, tiny_folder):
    """From Python, `run_verb` included, nothing is set for good; the command line's way in does so."""
    words = [
        "dataset=npz",
        "dataset.path=data.npz",
        "cells=1",
        "channels=2",
        "device=cpu",
        "debug=fast",
        "batch_size=16",
    ]
    assert way("search", words) == 0
    assert (len(settings) > 0) == (made > 0) and not machine.is_own()


def arm():
    return Arm(str(machine.is_own()), {}, CPU)


def test_a_hired_process_is_ours():
    with Hired(arm) as hired:
        assert hired.name == "True" and not machine.is_own()


# Threads that wait

SAYS = (
    "import json, os, sys, darts_lite.cli.run as cli; cli.run_verb = lambda *words: print(json.dumps(["
    "os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules])) or 0; "
)
WAYS = [
    *(f"from darts_lite.{verb} import main; main([])" for verb in ("search", "retrain", "evaluate", "doctor")),
    *("from darts_lite.discretize import main; main([])", "from darts_lite.benchmark import main; main([])"),
    "cli.run_package(['search'])",
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "given", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE"}, {"OMP_NUM_THREADS": "1"}]
)
def test_threads_wait_for_a_short_while(way, given, tmp_path):
    """Before torch is loaded, which reads it once; what the user has set is left alone."""
    clean = {name: value for name, value in environment().items() if name not in machine.WAITING}
    answer = subprocess.run(
        [sys.executable, "-c", SAYS + way + "; print(os.environ.get('GOMP_SPINCOUNT'))"],
        cwd=tmp_path, env={**clean, **given}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    inside, after = answer.stdout.splitlines()
    expected = given.get("GOMP_SPINCOUNT", None if given else machine.SPINS)
    assert json.loads(inside) == [expected, False]
    assert after == str(given.get("GOMP_SPINCOUNT")), "a caller in Python has its environment back"


# Shares


@pytest.mark.parametrize(
    ("words", "at_once"),
    [
        (["seed=0,1,2,3"], 1),
        (["seed=0,1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], 2),
        (["seed=0,1,2,3", "lr=0.1,0.2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=6"], 6),
        (["seed=0,1,2,3", "hydra/launcher=joblib"], 4),
        (["seed=range(0,20)", "hydra/launcher=joblib"], 8),
        (["seed=0,1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=-2"], 3),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=-2"], 1),
        (["seed=0,1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=many"], 1),
        (["seed=0,1", "lr=0.1,0.2,0.3", "hydra/launcher=submitit_local"], 6),
        (["seed=0,1", "hydra/launcher=submitit_slurm"], 1),
    ],
)
def test_jobs_at_once(words, at_once, monkeypatch):
    monkeypatch.setattr("darts_lite.cli.compose.cores", lambda: 8)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace(name=name))
    line = read_line("search", ["-m", *words])
    assert not line.problems
    assert jobs_at_once(line, own_settings("search", line, "now") | line.overrides) == at_once


def test_shares(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [machine.share(jobs) for jobs in (1, 2, 3, 8, 20)] == [None, 4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.share(4) is None, "the user has said it"


def test_a_job_elsewhere_takes_its_share(monkeypatch):
    monkeypatch.setattr(machine, "_own", False)
    with using_threads(2):
        Sweep("search", Path(), "now", 1, True).settle()
        assert torch.get_num_threads() == 2 and not machine.is_own(), "here nothing is shared"
        Sweep("search", Path(), "now", None, False, process=os.getpid() + 1).settle()
        assert torch.get_num_threads() == 2 and not machine.is_own()
        Sweep("search", Path(), "now", 1, True, process=os.getpid() + 1).settle()
        assert torch.get_num_threads() == 1 and machine.is_own()
        torch.set_num_threads(2)


# A resumed run


@pytest.mark.parametrize("verb", ["search", "retrain"])
@pytest.mark.parametrize(("has", "given", "took"), [(2, None, 2), (1, None, 1), (2, "1", 1)])
def test_a_resumed_run_takes_the_threads_that_it_began_with(verb, has, given, took, tiny_folder, monkeypatch):
    """Where the machine has them, and the user has not said another number: then one line says what that costs."""
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    config = getattr(tiny, f"{verb}_config")
    target = {"search": "search_step.search_step", "retrain": "retrain_step.retrain_step"}[verb]
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="boom"), using_threads(2):
        patch.setattr(f"darts_lite.training.{target}", boom)
        tiny.run(config())
    assert tiny.read_json("run/env.json")["threads"] == 2
    monkeypatch.setattr("darts_lite.runs.prepare.cores", lambda: has)
    seen = []
    monkeypatch.setattr("darts_lite.runs.steps.Steps.after_step", lambda *_: seen.append(torch.get_num_threads()))
    report = tiny.Report()
    run = {"search": tiny.search, "retrain": tiny.retrain}[verb]
    run(config(resume="run", run_dir=None), report=report)
    assert set(seen) == {took} and torch.get_num_threads() == 1
    assert any("threads: 2, as the run began" in line for line in report.lines) == (took == 2)
    assert [
        line for line in report.warnings if "threads 2 -> 1" in line and "not bit-identical" in line
    ] == report.warnings
    assert len(report.warnings) == (took == 1)


def boom(*arguments, **named):
    raise RuntimeError("boom")


@pytest.mark.parametrize("stored", [0, -1, 10**9, True, "2", None, [2], 1.0])
def test_a_number_of_threads_may_come_from_anywhere(stored, tmp_path, monkeypatch):
    from darts_lite.runs.prepare import _threads

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "env.json").write_text(json.dumps({"threads": stored}))
    assert _threads(tmp_path, 1) == 1 and _threads(None, 3) == 3


# Systems that tell less


def test_cores_where_the_system_does_not_tell(monkeypatch):
    assert machine.cores() >= 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cores() == 1


def test_no_module_asks_for_what_only_linux_has():
    """But for the one helper that does without."""
    package = Path(darts_lite.__file__).parent
    asking = [path.name for path in package.rglob("*.py") if "sched_getaffinity" in path.read_text(encoding="utf-8")]
    assert asking == ["machine.py"]


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes(platform, unit, monkeypatch):
    monkeypatch.setattr(devices.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=5000))
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_memory(CPU) == 5000 * unit
