"""What a retraining can be told: averaged weights, schedules of the learning rate, where the weights start, what judges them."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch.optim.swa_utils import AveragedModel

from darts_lite import data
from darts_lite.data.parts import BatchFeed
from darts_lite.data.splits import split
from darts_lite.errors import Exit, UserError
from darts_lite.genotypes.text import parse_text
from darts_lite.methods.build import build_method
from darts_lite.methods.phases import Phase
from darts_lite.models import create_network, load_model
from darts_lite.spaces.darts import DartsSpace
from darts_lite.spaces.transfer import transfer
from darts_lite.training import retrain_step as retrain_state
from darts_lite.training.average import Average
from darts_lite.training.optimizers import warmed_up

pytestmark = pytest.mark.usefixtures("tiny_folder")

SMALL = {"epochs": 1, "batch_size": 32, "test_every": None}  # three steps


def small(**changes):
    return tiny.retrain_config(**{**SMALL, **changes})


def refused(config, code):
    with pytest.raises(UserError) as error:
        tiny.run(config)
    assert error.value.code == code and len(str(error.value)) <= 400 and not Path("run").exists(), error.value
    return str(error.value)


# The learning rate


@pytest.mark.parametrize("schedule", ["cosine", "linear", "exponential"])
@pytest.mark.parametrize("warmup", [0, 0.25, 1])
def test_schedules(schedule, warmup):
    for progress in (0, 0.1, 0.25, 0.5, 0.9, 1):
        rest = (progress - warmup) / (1 - warmup) if warmup < 1 else 0
        fallen = {
            "cosine": 0.1 + (0.5 - 0.1) * (1 + math.cos(math.pi * rest)) / 2,
            "linear": 0.5 + (0.1 - 0.5) * rest,
            "exponential": math.exp((1 - rest) * math.log(0.5) + rest * math.log(0.1)),
        }[schedule]
        expected = 0.5 * progress / warmup if progress < warmup else fallen
        rate = warmed_up(torch.tensor(float(progress)), schedule, 0.5, 0.1, warmup=warmup)
        assert rate.item() == pytest.approx(expected, abs=1e-7), progress


def test_the_run_follows_its_schedule():
    tiny.run(tiny.retrain_config(schedule="linear", warmup_epochs=1, lr=0.5, lr_min=0.1, log_every=1))
    records = tiny.read_lines("run/metrics.jsonl")
    rates = [record["values"]["lr/weights"] for record in records if record["kind"] == "step"]
    assert rates == pytest.approx([*(0.5 * i / 6 for i in range(6)), *(0.5 - 0.4 * i / 6 for i in range(6))])


# The average


def a_network():
    torch.manual_seed(0)
    return create_network(parse_text(tiny.TEXT), cells=2, channels=2, classes=3, image_size=(8, 8), auxiliary=True)


def disturb(network):
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data.add_(torch.randn_like(tensor))


def test_the_average_is_that_of_torch():
    """Against torch.optim.swa_utils, buffers included, with the ramp of the decay put in."""

    def follow(averages, now, number):
        decay = min(0.7, int(number) / (9 + int(number)))  # torch counts from 1, after a first copy
        if averages[0].is_floating_point():  # torch brings one type of number at a time
            torch._foreach_lerp_(averages, now, 1 - decay)

    network = a_network()
    reference = AveragedModel(network, multi_avg_fn=follow, use_buffers=True)
    reference.update_parameters(network)
    average = Average(network, 0.7)
    for step in range(40):
        disturb(network)
        reference.update_parameters(network)
        average.update(torch.tensor(step), torch.tensor(0.0))
    for name, tensor in reference.module.state_dict().items():
        torch.testing.assert_close(average.network.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    assert not torch.equal(average.network.stem[0].weight, network.stem[0].weight)


def test_nothing_is_averaged_after_a_number_that_is_not_finite(monkeypatch):
    network = a_network()
    average = Average(network, 0.5)
    disturb(network)
    before = tiny.frozen(average.network.state_dict())
    average.update(torch.tensor(3), torch.tensor(1.0))
    assert tiny.frozen(average.network.state_dict()) == before
    states = []
    inner = retrain_state.RetrainState.__init__
    monkeypatch.setattr(
        retrain_state.RetrainState, "__init__", lambda self, *a, **k: (inner(self, *a, **k), states.append(self))[0]
    )
    with pytest.raises(UserError) as error:
        tiny.run(small(ema=0.5, lr=1e30, gradient_clip=None, epochs=2, log_every=100))
    assert error.value.code == Exit.NUMERIC
    assert all(tensor.isfinite().all() for tensor in states[0].average.network.state_dict().values())


def test_the_average_is_what_is_reported(monkeypatch):
    result = tiny.run(small(ema=0.9))
    state = tiny.newest("run")
    kept, stored = load_model("run").network.state_dict(), state["average"]
    assert set(stored) == set(state["weights"]["network"])
    assert all(torch.equal(tensor, stored[name]) for name, tensor in kept.items())
    assert not torch.equal(kept["classifier.weight"], state["weights"]["network"]["classifier.weight"])
    dataset = data.load(tiny.data_config())
    images = torch.from_numpy(dataset.x_test).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        logits = load_model("run")((images - dataset.mean[0]) / dataset.std[0])
    assert torch.nn.functional.cross_entropy(logits, torch.from_numpy(dataset.y_test)).item() == pytest.approx(
        result["test"]["loss"], rel=1e-4
    )
    shutil.move("run", "with")
    tiny.run(small())  # it only watches
    assert tiny.frozen(tiny.newest("run")["weights"]) == tiny.frozen(state["weights"])


def test_an_averaged_run_goes_on_where_it_was_stopped(monkeypatch):
    config = small(ema=0.9, schedule="linear", warmup_epochs=1, checkpoint_steps=1)
    tiny.run(config)
    whole = tiny.trace("run")
    shutil.rmtree("run")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="boom"):
        patch.setattr(Average, "update", boom_at(2, Average.update))
        tiny.run(config)
    tiny.run(config, resume="run")
    tiny.assert_same(tiny.trace("run"), whole)


def boom_at(number, update):
    def once(self, step, bad):
        if step == number:
            raise RuntimeError("boom")
        update(self, step, bad)

    return once


# Flips


@pytest.mark.parametrize("stopped", [4, 6, 7])  # of three steps an epoch
def test_flips_go_on_to_alternate(stopped, monkeypatch):
    config = small(alternating_flip=True, epochs=3, checkpoint_steps=1)
    tiny.run(config)
    whole = tiny.trace("run")
    shutil.rmtree("run")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="boom"):
        patch.setattr(BatchFeed, "load", lambda self, step: boom() if step == stopped else load(self, step))
        tiny.run(config)
    tiny.run(config, resume="run")
    tiny.assert_same(tiny.trace("run"), whole)


load = BatchFeed.load


def test_without_flips_nothing_alternates():
    traces = []
    for alternating in (True, False):
        dataset = replace(tiny.data_config(), flip=False)
        tiny.run(small(alternating_flip=alternating, dataset=dataset, run_dir=str(alternating), log_every=1))
        traces.append(tiny.newest(str(alternating))["weights"])
    tiny.assert_same(*map(tiny.frozen, traces))


# Where the weights start


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished search and two finished retrainings: of what it found, and of another genotype."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("made"))
        tiny.write_data()
        tiny.run(tiny.search_config(run_dir="search", alpha_lr=0.5, epochs=1))
        tiny.run(small(genotype="search", run_dir="equal", cells=3, channels=2))
        tiny.run(small(run_dir="other", cells=3, channels=2))
        return Path.cwd()


@pytest.fixture
def runs(made):
    for name in ("search", "equal", "other"):
        shutil.copytree(made / name, name)


def first_weights(config):
    """Of the network before its first step; the configuration's run is stopped there."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="boom"):
        patch.setattr(retrain_state.WeightOptimizer, "step", boom)
        tiny.run(config)
    state = tiny.newest("run")
    assert state["step"] == 0
    return state["weights"]["network"]


