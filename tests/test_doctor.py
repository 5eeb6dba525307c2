"""The doctor: a line a check, what to do about each problem, nothing left behind."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from darts_lite import doctor
from darts_lite.cli.run import run_verb


def lines(capsys):
    rows = [line.split(None, 2) for line in capsys.readouterr().out.splitlines()]
    return {(kind, name): text for kind, name, text in rows if kind in ("ok", "problem")}


def test_all_is_well(tiny_folder, capsys):
    before = sorted(Path().rglob("*"))
    assert run_verb("doctor", ["dataset=npz", "dataset.path=data.npz", "device=cpu", "run_dir=a/b"]) == 0
    said = lines(capsys)
    assert [name for kind, name in said] == ["versions", "processor", "devices", "data", "disk", "steps", "proof"]
    assert {kind for kind, _ in said} == {"ok"}
    assert f"torch {torch.__version__}" in said["ok", "versions"]
    assert said["ok", "data"] == "npz: 96 training and 30 test images of 8x8 with 1 channel, 3 classes"
    assert said["ok", "disk"].startswith("a/b can be written")
    assert " comparisons of cpu with float64 on the CPU: fp32 within " in said["ok", "proof"]
    assert sorted(Path().rglob("*")) == before


def full(path):
    return SimpleNamespace(free=2**20)


PROBLEMS = {
    "device": (["device=cuda:99"], None, "devices", "device: not usable here, got 'cuda:99'; fix: "),
    "data": (["dataset=npz", "dataset.path=no.npz"], None, "data", "no.npz: there is no such file; fix: check dataset"),
    "folder": (["run_dir=data.npz"], None, "disk", "data.npz: cannot be created: File exists; fix: "),
    "disk": ([], (shutil, "disk_usage", full), "disk", "outputs: only 0.00 GiB of disk space are free; fix: free"),
    "memory": (
        [],
        ("darts_lite.hardware.device", "free_memory", lambda device: 2**29),
        "devices",
        "device: cpu has less than 1 GiB free; fix: end other programs",
    ),
    "gpu": (
        [],
        (shutil, "which", lambda name: "/bin/x"),
        "devices",
        "device: this machine has a GPU that torch cannot",
    ),
    "steps": (
        [],
        ("darts_lite.runs.trial", "trial", lambda *all, **named: 1 / 0),
        "steps",
        "division by zero",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_said_once_with_what_to_do(name, tiny_folder, monkeypatch, capsys):
    words, change, check, text = PROBLEMS[name]
    if change is not None:
        owner, attribute, value = change
        monkeypatch.setattr(*((f"{owner}.{attribute}", value) if isinstance(owner, str) else change))
    if name != "steps":
        monkeypatch.setattr(doctor, "steps", doctor.data)  # meets the same problems, sooner
    monkeypatch.setattr(doctor, "proof", doctor.data)
    if name == "gpu":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    else:
        words = ["device=cpu", *words]
    assert run_verb("doctor", words) == 6
    output = capsys.readouterr()
    problems = [line.split(None, 2)[1:] for line in output.out.splitlines() if line.startswith("problem ")]
    assert [problem[0] for problem in problems] == [check]
    assert text in problems[0][1] and "; fix: " in problems[0][1]
    assert output.err == "darts_lite: error: doctor: found one problem; fix: see the lines above\n"
    assert sorted(path.name for path in Path().iterdir()) == ["data.npz"]
