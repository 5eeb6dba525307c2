"""A found genotype beside random ones and the heaviest of its space: drawn from the seed, trained alike, all reported."""

import json
import math
import shutil
import signal
import statistics
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from darts_lite.cli.run import run_verb
from darts_lite.costs import nearest
from darts_lite.errors import Exit, UserError
from darts_lite.evaluate import EvaluateConfig, evaluate
from darts_lite.genotypes.genotype import from_plain, to_plain
from darts_lite.runs.baseline import as_text, random_genotypes, space_behind
from darts_lite.runs.comparison import chance
from darts_lite.seeds import derive
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces import SPACES, find_genotype
from darts_lite.spaces.network import Skeleton

pytestmark = pytest.mark.usefixtures("tiny_folder")
FOUND = find_genotype(tiny.TEXT)


def baseline(**changes):
    """Four networks with two seeds each, two steps a run."""
    small = {"seeds": [2, 0], "baseline": "random:2", "cells": 2, "channels": 4, "epochs": 1, "batch_size": 48}
    return tiny.retrain_config(**{**small, "test_every": None, "checkpoint_steps": 1, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a finished run and its result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("made"))
        tiny.write_data()
        return Path.cwd() / "run", tiny.run(baseline())


def scores(folder, prefix):
    return [tiny.read_json(folder / f"{prefix}seed_{seed}/result.json")["test"] for seed in (2, 0)]


def test_the_table_is_that_of_the_runs(made):
    folder, result = made
    found, random, best, heaviest, guess = result["table"]
    assert json.loads((folder / "result.json").read_text()) == result
    for row, prefix in ((found, ""), (heaviest, "heaviest_")):
        for name in ("accuracy", "loss"):
            values = [one[name] for one in scores(folder, prefix)]
            assert row[name] == pytest.approx(statistics.mean(values)) and row["runs"] == 2
            assert row[f"{name}_std"] == pytest.approx(statistics.stdev(values))
    means = [
        tuple(statistics.mean(one[name] for one in scores(folder, f"random_{i}_")) for name in ("accuracy", "loss"))
        for i in (0, 1)
    ]
    assert random["runs"] == 2 and random["parameters"] is None
    assert (random["accuracy"], random["loss"]) == pytest.approx(tuple(map(statistics.mean, zip(*means, strict=True))))
    assert random["accuracy_std"] == pytest.approx(statistics.stdev(mean[0] for mean in means))
    number = max((0, 1), key=lambda i: (means[i][0], -means[i][1]))
    assert best["name"] == f"best of 2: random_{number}" and best["accuracy"] == pytest.approx(means[number][0])
    assert guess["name"] == "chance" and guess["accuracy"] == pytest.approx(1 / 3) and guess["samples"] == 30
    assert result["test"]["accuracy"] == found["accuracy"] and from_plain(result["genotype"]) == FOUND


def test_all_runs_are_reported_with_their_genotypes(made):
    folder, result = made
    assert [network["name"] for network in result["baseline"]] == ["heaviest", "random_0", "random_1"]
    for network in result["baseline"]:
        for row, score in zip(network["seeds"], scores(folder, f"{network['name']}_"), strict=True):
            child = tiny.read_json(folder / row["run"] / "result.json")
            assert child["genotype"] == network["genotype"] and child["parameters"] == row["parameters"]
            assert row["test"] == {name: score[name] for name in ("accuracy", "loss")}


def test_networks_differ_in_their_genotype_and_the_width_of_the_heaviest_alone(made):
    folder, result = made
    channels = {network["name"]: network["channels"] for network in result["baseline"]}
    whole = tiny.newest(folder / "seed_2")["config"]
    for name, width in channels.items():
        config = tiny.newest(folder / f"{name}_seed_2")["config"]
        assert config["channels"] == width and find_genotype(config["genotype"]) != FOUND
        own = {"channels", "genotype", "run_dir", "resume"}
        assert {key: config[key] for key in set(config) - own} == {key: whole[key] for key in set(whole) - own}
    assert channels["random_0"] == channels["random_1"] == whole["channels"]


def test_a_network_is_trained_as_it_would_be_by_itself(made):
    folder, result = made
    text = as_text(from_plain(result["baseline"][2]["genotype"]))
    alone = tiny.run(baseline(seeds=None, baseline=None, genotype=text, seed=0))
    child = tiny.read_json(folder / "random_1_seed_0/result.json")
    for one in (alone, child):
        for key in tiny.RAN:
            one.pop(key)
    assert alone == child


def test_random_genotypes_are_distinct_and_those_of_the_seed(made):
    space = space_behind(FOUND, tiny.TEXT)
    assert space.nodes == 2
    drawn = random_genotypes(space, 30, 5, {FOUND})
    assert len({*drawn, FOUND}) == 31 and random_genotypes(space, 30, 5, {FOUND})[:7] == drawn[:7]
    assert random_genotypes(space, 30, 6, {FOUND}) != drawn
    rng = Random(derive(5, "baseline"))
    assert drawn[0] == space.random(rng)
    assert drawn[1:] == random_genotypes(space, 29, 5, {drawn[0]})
    ours = random_genotypes(space, 2, 2, {FOUND})
    assert [from_plain(network["genotype"]) for network in made[1]["baseline"]][1:] == ours


def test_a_small_space_has_no_more():
    space = SPACES["darts"](SpaceConfig(nodes=1, candidates=["skip_connect"]))
    (only,) = random_genotypes(space, 1, 0)
    with pytest.raises(UserError, match="baseline: the space has only 0 other genotypes"):
        random_genotypes(space, 1, 0, {only})


def test_genotypes_are_drawn_from_the_candidates_of_the_search(made):
    tiny.run(tiny.search_config(epochs=1))
    space = space_behind(find_genotype("run"), "run")
    assert (space.nodes, list(space.columns)) == (tiny.SPACE.nodes, tiny.SPACE.candidates)
    result = tiny.run(baseline(seeds=None, seed=1, genotype="run", run_dir="retrained", drop_path=0.0))
    used = {
        edge["operation"]
        for network in result["baseline"]
        for cell in network["genotype"]["cells"].values()
        for edge in cell["edges"]
    }
    assert used <= set(tiny.SPACE.candidates)
    assert [row["seed"] for row in result["seeds"]] == [1] and result["test"]["runs"] == 1
    assert find_genotype("retrained") == find_genotype("run")


# The heaviest genotype of a space


@pytest.mark.parametrize("name", SPACES)
def test_the_heaviest_of_every_space_is_a_network_of_it(name):
    space, skeleton = SPACES[name](SpaceConfig(name=name)), Skeleton(3, 8, 10, image_size=(8, 8))
    found = space.random(Random(0))
    genotype, channels = space.heaviest(skeleton, space.network(found, skeleton).costs().macs)
    assert genotype.space == name and channels >= 1
    heaviest = space.network(genotype, skeleton).costs().parameters
    lighter = [space.network(space.random(Random(i)), skeleton).costs().parameters < heaviest for i in range(20)]
    assert sum(lighter) >= 18, "at equal width; of the DARTS space a few with 5x5 kernels have more"
    assert space.heaviest(skeleton, 1)[0] == genotype


def test_in_the_darts_space_every_edge_is_a_separable_convolution_at_the_nearest_macs():
    space, skeleton = SPACES["darts"](SpaceConfig()), Skeleton(3, 8, 10, image_size=(8, 8))

    def macs(genotype, channels):
        return space.network(genotype, replace(skeleton, channels=channels)).costs().macs

    wanted = macs(find_genotype("darts_v2"), 8)
    genotype, channels = space.heaviest(skeleton, wanted)
    assert {edge.operation for cell in genotype.cells.values() for edge in cell.edges} == {"sep_conv_3x3"}
    assert all(len(cell.into(node)) == 2 for cell in genotype.cells.values() for node in cell.concat)
    assert abs(macs(genotype, channels) - wanted) == min(abs(macs(genotype, width) - wanted) for width in range(1, 17))
    few = SPACES["darts"](SpaceConfig(candidates=["none", "skip_connect", "dil_conv_3x3", "dil_conv_5x5"]))
    genotype, _ = few.heaviest(skeleton, wanted)
    assert {edge.operation for cell in genotype.cells.values() for edge in cell.edges} == {"dil_conv_5x5"}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(-5, 1000))