def boom(*arguments, **named):
    raise RuntimeError("boom")


def test_from_another_run(runs):
    config = small(genotype="search", channels=2, init="equal")
    weights, kept = first_weights(config), load_model("equal").network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in kept.items())
    assert all(name.startswith("auxiliary.") for name in weights.keys() - kept.keys())
    shutil.rmtree("equal")  # a run goes on without what it started from
    tiny.run(replace(config, resume="run"))


@pytest.mark.parametrize("genotype", ["search", "search/genotype.json"])
def test_from_the_supernet(runs, genotype):
    weights = first_weights(small(genotype=genotype, channels=2, init="supernet", seed=3))
    searched = tiny.newest("search")["weights"]["network"]
    network = load_model("equal").network  # for its structure
    fresh = network.state_dict()
    homes = {}  # key -> prefix, place and number of copies in the supernet
    supernet = DartsSpace(tiny.SPACE).supernet(network.skeleton, DartsSpace(tiny.SPACE).tables())
    for prefix, *_, keys in supernet.stacks():
        homes |= {key: (prefix, place, len(keys)) for place, key in enumerate(keys)}
    seen = set()
    for prefix, *_, keys in network.stacks():
        for name in (name for name in fresh if name.startswith(prefix)):
            for place, key in enumerate(keys):
                theirs, their_place, copies = homes[key]
                old = searched.get(theirs + name.removeprefix(prefix))
                mine = weights[name].unflatten(0, (len(keys), -1))[place]
                if old is None:
                    assert name.endswith(("norm.weight", "norm.bias"))
                    assert torch.equal(mine, torch.full_like(mine, float(name.endswith("weight"))))
                else:
                    assert torch.equal(mine, old.unflatten(0, (copies, -1))[their_place]), name
            seen.add(name)
    rest = [name for name in fresh if name not in seen and name in searched]
    assert any(name.startswith("stem") for name in rest) and any(name.startswith("classifier") for name in rest)
    assert all(torch.equal(weights[name], searched[name]) for name in rest)


