"""NAS-Bench-201: all costs against the published table, the supernet against one-hot networks and a plain implementation edge by edge."""

import csv
import gzip
import random

import pytest
import tiny
import torch
import torch.nn.functional as F

from darts_lite.cli.run import run_verb
from darts_lite.drawing import cells as drawing
from darts_lite.errors import UserError
from darts_lite.genotypes.arch_string import parse_arch, to_arch
from darts_lite.genotypes.find import read
from darts_lite.models import create_network
from darts_lite.operations.layers import BatchNorm
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces import SPACES
from darts_lite.spaces.nasbench201_cells import runs
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.table import Mixing, drawn_pairs
from darts_lite.spaces.transfer import transfer

NONE, SKIP, ONE, THREE, POOL = OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
EMPTY = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def space(**settings):
    return SPACES["nasbench201"](SpaceConfig(name="nasbench201", **settings))


def one_hot(genotype):
    columns = [OPERATIONS.index(edge.operation) for edge in genotype.cells["cell"].edges]
    return {"cell": Mixing(F.one_hot(torch.tensor(columns), 5).double())}


def supernet(seed=0, skeleton=None):
    torch.manual_seed(seed)
    return space().supernet(skeleton or Skeleton(5, 8, 10, image_size=(9, 14)), space().tables()).double()


# The published table -----------------------------------------------------------------


