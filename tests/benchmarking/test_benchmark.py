"""The benchmark: every mode on a small size; figures that belong together; a gate that closes."""

import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import Report

from darts_lite.benchmark import BenchmarkConfig, benchmark
from darts_lite.benchmarking import gate, modes
from darts_lite.benchmarking.arms import one_candidate_an_edge, ours_search
from darts_lite.benchmarking.measure import Hired, machine, measured, take_turns
from darts_lite.benchmarking.reference import ReferenceSupernet
from darts_lite.genotypes.text import published, published_table
from darts_lite.models import create_network
from darts_lite.retrain import RetrainConfig
from darts_lite.search import SearchConfig
from darts_lite.settings.configs import MODES, SpaceConfig
from darts_lite.spaces.darts import DartsSpace, types
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.table import Mixing


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Small steps in this process, since one of its own takes seconds to begin."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(modes, "Hired", lambda make, *arguments: nullcontext(make(*arguments)))
    monkeypatch.setattr(modes, "GROWTH", {"channels": (4, 8), "operations": (2, 4)})
    size = {
        "cells": 2,
        "channels": 4,
        "batch_size": 4,
        "turns": 2,
        "steps": 2,
        "warm_up": 0,
        "gate_steps": 8,
        "device": "cpu",
    }
    return lambda mode: benchmark(BenchmarkConfig(mode=mode, run_dir="run", **size), report=Report())


def test_every_mode_is_there():
    assert set(MODES) == set(modes.MODES)


@pytest.mark.parametrize("mode", ["search", "search_second_order", "retrain", "data"])
def test_arms(mode, measure):
    result = measure(mode)
    assert json.loads(Path("run/result.json").read_text()) == result
    *others, ours = result["arms"].values()
    assert list(result["arms"])[-1] == "darts_lite" and len(others) == len(result["ratios"])
    for name, arm in result["arms"].items():
        low, high = arm["spread"]
        assert 0 < low <= arm["seconds"]["step"] <= high
        assert arm["images_per_second"] == pytest.approx(4 / arm["seconds"]["step"])
        if name in result["ratios"]:
            assert result["ratios"][name] == pytest.approx(arm["seconds"]["step"] / ours["seconds"]["step"])
    if mode != "data":
        assert 0 < result["floor_seconds"] < ours["seconds"]["step"]
        assert ours["times_the_floor"] == pytest.approx(ours["seconds"]["step"] / result["floor_seconds"])
        assert all(arm["operator_calls"] > ours["operator_calls"] for arm in others)  # stacked, hence fewer


def test_the_floor_of_a_step():
    """The published sizes on an H100: memory takes longer than arithmetic. On two cores it is the other way round."""
    found = []

    def compare(request, reference, ours, settings, least, epoch):
        found.append(least)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modes, "_compare", compare)
        retrain = RetrainConfig(cells=20, channels=36)
        request = modes.Request(BenchmarkConfig(), SearchConfig(cells=8, channels=16), retrain, None, "bf16", None)
        for mode in ("search", "search_second_order", "retrain"):
            modes.MODES[mode](request)
    h100 = {"copy_bytes_per_second": 3e12, "flops_per_second": 790e12}
    cores = {"copy_bytes_per_second": 50e9, "flops_per_second": 100e9}
    step = found[0].seconds(64, "bf16", h100)
    assert step == pytest.approx(found[0].numbers * 64 * 2 / 3e12) and 0.002 < step < 0.0033
    assert found[0].seconds(64, "fp32", h100) == 2 * step
    assert found[1].seconds(64, "bf16", h100) == 2.5 * step, "five passes"
    assert 0.0015 < found[2].seconds(96, "bf16", h100) < 0.0036
    assert found[0].seconds(64, "fp32", cores) == 2 * found[0].macs * 64 / 100e9


def test_numbers_that_batchnorm_reads():
    """Of a cell of one node with two edges, each a skip, a pool and a convolution, counted by hand."""
    space = DartsSpace(SpaceConfig(nodes=1, candidates=["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"]))
    network = space.supernet(Skeleton(1, 4, 10, reductions=()), space.tables()).to("meta")
    mixing = {cell: Mixing(torch.zeros(table.alive.shape, device="meta")) for cell, table in space.tables().items()}
    stem, inputs, pools, convolutions = 12, 2 * 4, 2 * 4, 2 * 2 * 4  # channels; the skip has none
    assert modes.normalized(network, mixing) == (stem + inputs + pools + convolutions) * 32 * 32