def test_from_nothing_is_from_the_seed():
    first = first_weights(small(seed=1))
    shutil.rmtree("run")
    assert tiny.frozen(first_weights(small(seed=1, init="none"))) == tiny.frozen(first)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"init": "supernett"}, Exit.RUN, "init: no such run folder, got 'supernett'; fix: did you mean 'supernet'?"),
        ({"init": "x" * 5000}, Exit.RUN, "init: no such run folder"),
        ({"init": "data.npz"}, Exit.RUN, "init: no such run folder"),
        ({"init": "search"}, Exit.RUN, "init: is not a retraining"),
        ({"init": "other"}, Exit.CONFIGURATION, "init: the run has another genotype"),
        ({"init": "equal", "channels": 4}, Exit.CONFIGURATION, "init: the run has channels 2, this network 4"),
        ({"init": "equal", "cells": 4}, Exit.CONFIGURATION, "init: the run has cells 3, this network 4"),
        ({"init": "equal", "reductions": [1]}, Exit.CONFIGURATION, "reductions [1, 2], this network [1]"),
        ({"init": "supernet", "cells": 4}, Exit.CONFIGURATION, "init: the supernet has cells 3, this network 4"),
        ({"init": "supernet", "genotype": "darts_v1"}, Exit.CONFIGURATION, "so there is no supernet"),
        ({"init": "supernet", "genotype": "random"}, Exit.CONFIGURATION, "so there is no supernet"),
        ({"init": "supernet", "genotype": f"{tiny.TEXT}{' ' * 200}"}, Exit.CONFIGURATION, "so there is no supernet"),
        ({"init": "supernet", "dataset": "wide.npz"}, Exit.CONFIGURATION, "image_size [8, 8], this network [16, 16]"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_weights_that_do_not_fit(changes, code, said, runs):
    if "dataset" in changes:
        with np.load("data.npz") as arrays:
            wide = {name: np.tile(a, (1, 2, 2, 1)) if a.ndim == 4 else a for name, a in arrays.items()}
            np.savez(changes["dataset"], **wide)
        changes = {**changes, "dataset": replace(tiny.data_config(), path=changes["dataset"])}
    assert said in refused(small(**{"genotype": "search", "channels": 2, **changes}), code)


def change(key, value):
    def act(state):
        state[key] = value(state[key]) if callable(value) else value

    return act


@pytest.mark.parametrize(
    "damage",
    [
        change("skeleton", None),
        change("skeleton", lambda plain: {**plain, "cells": "3"}),
        change("skeleton", lambda plain: {**plain, "image_size": [8]}),
        change("alive", {}),
        change("alive", lambda alive: {cell: mask[:1] for cell, mask in alive.items()}),
        change("weights", {}),
        lambda state: state["weights"]["network"].popitem(),
        lambda state: state["weights"]["network"].update({"classifier.bias": torch.zeros(7)}),
        lambda state: state["config"].pop("space"),
    ],
)
def test_a_tampered_search(damage, runs):
    state = tiny.newest("search")
    damage(state)
    tiny.rewrite("search", state)
    refused(small(genotype="search", channels=2, init="supernet"), Exit.RUN)


def test_a_tampered_run(runs):
    path = Path("equal/model.pt")
    path.write_bytes(path.read_bytes()[:-9])
    assert "model.pt" in refused(small(genotype="search", channels=2, init="equal"), Exit.RUN)


def test_other_skeletons_are_not_carried():
    small_one, large_one = (
        create_network(parse_text(tiny.TEXT), cells=cells, channels=2, classes=3) for cells in (2, 3)
    )
    with pytest.raises(ValueError, match="do not fit"):
        transfer(small_one, large_one, small_one.state_dict())

    def deeper(config):
        return [Phase(1), Phase(1, keeps="weights", skeleton={"cells": 4})]

    with pytest.raises(UserError, match="phases: phase 1 keeps weights of another skeleton"):
        build_method(tiny.search_config(phases=deeper))


# What judges them


def test_halves_of_the_training_part():
    """Those of the search with this seed; the test part is not even looked at."""
    result = tiny.run(small(train_fraction=0.5, seed=3, test_every=1))
    dataset = data.load(tiny.data_config())
    train, validation = split(dataset.y_train, 0.5, 3)
    assert "test" not in result and result["validation"]["samples"] == len(validation)
    assert result["steps"] == len(train) // 32
    epochs = [record["values"] for record in tiny.read_lines("run/metrics.jsonl") if record["kind"] == "epoch"]
    assert epochs[0]["epoch/validation/accuracy"] == result["validation"]["accuracy"]
    shutil.rmtree("run")
    tiny.write_data(garbage=1)
    again = tiny.run(small(train_fraction=0.5, seed=3, test_every=1))
    assert again["validation"] == result["validation"] and again["model_sha256"] == result["model_sha256"]


def test_one_image_is_no_half():
    np.savez("data.npz", **{f"{kind}_{part}": np.arange(3).repeat(64).reshape(3, 8, 8).astype(np.uint8) if kind == "x"
                            else np.arange(3) for kind in "xy" for part in ("train", "test")})  # fmt: skip
    config = small(train_fraction=0.9, batch_size=2)
    assert "no image is left for validation" in refused(config, Exit.DATA)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ema": 0.0}, "ema: must be above 0"),
        ({"ema": 1.0}, "ema: must be at most"),
        ({"ema": math.nan}, "ema: must be finite"),
        ({"schedule": "cosin"}, "schedule: unknown name"),
        ({"schedule": "exponential"}, "lr_min: is never reached by schedule=exponential, got 0.0"),
        ({"warmup_epochs": 2}, "warmup_epochs: must not be above epochs"),
        ({"warmup_epochs": -1}, "warmup_epochs: must be at least 0"),
        ({"init": ""}, "init: must not be empty"),
        ({"train_fraction": 1.0}, "train_fraction: must be at most"),
    ],
)
def test_values_that_are_none(changes, said):
    assert said in refused(small(**changes), Exit.CONFIGURATION)