def test_parameters_and_flops_of_all_cells_are_those_of_the_table(data_folder):
    """The table counts multiply-accumulates and the biases of the classifier as FLOPs."""
    skeleton = Skeleton(17, 16, 10)
    with gzip.open(data_folder / "nasbench201_cifar10.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    with torch.device("meta"):
        around = space().network(parse_arch(EMPTY), skeleton).costs()
    costs = space().costs(space().tables(), skeleton)["cell"]
    assert len(rows) == 15_625
    for row in rows:
        chosen = [pair.split("~")[0] for pair in row["arch"].replace("+", "").split("|") if pair]
        total = around
        for edge, name in enumerate(chosen):
            total += costs[edge][OPERATIONS.index(name)]
        assert (total.parameters, total.macs + 10) == (int(row["c10_params"]), int(row["c10_flops"])), row["arch"]


@pytest.mark.parametrize("seed", range(3))
def test_costs_are_those_of_the_network(seed):
    genotype, skeleton = space().random(random.Random(seed)), Skeleton(8, 8, 10, image_size=(13, 10))
    for form in ("final", "search"):
        network = space().network(genotype, skeleton, form=form)
        assert network.costs().parameters == sum(weight.numel() for weight in network.parameters())
        costs, total = (
            space().costs(space().tables(), skeleton, form)["cell"],
            space().network(parse_arch(EMPTY), skeleton, form=form).costs(),
        )
        for row, edge in zip(costs, genotype.cells["cell"].edges, strict=True):
            total += row[OPERATIONS.index(edge.operation)]
        assert total == network.costs()


# The supernet ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_one_hot_is_the_network(seed):
    net = supernet()
    genotype = space().random(random.Random(seed)) if seed else parse_arch(EMPTY)
    network = space().network(genotype, net.skeleton, form="search").double()
    network.load_state_dict(transfer(net, network, net.state_dict()))
    x = torch.randn(4, 3, 9, 14, dtype=torch.float64)
    for training in (True, False):
        expected = net.train(training)(x, one_hot(genotype))
        torch.testing.assert_close(network.train(training)(x), expected, rtol=0, atol=1e-12)


def test_no_running_statistics_in_a_search_and_all_of_them_after_it():
    norms = [module for module in supernet().modules() if isinstance(module, BatchNorm)]
    assert norms and all(norm.running_mean is None for norm in norms)
    inside = [m for cell in supernet().cells if hasattr(cell, "stages") for m in cell.modules()]
    assert all(norm.weight is None for norm in inside if isinstance(norm, BatchNorm))
    final = space().network(space().random(random.Random(0)), Skeleton(5, 8, 10))
    norms = [module for module in final.modules() if isinstance(module, BatchNorm)]
    assert norms and all(norm.running_mean is not None and norm.weight is not None for norm in norms)


def norm(x, weight=None, bias=None):
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    x = (x - mean) / (variance + 1e-5).sqrt()
    return x if weight is None else x * weight[:, None, None] + bias[:, None, None]


def edge_by_edge(net, weights, x, mixing):
    """The benchmark's network with mixed operations, one edge and one operation after the other; N=1."""

    def convolved(x, name, place, kernel, stride=1):
        first, number = place
        weight = weights[f"{name}.convolution.weight"]
        weight = weight[first * len(weight) // number : (first + 1) * len(weight) // number]
        return norm(F.conv2d(x.relu(), weight, None, stride, kernel // 2))

    def cell(x, prefix):
        states = [x]
        for node in (1, 2, 3):
            total = torch.zeros_like(x)
            for edge, (source, target) in enumerate(EDGES):
                if target != node:
                    continue
                state, place = states[source], (target - source - 1, 3 - source)
                ones = f"{prefix}.stages.{source}.operations."
                total = total + mixing[edge, 1] * state
                total = total + mixing[edge, 2] * convolved(state, ones + ONE, place, 1)
                total = total + mixing[edge, 3] * convolved(state, ones + THREE, place, 3)
                total = total + mixing[edge, 4] * F.avg_pool2d(state, 3, 1, 1, count_include_pad=False)
            states.append(total)
        return states[3]

    def block(x, prefix):
        y = x
        for part, stride in (("first", 2), ("second", 1)):
            y = F.conv2d(y.relu(), weights[f"{prefix}.{part}.1.weight"], None, stride, 1)
            y = norm(y, weights[f"{prefix}.{part}.2.weight"], weights[f"{prefix}.{part}.2.bias"])
        return y + F.conv2d(F.avg_pool2d(x, 2), weights[f"{prefix}.shortcut.1.weight"])

    x = norm(F.conv2d(x, weights["stem.0.weight"], None, 1, 1), weights["stem.1.weight"], weights["stem.1.bias"])
    x = block(cell(x, "cells.0"), "cells.1")
    x = block(cell(x, "cells.2"), "cells.3")
    x = norm(cell(x, "cells.4"), weights["norm.weight"], weights["norm.bias"]).relu().mean((2, 3))
    return F.linear(x, weights["classifier.weight"], weights["classifier.bias"])


def test_it_is_the_network_of_single_edges():
    """Logits, the gradient of the mixing, and that of every weight, in float64."""
    net = supernet(1, Skeleton(5, 8, 10, image_size=(8, 12)))
    weights = {name: weight.detach().requires_grad_() for name, weight in net.named_parameters()}
    x, labels = torch.randn(6, 3, 8, 12, dtype=torch.float64), torch.arange(6)
    found = []
    for forward in (
        lambda mixing: torch.func.functional_call(net, weights, (x, {"cell": Mixing(mixing)})),
        lambda mixing: edge_by_edge(net, weights, x, mixing),
    ):
        generator = torch.Generator().manual_seed(0)
        mixing = torch.randn(6, 5, dtype=torch.float64, generator=generator).softmax(1).requires_grad_()
        logits = forward(mixing)
        gradients = torch.autograd.grad(F.cross_entropy(logits, labels), [mixing, *weights.values()])
        found.append([logits, *gradients])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


def test_only_what_is_drawn_is_computed():
    net = supernet()
    x = torch.randn(4, 3, 9, 14, dtype=torch.float64)
    for seed in range(4):
        mixing = one_hot(space().random(random.Random(seed)))
        drawn = drawn_pairs(space().tables(), mixing)
        with torch.no_grad():
            torch.testing.assert_close(net(x, mixing, drawn=drawn), net(x, mixing), rtol=0, atol=1e-12)
    fan = net.cells[0].stages[0]
    assert fan.drawn_copies(THREE, frozenset({(0, THREE), (3, THREE), (1, ONE)})) == [0, 2]
    assert list(runs([0, 2])) == [(0, 1), (2, 1)] and list(runs([0, 1, 2])) == [(0, 3)] and not list(runs([]))
    some = {"cell": frozenset({(0, THREE), (3, THREE), (4, SKIP)})}
    net(x, {"cell": Mixing(torch.full((6, 5), 0.2, dtype=torch.float64))}, drawn=some)[:, 0].square().sum().backward()
    gradient = fan.operations[THREE].convolution.weight.grad.unflatten(0, (3, -1))
    assert gradient[[0, 2]].abs().sum() > 0 and not gradient[1].any()
    assert fan.operations[ONE].convolution.weight.grad is None


def test_edges_out_of_a_state_are_one_convolution(monkeypatch):
    seen = []
    forward = F.conv2d
    monkeypatch.setattr(
        F, "conv2d", lambda x, weight, *rest, **how: seen.append(weight) or forward(x, weight, *rest, **how)
    )
    net = supernet()
    seen.clear()
    cell = net.cells[0]
    cell(torch.randn(2, 8, 4, 4, dtype=torch.float64), one_hot(space().random(random.Random(0)))["cell"])
    assert [tuple(weight.shape) for weight in seen] == [
        (copies * 8, 8, kernel, kernel) for copies in (3, 2, 1) for kernel in (1, 3)
    ]


def test_a_cell_without_a_path_passes_nothing_on():
    network = create_network(EMPTY, cells=5, channels=8, classes=10)
    outputs = network(torch.randn(3, 3, 32, 32))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


def test_options_of_a_final_network():
    """Drop-path spares the identity, an auxiliary head reads the cell two thirds up, large images have a stem that makes an eighth."""
    text = "|skip_connect~0|+|skip_connect~0|none~1|+|none~0|none~1|skip_connect~2|"
    network = create_network(text, cells=5, channels=8, classes=10, auxiliary=True).eval()
    x, generator = torch.randn(2, 3, 32, 32), torch.Generator()
    logits, beside = network(x, auxiliary=True)
    assert beside.shape == (2, 10)
    assert torch.equal(network(x, drop_path=torch.tensor(0.9), generator=generator), logits)
    pool = create_network(text.replace(SKIP, POOL), cells=5, channels=8, classes=10).eval()
    assert not torch.equal(pool(x, drop_path=torch.tensor(0.9), generator=generator), pool(x))
    large = create_network(text, cells=5, channels=8, classes=10, stem="imagenet", image_size=(100, 96))
    assert large(torch.randn(2, 3, 100, 96)).shape == (2, 10)
    assert large.costs().parameters == sum(weight.numel() for weight in large.parameters())


# Genotypes and settings ----------------------------------------------------------------


def test_random_is_uniform_and_a_mutation_changes_one_edge():
    rng, counts = random.Random(0), dict.fromkeys(OPERATIONS, 0)
    for _ in range(500):
        one = space().random(rng)
        for edge in one.cells["cell"].edges:
            counts[edge.operation] += 1
        other = space().mutate(one, rng)
        pairs = zip(one.cells["cell"].edges, other.cells["cell"].edges, strict=True)
        assert sum(a != b for a, b in pairs) == 1
    assert all(abs(count - 600) < 110 for count in counts.values())  # five standard deviations of 21.9
    narrow = space(candidates=[SKIP, THREE], edge_candidates={"cell": [[THREE], *[[SKIP]] * 4, None]})
    assert len({to_arch(narrow.random(rng)) for _ in range(50)}) == 2
    with pytest.raises(ValueError, match="no other genotype"):
        space(candidates=[SKIP]).mutate(space(candidates=[SKIP]).random(rng), rng)


def test_pictures_leave_none_out():
    cell = parse_arch(EMPTY).cells["cell"]
    assert "<svg" in space().picture(cell, "cell") and ">none<" not in space().picture(cell, "cell")
    assert space().picture(cell, "cell", drawing.raster).size[0] > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"nodes": 5}, "space.nodes: a cell of nasbench201 has 3 nodes, got 5"),
        ({"candidates": ["sep_conv_3x3"]}, "space.candidates: unknown name, got 'sep_conv_3x3'"),
        ({"candidates": []}, "space.candidates: must name at least one operation"),
        ({"edge_candidates": {"normal": []}}, "space.edge_candidates: unknown name, got 'normal'"),
        ({"edge_candidates": {"cell": [None]}}, "space.edge_candidates.cell: a cell has 6 edges"),
        ({"edge_candidates": {"cell": [["max_pool_3x3"], *[None] * 5]}}, "space.edge_candidates.cell.0: unknown name"),
    ],
)
def test_what_is_refused(settings, said):
    with pytest.raises(UserError) as caught:
        space(**settings)
    assert str(caught.value).startswith(said)


