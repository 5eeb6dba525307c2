"""The contract of every method file: it builds, moves alphas in three steps if it learns, and goes on bit-exactly where it was killed."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from darts_lite.cli.line import group_options
from darts_lite.errors import UserError
from darts_lite.methods.build import build_method
from darts_lite.search import SearchConfig, search
from darts_lite.settings.configs import refuse_mere_name

METHODS = group_options("method", "search")
SIZE = ("dataset", "space", "cells", "channels", "epochs", "batch_size", "run_dir", "log_every")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_and_is_resumed_bit_exactly(name, composed, tiny_folder):
    small = tiny.search_config(epochs=1)
    config = composed("search", [f"method={name}"])
    config = replace(config, warmup_epochs=0, checkpoint_steps=1, **{key: getattr(small, key) for key in SIZE})
    assert build_method(config).phases and config.method == name

    assert tiny.outcome(tiny.killed_run, config, ()) == 0, Path("said").read_text()
    whole, state = tiny.trace("run"), tiny.newest("run")
    assert state["clock"]["done"] == 3
    first = tiny.read_lines("run/alphas.jsonl")[0]["mixing"]["normal"]["operations"]
    last = tiny.read_lines("run/alphas.jsonl")[-1]["mixing"]["normal"]["operations"]
    assert (first != last) == build_method(config).learns and torch.tensor(last).isfinite().all()

    shutil.rmtree("run")
    killed = tiny.outcome(tiny.killed_run, config, ("after", "search step", 2))
    assert killed == -signal.SIGKILL, Path("said").read_text()
    assert tiny.outcome(tiny.killed_run, replace(config, resume="run"), ()) == 0, Path("said").read_text()
    tiny.assert_same(tiny.trace("run"), whole)


@pytest.mark.parametrize("name", METHODS)
def test_from_python_a_method_is_more_than_its_name(name, composed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse_mere_name(composed("search", [f"method={name}"]))
    if name != SearchConfig().method:
        with pytest.raises(UserError, match=f"method={name}"):
            search(SearchConfig(method=name))
        assert list(tmp_path.iterdir()) == []
