"""The search: what moves when, what it reads, and a method made of objects of one's own in every place that takes one."""

import copy
import json
import random
import re
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from darts_lite import data
from darts_lite.data.parts import Order
from darts_lite.data.splits import split
from darts_lite.errors import Exit, UserError
from darts_lite.genotypes.genotype import from_json
from darts_lite.methods.architecture import flatten, unflatten
from darts_lite.methods.build import build_method, build_space
from darts_lite.methods.method import Stateful
from darts_lite.methods.phases import Phase
from darts_lite.retrain import retrain
from darts_lite.search import SearchConfig, search
from darts_lite.seeds import derive
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.table import Table
from darts_lite.training import search_state
from darts_lite.training.search_state import SearchState
from darts_lite.training.search_step import alpha_step, search_step, weight_step

pytestmark = pytest.mark.usefixtures("tiny_folder")


def make(config):
    """The state of a search before its first step, and a function that gives its two batches of a step."""
    dataset = data.load(config.dataset)
    method, space = build_method(config), build_space(config.space)
    skeleton = Skeleton(config.cells, config.channels, dataset.classes, dataset.channels, dataset.image_size)
    halves = split(dataset.y_train, config.train_fraction, config.seed)
    parts = [
        tiny.resident(dataset.x_train[half], dataset.y_train[half], "cpu", dataset.mean, dataset.std) for half in halves
    ]
    orders = [
        Order(len(half), config.batch_size, derive(config.seed, name)) for half, name in zip(halves, "ab", strict=True)
    ]
    state = SearchState(config, space, skeleton, method, torch.device("cpu"), "fp32", epoch_steps=3)

    def batches(step):
        return [
            tiny.batch(part, order.indices(step), state.clock.generator)
            for part, order in zip(parts, orders, strict=True)
        ]

    return state, batches


def copied(state):
    """Bits of everything that a step may move, by its owner."""
    return {name: tiny.frozen(state.state_dict()[name]) for name in ("weights", "architecture", "alpha_optimizer")}


# What moves when


def test_weights_and_alphas_are_apart():
    state, _ = make(tiny.search_config(edge_weights=True))

    def owned(optimizer):
        return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}

    weights, alphas = owned(state.weight_optimizer.optimizer), owned(state.alpha_optimizer)
    assert not weights & alphas
    assert weights == {id(parameter) for parameter in state.supernet.parameters()}
    assert alphas == {id(parameter) for parameter in state.architecture.parameters()} and len(alphas) == 4


@pytest.mark.parametrize("solver", ["first_order", "unrolled", "unrolled_exact"])
def test_each_half_of_a_step_moves_its_own(solver):
    state, batches = make(tiny.search_config(solver=solver, edge_weights=True, alpha_weight_decay=0.0))
    train, validation = batches(0)
    before = copied(state)
    alpha_step(state, train, validation, torch.tensor(0.1))
    between = copied(state)
    assert between["weights"] == before["weights"], "neither weights, nor momentum, nor statistics"
    for name, logits in before["architecture"].items():
        assert logits != between["architecture"][name], name
    assert all(weight.grad is None for weight in state.supernet.parameters())
    weight_step(state, train, torch.tensor(0.1))
    after = copied(state)
    assert after["architecture"] == between["architecture"] and after["alpha_optimizer"] == between["alpha_optimizer"]
    for part in ("network", "optimizer"):
        assert after["weights"][part] != between["weights"][part]


def test_first_order_computes_no_gradient_of_the_weights(monkeypatch):
    state, batches = make(tiny.search_config())
    seen = []
    forward = search_state.call

    def spied(network, precision, names, weights, *arguments, **keywords):
        seen.extend(weight.requires_grad for weight in weights)
        return forward(network, precision, names, weights, *arguments, **keywords)

    monkeypatch.setattr(search_state, "call", spied)
    alpha_step(state, *batches(0), torch.tensor(0.1))
    assert seen and not any(seen)
    assert all(weight.grad is None for weight in state.supernet.parameters())