def test_partial_channels_are_refused():
    with pytest.raises(UserError, match="operations see all channels here"):
        space().supernet(Skeleton(5, 8, 10), space().tables(), partial=4)


# Runs --------------------------------------------------------------------------------


def config(**changes):
    nasbench201 = SpaceConfig(name="nasbench201")
    return tiny.search_config(space=nasbench201, selection="argmax", channels=8, alpha_init_std=1.0, **changes)


@pytest.mark.usefixtures("tiny_folder")
def test_it_is_searched_and_retrained():
    tiny.run(config(solver="unrolled_exact"))
    genotype = read("run/genotype.json")
    assert genotype.space == "nasbench201"
    result = tiny.run(tiny.retrain_config(genotype="run", run_dir="retrained", channels=8, init="supernet", cells=3))
    assert (
        result["parameters"]
        == create_network(genotype, cells=3, channels=8, classes=3, input_channels=1, image_size=(8, 8))
        .costs()
        .parameters
    )
    assert tiny.run(tiny.retrain_config(genotype=EMPTY, run_dir="empty", channels=8))["macs"] > 0


@pytest.mark.usefixtures("tiny_folder")
def test_the_rule_of_darts_is_refused_with_the_reason(capsys):
    words = ["dataset=npz", "dataset.path=data.npz", "space=nasbench201"]
    assert run_verb("search", [*words, "selection=darts"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        "darts_lite: error: selection: keeps two edges of a node, and a cell of nasbench201 has all of them, got 'darts'; "
        "fix: give selection=argmax"
    )


def test_the_command_line_takes_an_arch_string(composed):
    made = composed("search", ["space=nasbench201"])
    assert made.selection.name == "argmax" and made.space.nodes == 3 and made.space.candidates == list(OPERATIONS)
    recipe = composed("retrain", ["recipe=nasbench201"])
    assert (recipe.cells, recipe.channels, recipe.epochs, recipe.batch_size, recipe.lr) == (17, 16, 200, 256, 0.1)
    assert (recipe.lr_min, recipe.nesterov, recipe.momentum, recipe.weight_decay) == (0.0, True, 0.9, 5e-4)
