"""The command that a run prints for what comes next: it runs as it stands, on all of the data, and stands nowhere else."""

import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from darts_lite import data
from darts_lite.cli.run import run_verb
from darts_lite.data.dataset import fraction_of
from darts_lite.errors import UserError
from darts_lite.retrain import RetrainConfig, retrain
from darts_lite.runs.next_command import has_next, least_whole
from darts_lite.search import SearchConfig, search
from darts_lite.settings.datasets import DatasetConfig
from darts_lite.settings.options import USUAL_BATCH, USUAL_FRACTION

pytestmark = pytest.mark.usefixtures("tiny_folder")

RUN = "next: python -m darts_lite."


def said(verb, config, **given):
    """What a run says about the next command."""
    report = tiny.Report()
    verb(config, report=report, **given)
    return [line.removeprefix(RUN) for line in report.lines if line.startswith("next:")]


def small_search(**changes):
    """One step, or one of each of two restarts."""
    few = {"epochs": 1, "restart_epochs": 1, "cells": 2, "channels": 2, "batch_size": 4}
    return tiny.search_config(**{**few, **changes})


def start(command):
    """The exit code of a printed command."""
    verb, *words = shlex.split(command)
    return run_verb(verb, words)


def shorter(command):
    """A printed command that takes less time, and is refused for the same reasons."""
    return f"{command} epochs=1 cells=2 channels=2"


@pytest.mark.parametrize("restarts", [1, 2])
def test_it_runs_as_it_stands_on_a_small_set(restarts):
    Path("a folder").mkdir()
    shutil.move(tiny.write_data(train=24, test=3), "a folder/it's.npz")
    dataset = DatasetConfig(name="npz", path="a folder/it's.npz", mean=[0.5], std=[0.25])
    *_, command = said(search, small_search(restarts=restarts, dataset=dataset, run_dir="my run"))
    assert command.startswith("retrain genotype='my run' ") and command.endswith(" batch_size=24")
    assert start(command if restarts == 1 else shorter(command)) == 0
    (path,) = Path("outputs/retrain/npz").iterdir()
    assert tiny.newest(path)["config"]["dataset"]["path"] == "a folder/it's.npz"


def test_the_search_that_is_missing_runs_as_it_stands():
    tiny.write_data(train=25)
    with pytest.raises(UserError) as caught:
        retrain(tiny.retrain_config(genotype=None, run_dir=None), report=tiny.Report())
    command = caught.value.fix.removeprefix("first run python -m darts_lite.")
    assert command.endswith(" batch_size=12")
    assert start(shorter(command)) == 0


def test_the_usual_is_not_said():
    assert RetrainConfig().batch_size == SearchConfig().batch_size == USUAL_BATCH
    assert SearchConfig().train_fraction == USUAL_FRACTION
    tiny.write_data(train=USUAL_BATCH)
    (command,) = said(search, small_search())
    assert command == "retrain genotype=run dataset=npz dataset.path=data.npz dataset.flip=true"


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_part_was_enough_to_search(restarts):
    tiny.write_data(train=60)
    dataset = DatasetConfig(name="npz", path="data.npz", fraction=0.5)
    *_, command = said(search, small_search(restarts=restarts, dataset=dataset))
    assert command == "retrain genotype=run dataset=npz dataset.path=data.npz batch_size=57"
    assert start(shorter(command)) == 0
    (path,) = Path("outputs/retrain/npz").iterdir()
    assert tiny.newest(path)["config"]["dataset"]["fraction"] == 1.0


def test_the_whole_is_never_overestimated_and_seldom_by_far():
    random = np.random.default_rng(0)
    for _ in range(300):
        labels = np.repeat(np.arange(4), random.integers(1, 60, 4))
        fraction = float(random.choice([0.05, 0.1, 0.3, 0.5, 0.9, 1.0]))
        kept = fraction_of(labels, labels, fraction)[1]
        assert len(kept) <= least_whole(kept, fraction) <= len(labels)
        if fraction >= 0.3:
            assert least_whole(kept, fraction) >= len(labels) - 4 * (0.5 / fraction + 1) - 4


def test_none_after_a_debug_run():
    for verb, make in ((search, small_search), (retrain, lambda **changes: tiny.retrain_config(cells=2, **changes))):
        for several in ({}, {"restarts": 2} if verb is search else {"seeds": [0, 1]}):
            assert said(verb, make(debug="fast", **several)) == []
            shutil.rmtree("run")
    for debug in ("fast", "overfit", "profile", None):
        config = tiny.search_config(debug=debug)
        assert has_next(SimpleNamespace(config=config, dataset=data.load(config.dataset))) == (debug is None)


def test_none_on_data_that_no_command_line_names():
    given = replace(data.load(tiny.data_config()), name="mine")
    assert said(search, small_search(), dataset=given) == []
    assert said(retrain, tiny.retrain_config(cells=2, run_dir="other"), dataset=given) == []
