"""control=permuted_labels: the architecture has no signal, the weights have theirs, and nobody takes the result for a finding."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from darts_lite.data.splits import commonest, permuted
from darts_lite.runs.prepare import PERMUTED, prepare
from darts_lite.runs.resume import newest_finished
from darts_lite.search import search

pytestmark = pytest.mark.usefixtures("tiny_folder")
CONTROL = {"control": "permuted_labels"}


def test_the_labels_of_the_validation_half_alone_are_permuted_from_the_seed():
    plans = [
        prepare("search", tiny.search_config(**changes), None, tiny.Report()) for changes in ({}, CONTROL, CONTROL)
    ]
    ((images, labels), (others, seen)), ((same, known), (alike, mixed)), (_, (_, again)) = [
        plan.halves() for plan in plans
    ]
    assert np.array_equal(images, same) and np.array_equal(labels, known) and np.array_equal(others, alike)
    assert np.array_equal(mixed, again) and np.array_equal(np.sort(mixed), np.sort(seen))
    assert (mixed == seen).mean() < 0.6, "a third is right by chance"
    assert not np.array_equal(permuted(np.arange(50), 0), permuted(np.arange(50), 1))


def test_it_changes_what_alphas_learn_and_is_said():
    report = tiny.Report()
    result = search(tiny.search_config(**CONTROL), report=report)
    assert report.lines.count(PERMUTED) == 1 and result["control"] == "permuted_labels"
    assert result["decided"]["sentence"].endswith("what the method does without one")
    search(tiny.search_config(run_dir="plain"), report=tiny.Report())
    controlled, plain = (tiny.read_lines(f"{name}/alphas.jsonl") for name in ("run", "plain"))
    assert controlled[0] == plain[0] and controlled[1] != plain[1]


def test_a_retraining_does_not_take_it():
    config = tiny.search_config(run_dir="outputs/search/npz/0")
    search(config, report=tiny.Report())
    source = tiny.read_json("outputs/search/npz/0/env.json")["source"]
    search(replace(config, run_dir="outputs/search/npz/1", **CONTROL), report=tiny.Report())
    assert newest_finished("search", source).name == "0"


def test_the_share_of_the_commonest_class():
    assert commonest(np.array([3, 3, 3, 7])) == 0.75 and commonest(np.arange(4)) == 0.25