def test_without_a_step_ahead_unrolled_is_first_order():
    gradients = {}
    for solver in ("first_order", "unrolled", "unrolled_exact"):
        state, batches = make(tiny.search_config(solver=solver))
        alpha_step(state, *batches(0), torch.tensor(1e-12))
        gradients[solver] = [logits.grad for logits in state.architecture.parameters()]
    assert all(gradient.abs().max() > 1e-5 for gradient in gradients["first_order"])
    for solver in ("unrolled", "unrolled_exact"):
        torch.testing.assert_close(gradients[solver], gradients["first_order"], rtol=1e-4, atol=1e-8)


def test_alphas_wait_for_the_weights():
    tiny.run(tiny.search_config(epochs=3, warmup_epochs=2))
    mixing = [record["mixing"] for record in tiny.read_lines("run/alphas.jsonl")]
    assert mixing[0] == mixing[1] == mixing[2] != mixing[3]
    steps = [record["values"] for record in tiny.read_lines("run/metrics.jsonl") if record["kind"] == "step"]
    assert ["validation/loss" in values for values in steps] == [False, False, False, True]  # steps 2, 4, 6 | 8


# What decides the result


def test_equal_seeds_are_equal_and_others_are_not():
    traces = []
    for seed in (3, 3, 4):
        tiny.run(tiny.search_config(seed=seed))
        traces.append(tiny.trace("run"))
        shutil.rmtree("run")
    tiny.assert_same(traces[0], traces[1])
    assert traces[0]["alphas.jsonl"] != traces[2]["alphas.jsonl"]
    assert traces[0]["metrics"] != traces[2]["metrics"]


@pytest.mark.parametrize(
    "config", [tiny.search_config(solver="unrolled"), tiny.retrain_config()], ids=["search", "retrain"]
)
def test_global_random_numbers_are_neither_used_nor_changed(config):
    def states():
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    before = states()
    tiny.run(config)
    assert states() == before
    first = tiny.trace("run")
    shutil.rmtree("run")
    torch.manual_seed(99), np.random.seed(99), random.seed(99)
    tiny.run(config)
    tiny.assert_same(tiny.trace("run"), first)


def test_the_test_part_is_never_read():
    traces = []
    for garbage in (None, 1):
        tiny.write_data(garbage=garbage)
        tiny.run(tiny.search_config())
        traces.append(tiny.trace("run"))
        shutil.rmtree("run")
    for trace in traces:  # the fingerprint of the data is of all of it
        del trace["env.json"], trace["checkpoint"]["env"]
    tiny.assert_same(*traces)


def test_more_threads_of_logging_change_nothing():
    traces = []
    for every in (1, 4):
        tiny.run(tiny.search_config(log_every=every, checkpoint_steps=every))
        traces.append(tiny.trace("run"))
        shutil.rmtree("run")
    assert (
        traces[0]["genotype.json"] == traces[1]["genotype.json"]
        and traces[0]["alphas.jsonl"] == traces[1]["alphas.jsonl"]
    )
    assert traces[0]["checkpoint"]["weights"] == traces[1]["checkpoint"]["weights"]


def test_what_a_search_leaves_behind():
    result = tiny.run(tiny.search_config())
    assert result == json.loads(Path("run/result.json").read_text())
    genotype = from_json(Path("run/genotype.json").read_text())
    assert {cell: len(graph.edges) for cell, graph in genotype.cells.items()} == {"normal": 4, "reduce": 4}
    assert [record["epoch"] for record in tiny.read_lines("run/alphas.jsonl")] == [0, 1, 2]
    assert [record["step"] for record in tiny.read_lines("run/alphas.jsonl")] == [0, 3, 6]
    kinds = [(record["kind"], record["step"]) for record in tiny.read_lines("run/metrics.jsonl")]
    assert kinds == [("start", 0), ("step", 2), ("epoch", 3), ("step", 4), ("step", 6), ("epoch", 6), ("final", 6)]
    assert sorted(path.name for path in Path("run/cells").iterdir()) == ["normal.svg", "reduce.svg"]
    assert result["validation"]["samples"] == 48 and result["parameters"] > 0 and result["macs"] > 0
    assert json.loads(Path("run/status.json").read_text())["state"] == "finished"


