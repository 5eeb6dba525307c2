"""Debug runs: few steps of everything, one batch learned by heart, where the time goes; none of them counts as a search."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import TEXT, Report, read_json, retrain_config, run, search_config

from darts_lite import data
from darts_lite.errors import UserError
from darts_lite.retrain import retrain
from darts_lite.runs import debug, profile
from darts_lite.runs.debug import first_per_class, reduced
from darts_lite.runs.resume import newest_finished
from darts_lite.search import search
from darts_lite.settings.schema import check


def test_without_debug_nothing_changes(tiny_folder):
    config, dataset = search_config(), data.load(search_config().dataset)
    assert reduced(config, dataset) == (config, dataset)


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.9])
@pytest.mark.parametrize("kind", ["fast", "profile"])
def test_both_halves_have_their_steps(kind, fraction):
    config = search_config(debug=kind, train_fraction=fraction, batch_size=8, warmup_epochs=1)
    dataset = data.load(replace(config.dataset, name="digits", path=None))
    config, small = reduced(config, dataset)
    steps = {"fast": 3, "profile": profile.STEPS}[kind]
    least = int(len(small.y_train) * min(fraction, 1 - fraction))
    assert steps * 8 <= least + dataset.classes and config.warmup_epochs == 0
    assert len(small.y_train) < len(dataset.y_train)
    assert reduced(config, small)[1].y_train.tolist() == small.y_train.tolist(), "once more changes nothing"


def test_few_takes_the_first_of_each_class(tiny_folder):
    dataset = data.load(search_config().dataset)
    small = first_per_class(dataset, 4)
    assert np.bincount(small.y_train).tolist() == np.bincount(small.y_test).tolist() == [4, 4, 4]
    assert np.array_equal(small.x_train, dataset.x_train[:12])
    assert first_per_class(dataset, 1000).x_train.shape == dataset.x_train.shape


def test_fast_runs_everything_and_does_not_count(tiny_folder):
    words = {"run_dir": None, "debug": "fast"}
    result = run(search_config(**words, batch_size=4))
    assert result["steps"] == 6
    (folder,) = Path("outputs/search/npz").iterdir()
    status = read_json(folder / "status.json")
    assert (status["state"], status["debug"]) == ("finished", "fast")
    fingerprint = read_json(folder / "env.json")["data"]
    assert fingerprint == data.load(search_config().dataset).fingerprint, "of the whole data"
    assert newest_finished("search", fingerprint) is None
    with pytest.raises(UserError, match="no finished search"):
        run(retrain_config(run_dir=None, genotype=None))
    report = Report()
    retrain(retrain_config(**words, batch_size=4, genotype=None), report=report)
    assert "no finished search: a random genotype will do" in report.lines


@pytest.mark.parametrize("found", [True, False])
def test_overfit_says_whether_it_got_there(found, tiny_folder, monkeypatch):
    report = Report()
    config = retrain_config(debug="overfit", batch_size=6, lr=0.1 if found else 1e-6, cells=1)
    if not found:
        monkeypatch.setitem(debug._CHANGES["overfit"], "epochs", 3)
    retrain(config, report=report)
    (line,) = [line for line in report.lines if line.startswith("overfit: ")]
    assert "on one batch of 6 after" in line
    assert ("got there: the network can learn" in line) == found and ("did not get there" in line) != found
    stored = read_json("run/result.json")
    assert stored["steps"] == (60 if found else 3), "one step an epoch"


def test_overfit_of_a_search_has_one_batch_and_nothing_is_varied(tiny_folder):
    config = search_config(debug="overfit", train_fraction=0.8)
    config.dataset.crop, config.dataset.color_jitter = "resized", 0.4
    config, small = reduced(config, data.load(config.dataset))
    assert len(small.y_train) == 2 * config.batch_size
    assert (config.dataset.crop, config.dataset.color_jitter) == ("pad", 0)
    assert (config.cutout, config.dataset.flip, config.dataset.crop_padding, config.weight_decay) == (0, False, 0, 0)


@pytest.mark.parametrize("start", [search, retrain])
def test_profile_writes_a_trace_and_a_table(start, tiny_folder, monkeypatch):
    monkeypatch.setattr(profile, "MEASURED", 2)
    monkeypatch.setattr(profile, "STEPS", 6)
    report = Report()
    config = search_config(debug="profile") if start is search else retrain_config(debug="profile", genotype=TEXT)
    start(config, report=report)
    head = report.lines.index("part      CPU ms a step           GPU ms a step")
    names = ["data", "alphas", "weights", "other"] if start is search else ["data", "weights", "other"]
    rows = [line.replace("(", " ").split() for line in report.lines[head + 1 : head + 2 + len(names)]]
    assert [row[0] for row in rows] == [*names, "trace:"]
    shares = [float(row[2].rstrip("%)")) for row in rows[:-1]]
    assert all(share > 0 for share in shares) and abs(sum(shares) - 100) < 0.1 * len(shares)
    trace = json.loads(Path("run/profile.json").read_text())
    assert {"data", "weights"} <= {event.get("name") for event in trace["traceEvents"]}


@pytest.mark.parametrize("config", [search_config(restarts=2), retrain_config(seeds=[0, 1], genotype=None)])
def test_several_runs_are_fast_or_refused(config, tiny_folder):
    report = Report()
    start = search if hasattr(config, "restarts") else retrain
    small = replace(config, cells=2, channels=2, batch_size=4, run_dir="outputs/search/npz/run", debug="fast")
    result = start(small, report=report)
    assert len(result.get("seeds") or result["restarts"]) == 2
    assert report.lines.count("no finished search: a random genotype will do") == (start is retrain)
    assert newest_finished("search", data.load(config.dataset).source) is None
    for kind in ("overfit", "profile"):
        with pytest.raises(UserError, match="debug: looks at a single run"):
            check(replace(config, debug=kind))


def test_a_debug_run_is_not_resumed():
    with pytest.raises(UserError, match="debug: a debug run is short"):
        check(search_config(debug="fast", resume="auto"))
