"""Out of memory, made up: every step above some batch size is refused, as a device that is too small would."""

import weakref
from pathlib import Path

import pytest
import torch
from test_errors import check_stderr
from tiny import TEXT, search_config

from darts_lite.cli.run import run_verb
from darts_lite.errors import UserError, out_of_memory
from darts_lite.runs.trial import trial
from darts_lite.search import search
from darts_lite.training import retrain_step as retrain_state
from darts_lite.training import search_step

TINY = [
    "dataset=npz",
    "dataset.path=data.npz",
    "epochs=2",
    "batch_size=16",
    "cells=1",
    "channels=2",
    "device=cpu",
    "run_dir=run",
]
SPACE = ["space.nodes=1", "space.candidates=[skip_connect,max_pool_3x3]"]


def small_device(monkeypatch, largest, error, module=search_step, name="search_step"):
    """A step above the batch size `largest` raises `error`; returns the tried sizes and what the first run still holds."""
    step, tried, held = getattr(module, name), [], []

    def limited(state, *arguments, **named):
        batch = arguments[0] if isinstance(arguments[0], torch.Tensor) else arguments[0][0]
        tried.append(len(batch))
        if not held:
            held.append(weakref.ref(state))
        else:
            assert held[0]() is None, "nothing of the run is held while smaller ones are tried"
        if len(batch) > largest:
            raise error
        return step(state, *arguments, **named)

    monkeypatch.setattr(module, name, limited)
    return tried, held


ERRORS = [
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in the documentation"),
    torch.OutOfMemoryError("CUDA out of memory."),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_largest_batch_that_fits_is_tried(error, tiny_folder, monkeypatch, capsys):
    tried, _ = small_device(monkeypatch, 5, error)
    assert run_verb("search", [*TINY, *SPACE]) == 6
    check_stderr(
        capsys.readouterr().err, ["batch_size: out of memory at batch size 16 (peak ", "batch_size=4 fits (tr"]
    )
    assert tried == [16, 8, 4, 4], "of the one that fits two steps"
    assert sorted(path.name for path in Path().iterdir()) == ["data.npz", "run"]


def test_no_batch_fits(tiny_folder, monkeypatch, capsys):
    tried, _ = small_device(monkeypatch, 0, MemoryError())
    assert run_verb("search", [*TINY, *SPACE]) == 6
    check_stderr(capsys.readouterr().err, ["no smaller batch fits (tried); or lower channels or cells"])
    assert tried == [16, 8, 4, 2, 1]


def test_a_resumed_run_keeps_its_batch(tiny_folder, monkeypatch, capsys):
    tried, held = small_device(monkeypatch, 4, MemoryError(), retrain_state, "retrain_step")
    words = [*TINY, f"genotype={TEXT}", "cells=3"]
    assert run_verb("retrain", words) == 6
    check_stderr(capsys.readouterr().err, ["batch_size=4 fits (tried)"])
    held.clear(), tried.clear()
    assert run_verb("retrain", ["resume=run"]) == 6
    check_stderr(capsys.readouterr().err, ["at batch size 16", "or start a new run: batch_size=4 fits (tried)"])
    assert tried == [16, 8, 4, 4]


def test_a_sweep_goes_on(tiny_folder, monkeypatch, capsys):
    tried, held = small_device(monkeypatch, 8, MemoryError())
    held.append(lambda: None)
    assert run_verb("search", ["-m", *TINY, *SPACE, "batch_size=16,8", "epochs=1"]) == 6
    assert "1 of 2 jobs failed (0)" in capsys.readouterr().err
    assert tried == [16, 8, 8, *[8] * 6]


def test_a_trial_leaves_nothing_and_passes_errors_on(tiny_folder):
    before = sorted(Path().rglob("*"))
    trial(search, search_config())
    with pytest.raises(UserError, match="no such"):
        trial(search, search_config(dataset=search_config().dataset.__class__(name="npz", path="no.npz")))
    assert sorted(Path().rglob("*")) == before


def test_what_is_out_of_memory():
    assert all(map(out_of_memory, ERRORS))
    assert not out_of_memory(RuntimeError("shapes differ"))