# A method of one's own


class Gumbel:
    """Softmax of noisy logits, colder and colder (Jang et al. 2017)."""

    def sample(self, logits, table: Table, progress, generator):
        noise = -torch.empty_like(logits).exponential_(generator=generator).log()
        return torch.softmax((logits.masked_fill(~table.alive, -torch.inf) + noise) / (2 - progress), dim=-1)

    def expected(self, logits, table: Table, progress):
        return torch.softmax(logits.masked_fill(~table.alive, -torch.inf), dim=-1)


class Budget(Stateful):
    """A Lagrange multiplier that rises while there are too many convolutions: it has memory."""

    def __init__(self):
        self.multiplier = torch.zeros(())

    def __call__(self, view):
        convolutions = sum(mixing[:, 3].mean() for mixing in view.expected.values())
        self.multiplier = self.multiplier + 0.1 * (convolutions.detach() - 0.2)
        return self.multiplier * convolutions

    def state_dict(self):
        return {"multiplier": self.multiplier}

    def load_state_dict(self, state):
        self.multiplier = state["multiplier"]


class Attack:
    """A random start and one step of ascent on the training loss (SDARTS, Chen & Hsieh 2020)."""

    def __call__(self, mixing, tables, loss, progress, generator):
        start = [tensor + 0.01 * torch.rand(tensor.shape, generator=generator) for tensor in flatten(mixing)]
        starts = tuple(tensor.requires_grad_() for tensor in start)
        gradients = torch.autograd.grad(loss(unflatten(mixing, starts)), starts, materialize_grads=True)
        moved = ((one + 0.01 * gradient.sign()).detach() for one, gradient in zip(starts, gradients, strict=True))
        return unflatten(mixing, tuple(moved))