def test_nearest(steps, wanted):
    costs = np.cumsum(steps).tolist()
    found = nearest(lambda width: costs[width - 1], wanted, len(costs))
    assert found == 1 + min(range(len(costs)), key=lambda i: abs(costs[i] - wanted))


# Chance


@pytest.mark.parametrize(("classes", "n"), [(10, 360), (2, 100), (100, 10000)])
def test_the_interval_of_chance_holds_95_percent_of_guesses(classes, n):
    guess = chance(np.arange(n) % classes)
    hits = np.arange(n + 1)
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in hits]
    share = 1 / classes
    mass = np.exp(np.array(logs) + hits * math.log(share) + (n - hits) * math.log(1 - share))
    inside = (hits / n >= guess["low"]) & (hits / n <= guess["high"])
    assert guess["accuracy"] == pytest.approx(share) and 0.935 < mass[inside].sum() < 0.965


def test_chance_is_the_commonest_class():
    guess = chance(np.array([0, 1, 1, 1]))
    assert (
        guess["accuracy"] == 0.75
        and guess["high"] == 1.0
        and guess["low"] == pytest.approx(0.75 - 1.96 * math.sqrt(3) / 8)
    )


# Resumed, refused, read by others


@pytest.mark.parametrize(
    "point", [("after", "retrain step", 7), ("before", "checkpoint", 17), ("before", "json", 1, "'table'")]
)
def test_killed(point, made):
    assert tiny.outcome(tiny.killed_run, baseline(), point) == -signal.SIGKILL, Path("said").read_text()
    assert tiny.outcome(tiny.killed_run, baseline(resume="run"), ()) == 0, Path("said").read_text()
    results = [tiny.read_json("run/result.json"), json.loads(json.dumps(made[1]))]
    for result in results:
        del result["time"]
        for row in [*result["seeds"], *(row for network in result["baseline"] for row in network["seeds"])]:
            del row["training_seconds"]
    assert results[0] == results[1]
    for child in ("seed_0", "heaviest_seed_2", "random_1_seed_0"):
        assert tiny.trace(f"run/{child}")["model.pt"] == tiny.trace(made[0] / child)["model.pt"]