def test_a_matrix_product_in_the_precision_of_the_run(monkeypatch):
    seen = []
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, out: seen.append(a.dtype) or multiply(a[:9, :9], b[:9, :9]))
    for precision in ("fp32", "bf16"):
        assert all(rate > 0 for rate in machine(torch.device("cpu"), precision).values())
    assert seen == 5 * [torch.float32] + 5 * [torch.bfloat16]


def test_an_arm_in_a_process_of_its_own():
    config = SearchConfig(cells=2, channels=4, batch_size=4)
    with Hired(ours_search, config, "cpu", "fp32") as arm:
        times = measured(arm, steps=2, warm_up=1)
        facts = arm.facts()
    assert times.name == "darts_lite" and [len(seconds) for seconds in times.seconds.values()] == [2, 2]
    assert facts["peak_memory_bytes"] > 2**20 and facts["operator_calls"] > 100 and facts["kernel_launches"] is None


def test_turns_are_taken_and_added_up():
    events, shown = [], []

    class Fake:
        def __init__(self, name):
            self.name = name
            events.append(f"{name} begins")

        def step(self):
            events.append(self.name)
            return {"work": float(len(events))}

        def facts(self):
            return {"known": self.name}

        def __enter__(self):
            return self

        def __exit__(self, *error):
            events.append(f"{self.name} ends")

    hire = [partial(Fake, "a"), partial(Fake, "b")]
    found = take_turns(hire, turns=2, steps=2, warm_up=1, progress=lambda *numbers: shown.append(numbers))
    turn = [[f"{name} begins", name, name, name, f"{name} ends"] for name in "ab"]
    assert events == [*turn[0], *turn[1]] * 2, "one after the other, and never two at once"
    (first, facts), (second, _) = found
    assert (first.name, facts, second.name) == ("a", {"known": "a"}, "b")
    assert first.cold == 2 and first.seconds == {"work": [3, 4, 13, 14]} and second.seconds == {"work": [8, 9, 18, 19]}
    assert shown == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_arm_that_fails_says_why():
    with pytest.raises(AttributeError, match="cells"), Hired(ours_search, None, "cpu", "fp32"):
        pass


def test_growth(measure):
    found = measure("growth")["growth"]
    assert found["channels"]["values"] == [4, 8] and len(found["operations"]["seconds"]) == 2


def test_the_gate_opens_for_the_same_network(measure):
    found = measure("gate")["gate"]
    assert found["largest_difference"] < 1e-9 and found["same_genotype"]
    assert len(found["reference_losses"]) == 4


def test_the_gate_closes_for_another_network(measure, monkeypatch):
    original = gate._ours

    def wrong(*arguments):
        network = original(*arguments)
        for stage in network.cells[0].stages:
            stage.order.copy_(stage.order.roll(1))  # mixing weights at the wrong operations
        return network

    monkeypatch.setattr(gate, "_ours", wrong)
    found = measure("gate")["gate"]
    assert found["largest_difference"] > 1e-6 and not found["passed"]


@pytest.mark.parametrize("name", published_table())
def test_the_final_reference_has_the_parameters_of_the_published_network(name):
    genotype = published(name)
    reference = ReferenceSupernet(4, 3, 4, 10, alive=one_candidate_an_edge(genotype), final=True)
    ours = create_network(genotype, cells=3, channels=4, classes=10)
    first, second = (sum(parameter.numel() for parameter in net.parameters()) for net in (reference, ours))
    assert first == second


def test_the_final_reference_is_the_final_network():
    genotype = published("darts_v2")
    ours = create_network(genotype, cells=3, channels=4, classes=10).double().eval()
    reference = ReferenceSupernet(4, 3, 4, 10, alive=one_candidate_an_edge(genotype), final=True).double().eval()
    apart, pairs = {}, {}
    for kind, cell in genotype.cells.items():
        rows = [(s, t) for t in range(2, 6) for s in range(t)]
        pairs[kind] = [rows.index((edge.source, edge.target)) for edge in cell.edges]
    for name, tensor in gate.taken_apart(ours, ours.state_dict()).items():
        head, number, middle, edge, *tail = [*name.split("."), "", "", "", ""]
        if head == "cells" and middle == "edges":
            kind = types(ours.skeleton)[int(number)]
            name = ".".join([head, number, middle, str(pairs[kind][int(edge)]), *filter(None, tail)])
        apart[name] = tensor
    missing = reference.load_state_dict(apart, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys) and not missing.unexpected_keys
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(images), reference(images), rtol=0, atol=1e-12)