class Shrink(Stateful):
    """Smaller and smaller gradients, by the number of calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, gradients, loss, mixing, progress):
        self.calls += 1
        torch._foreach_mul_(tiny.moved(gradients), 1 / (1 + 0.1 * self.calls))

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def without_weakest(state):
    """Of every edge that has several candidates, all but the one with the smallest logit."""
    kept, architecture = {}, state.architecture
    for cell, table in architecture.tables.items():
        logits = architecture.operations[cell].detach().masked_fill(~table.alive, torch.inf)
        weakest = torch.nn.functional.one_hot(logits.argmin(dim=1), len(table.operations)).bool()
        kept[cell] = table.alive & ~(weakest & (table.alive.sum(dim=1, keepdim=True) > 1))
    return kept


def pruned(config):
    return [Phase(1), Phase(2, keeps="weights", alive=without_weakest)]


def deeper(config):
    return [Phase(1), Phase(2, warmup_epochs=1, skeleton={"cells": 4}, alive=without_weakest)]


def continued(config):
    return [Phase(1), Phase(2, keeps="all")]


ROWS = [None, ["skip_connect"], ["max_pool_3x3", "sep_conv_3x3"], None, ["none", "sep_conv_3x3"]]  # of the five edges
PHASES = {"pruned": pruned, "deeper": deeper, "continued": continued}


def own_method(phases, **changes):
    """Nine steps of a method of which every part is an object."""
    return tiny.search_config(
        space=replace(tiny.SPACE, edge_candidates={"normal": ROWS}),
        relaxation=Gumbel(),
        penalties=[Budget()],
        perturbation=Attack(),
        regularization=Shrink(),
        phases=PHASES[phases],
        edge_weights=True,
        checkpoint_steps=2,
        **changes,
    )


def run_own(phases, resume, point):
    tiny.killed_run(own_method(phases, resume=resume), point)


@pytest.mark.parametrize("phases", PHASES)
def test_a_method_of_ones_own(phases):
    assert tiny.outcome(run_own, phases, None, ()) == 0, Path("said").read_text()
    whole = tiny.trace("run")
    shutil.rmtree("run")

    take_over, half = (
        "next phase",
        "weight step",
    )
    for resume, point in (
        (None, ("after", take_over)),  # at the beginning of the second phase, with a checkpoint in the first
        ("run", ("before", half, 4)),  # now with a checkpoint in the second
    ):
        assert tiny.outcome(run_own, phases, resume, point) == -signal.SIGKILL, Path("said").read_text()
    assert tiny.outcome(run_own, phases, "run", ()) == 0, Path("said").read_text()
    tiny.assert_same(tiny.trace("run"), whole)

    state = tiny.newest("run")
    assert state["clock"] == {"phase": 1, "phase_step": 6, "done": 9}
    assert state["parts"]["regularization"] == {"calls": 9}
    assert state["parts"]["penalty_0"]["multiplier"] != 0
    assert_masks(phases)


def assert_masks(phases):
    """Candidates that were not there, or are no longer, have no weight and are not chosen."""
    names = tiny.SPACE.candidates
    allowed = [[name in (row or names) for name in names] for row in ROWS]
    records = tiny.read_lines("run/alphas.jsonl")
    assert [record["epoch"] for record in records] == [0, 1, 2, 3]
    for record in records:
        normal = record["mixing"]["normal"]
        lost = [(1 if phases != "continued" and record["epoch"] > 1 and sum(row) > 1 else 0) for row in allowed]
        live = [[weight is not None for weight in row] for row in normal["operations"]]
        assert [sum(row) for row in live] == [sum(row) - less for row, less in zip(allowed, lost, strict=True)]
        assert all(
            may or not has for row, mays in zip(live, allowed, strict=True) for has, may in zip(row, mays, strict=True)
        )
        # Edges into one node share a weight of 1: two into the first, three into the second.
        assert sum(normal["edges"][:2]) == pytest.approx(1) and sum(normal["edges"][2:]) == pytest.approx(1)
    alive = tiny.newest("run")["alive"]
    edges = [(source, target) for target in (2, 3) for source in range(target)]
    genotype = from_json(Path("run/genotype.json").read_text())
    for cell, graph in genotype.cells.items():
        assert all(alive[cell][edges.index((e.source, e.target)), names.index(e.operation)] for e in graph.edges)
    skips = [edge for edge in genotype.cells["normal"].edges if (edge.source, edge.target) == (1, 2)]
    assert [edge.operation for edge in skips] == ["skip_connect"]


@pytest.mark.parametrize("phases", PHASES)
def test_what_a_phase_takes_over(phases, monkeypatch):
    seen = []
    take_over = SearchState.take_over

    def spied(self, before):
        take_over(self, before)
        seen.append(copy.deepcopy([one.state_dict() for one in (before, self)]))

    monkeypatch.setattr(SearchState, "take_over", spied)
    search(own_method(phases), report=tiny.Report())
    ((old, new),) = seen
    assert new["clock"] == {"phase": 1, "phase_step": 0, "done": 3}
    stem = "stem.0.weight"
    number = list(old["weights"]["network"]).index(stem)
    velocity = [one["weights"]["optimizer"][number]["momentum_buffer"] for one in (old, new)]
    kept = phases != "deeper"
    assert torch.equal(old["weights"]["network"][stem], new["weights"]["network"][stem]) == kept
    assert torch.equal(*velocity) == kept and velocity[0].any() and bool(velocity[1].any()) == kept
    for name in old["architecture"]:
        assert torch.equal(old["architecture"][name], new["architecture"][name]) == (phases == "continued"), name
    for number in old["alpha_optimizer"]:
        assert bool(new["alpha_optimizer"][number]["step"]) == (phases == "continued")
    if kept:  # pruned or not: the copies that are left, statistics included, are those of before
        pools = [
            name for name in new["weights"]["network"] if "skip_connect" in name and name in old["weights"]["network"]
        ]
        assert pools
        for name in pools:
            assert torch.isin(new["weights"]["network"][name], old["weights"]["network"][name]).all(), name


def test_each_epoch_is_validated_once_also_the_last(tiny_folder, monkeypatch):
    """The result has the scores of the last epoch, whose supernet is the one that the search ends with."""
    scores, validate = [], SearchState.validate
    monkeypatch.setattr(SearchState, "validate", lambda state: scores.append(validate(state)) or scores[-1])
    result = tiny.run(tiny.search_config())
    assert len(scores) == tiny.search_config().epochs and result["validation"] == scores[-1]


def test_expected_mixing_has_no_noise():
    """What is recorded, selected and validated is what the same alphas give every time."""
    state, batches = make(own_method("continued"))
    clock = state.clock
    for step in range(3):
        search_step(state, *batches(step), learn_alphas=True)
        clock.tick()
    samples = [state.architecture.sample(clock.progress, clock.generator)["normal"].operations for _ in range(2)]
    expected = [state.architecture.expected(clock.progress)["normal"].operations for _ in range(2)]
    assert torch.equal(*expected) and not torch.equal(*samples)
    clock._tell_device()  # the noise is a function of the step
    assert torch.equal(state.architecture.sample(clock.progress, clock.generator)["normal"].operations, samples[0])


@pytest.mark.parametrize(
    "changes", [{"relaxation": Attack()}, {"penalties": []}, {"penalties": [Shrink()]}, {"phases": pruned}]
)
def test_objects_are_told_by_their_names(changes, monkeypatch):
    """A run with an object of one's own is not resumed with another one in its place, nor without it."""
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="boom"):
        patch.setattr(Attack, "__call__", boom)
        tiny.run(own_method("continued"))
    with pytest.raises(UserError) as error:
        tiny.run(own_method("continued"), resume="run", **changes)
    (key,) = changes
    assert error.value.code == Exit.RUN and f"{key}" in str(error.value) and "test_search." in str(error.value)
    tiny.run(own_method("continued"), resume="run")
    assert (
        tiny.run(tiny.search_config(resume="run", relaxation=SearchConfig().relaxation), epochs=2)["steps"] == 9
    )  # it is finished: nothing is needed any more, and what is at its default is not compared