def test_another_genotype_in_the_place_of_a_random_one(made):
    shutil.copytree(made[0], "run")
    for name in ("result.json", "status.json"):
        Path("run", name).unlink()
    shutil.rmtree("run/random_1_seed_0")
    shutil.copytree("run/random_0_seed_0", "run/random_1_seed_0")
    with pytest.raises(UserError, match="the run has another configuration: genotype") as error:
        tiny.run(baseline(resume="run"))
    assert error.value.code == Exit.RUN and not Path("run/result.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["baseline=random"], "baseline: must be random:N with N from 1 to 999, got 'random'"),
        (["baseline=random:0"], "baseline: must be random:N"),
        (["baseline=3"], "baseline: must be text"),
        (["baseline=random:2", "genotype=random"], "baseline: compares what was found with random genotypes"),
        (["baseline=random:2", "init=supernet"], "baseline: would be compared with a network that does not start"),
        (["baseline=random:2", "debug=overfit"], "debug: looks at a single run"),
    ],
)
def test_refused(words, said, capsys):
    plain = ["dataset=npz", "dataset.path=data.npz", "genotype=darts_v2", "cells=2", "channels=2"]
    before = sorted(Path().rglob("*"))
    assert run_verb("retrain", [*plain, *words]) == Exit.CONFIGURATION
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and sorted(Path().rglob("*")) == before


def test_one_of_them_is_evaluated(made):
    with pytest.raises(UserError, match=r"holds several runs.*heaviest_seed_0.*random_0_seed_0"):
        evaluate(EvaluateConfig(run=str(made[0])), report=tiny.Report())


def test_the_json_of_a_genotype_is_a_genotype():
    assert find_genotype(as_text(FOUND)) == FOUND
    assert find_genotype(json.dumps({"genotype": to_plain(FOUND)})) == FOUND
    with pytest.raises(UserError, match="genotype: is not JSON"):
        find_genotype('{"format": 1,')
