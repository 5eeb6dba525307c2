"""What a search says of its architecture, against closed forms, and that it says it of each epoch."""

import math

import pytest
import tiny
import torch

from darts_lite.genotypes.genotype import Cell, Edge, from_plain, to_plain
from darts_lite.runs.diagnosis import derived, entropy, longest_path, relaxed, shares
from darts_lite.search import search
from darts_lite.spaces.table import Mixing, Table

EDGES = ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
OPERATIONS = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3")


def cell(rows, edges=None, dead=()):
    """The diagnosis of a mixing with these rows; `dead`: (row, column) of candidates that are out."""
    alive = torch.ones(5, 4, dtype=torch.bool)
    for place in dead:
        alive[place] = False
    weights = torch.tensor(rows, dtype=torch.float64)
    factors = None if edges is None else torch.tensor(edges, dtype=torch.float64)
    return relaxed(Table(EDGES, OPERATIONS, alive, edges is not None), Mixing(weights, factors))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([1.0, 0.0], 0.0), ([0.5, 0.5], 1.0), ([2.0, 2.0], 1.0), ([0.25] * 4, 1.0), ([0.5, 0.5, 0.0, 0.0], 0.5)],
)
def test_entropy_is_a_part_of_its_maximum(weights, expected):
    assert entropy(weights) == pytest.approx(expected) and math.copysign(1, entropy(weights)) == 1


def test_what_starts_equal_is_undecided():
    found = cell([[0.25] * 4] * 5)
    assert found == {
        **{"entropy": pytest.approx(1.0), "margin": 0.0, "edge_margin": 0.0},
        **{"argmax_skip": 0.0, "argmax_pool": 0.0, "argmax_none": 1.0},  # the first of equals
    }


def test_margins_leave_none_out_and_are_means():
    rows = [
        [0.7, 0.0, 0.1, 0.2],  # none is strongest; margin 0.1
        [0.0, 0.0, 1.0, 0.0],  # margin 1
        [0.0, 0.5, 0.3, 0.2],  # margin 0.2, strength 0.5
        [0.1, 0.1, 0.2, 0.6],  # margin 0.4, strength 0.6
        [0.0, 0.8, 0.1, 0.1],  # margin 0.7, strength 0.8
    ]
    found = cell(rows)
    assert found["margin"] == pytest.approx((0.1 + 1 + 0.2 + 0.4 + 0.7) / 5)
    assert found["edge_margin"] == pytest.approx(0.6 - 0.5), "node 2 has two edges, so node 3 alone counts"
    assert [found[f"argmax_{kind}"] for kind in ("skip", "pool", "none")] == [0.2, 0.4, 0.2]
    weighed = cell(rows, edges=[0.5, 0.5, 0.5, 0.25, 0.25])
    assert weighed["edge_margin"] == pytest.approx(0.8 * 0.25 - 0.6 * 0.25) and weighed["margin"] == found["margin"]


def test_dead_candidates_do_not_count():
    rows = [[0.5, 0.5, 0.0, 0.0]] * 4 + [[0.0, 0.0, 0.0, 1.0]]
    dead = [(row, column) for row in range(4) for column in (2, 3)] + [(4, column) for column in (0, 1, 2)]
    found = cell(rows, dead=dead)
    assert found["entropy"] == pytest.approx(1.0), "of two candidates; the fifth edge has only one"
    assert "margin" not in found, "no edge has two besides none"


def test_shares():
    assert shares(["skip_connect", "none", "avg_pool_3x3", "sep_conv_3x3"], "x") == dict.fromkeys(
        ("x_skip", "x_pool", "x_none"), 0.25
    )
    assert set(shares([], "x").values()) == {0.0}


@pytest.mark.parametrize(
    ("edges", "concat", "length"),
    [
        ([(0, 2), (1, 2), (0, 3), (1, 3)], (2, 3), 1),
        ([(0, 2), (1, 2), (2, 3), (1, 3), (3, 4), (0, 4)], (2, 3, 4), 3),
        ([(0, 2), (1, 2), (2, 3), (1, 3), (3, 4), (0, 4)], (2,), 1),
        ([(0, 2), (3, 4)], (2, 4), 1),  # node 3 has no edge, so nothing comes out of it
    ],
)
def test_the_longest_path(edges, concat, length):
    graph = Cell(tuple(Edge("skip_connect", *edge) for edge in edges), concat)
    assert longest_path(graph) == length and derived(graph)["longest_path"] == length
    assert longest_path(Cell(tuple(Edge("none", *edge) for edge in edges), concat)) == 0


def test_each_epoch_of_a_search_says_it_and_what_it_would_find(tiny_folder):
    result = search(tiny.search_config(), report=tiny.Report())
    lines = [line for line in tiny.read_lines("run/metrics.jsonl") if line["kind"] in ("start", "epoch")]
    assert [(line["kind"], line["epoch"]) for line in lines] == [("start", 0), ("epoch", 1), ("epoch", 2)]
    assert lines[-1]["genotype"] == result["genotype"] == to_plain(from_plain(result["genotype"]))
    names = ("entropy", "margin", "longest_path", "argmax_skip", "derived_pool")
    shown = {(tag, step): value for tag, step, value in tiny.events("run")}
    for line in lines:
        for name in (f"architecture/{name}/{kind}" for name in names for kind in ("normal", "reduce")):
            assert shown[name, line["step"]] == pytest.approx(line["values"][name])
    at_start = lines[0]["values"]
    assert 0.99 < at_start["architecture/entropy/normal"] <= 1 and at_start["architecture/margin/normal"] < 0.01