@dataclass
class Entropy:
    """Plain, so that it has no hash; two of them may differ in their factor."""

    factor: float

    def __call__(self, view):
        return -self.factor * sum((mixing * (mixing + 1e-6).log()).sum() for mixing in view.mixing.values())


def test_plain_dataclasses_are_penalties():
    config = tiny.search_config(penalties=[Entropy(0.1), Entropy(0.1), Entropy(0.2)])
    assert tiny.run(config)["steps"] > 0
    assert tiny.run(replace(config, resume="run", run_dir=None))["steps"] > 0


def boom(*arguments):
    raise RuntimeError("boom")


@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_each_finished_epoch_leaves_one_line(kind):
    config = tiny.search_config() if kind == "search" else tiny.retrain_config(genotype="darts_v2", test_every=1)
    report = tiny.Report()
    {"search": search, "retrain": retrain}[kind](config, report=report)
    said = [line for line in report.lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in said] == [f"{epoch + 1}/{config.epochs}" for epoch in range(config.epochs)]
    other = "val" if kind == "search" else "test"
    for line in said:
        assert re.fullmatch(
            rf"epoch \d/\d  train \d+\.\d %(  val \d+\.\d %)?(  {other} \d+\.\d %)?(  margin [\d.e-]+)?"
            rf"  train loss \d+\.\d{{4}}(  val loss \d+\.\d{{4}})?(  {other} loss \d+\.\d{{4}})?", line
        ) and f"  {other} " in line  # fmt: skip
    log = Path("run/run.log").read_text("utf-8")
    assert all(line in log for line in said)
