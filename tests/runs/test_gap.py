"""The discretization gap: the projected mixing is that of the derived cell, and measuring it changes nothing."""

import copy
from random import Random

import pytest
import tiny
import torch

from darts_lite.genotypes.genotype import Cell, Edge
from darts_lite.runs.gap import discretization_gap, projected
from darts_lite.search import search
from darts_lite.spaces.table import Table

EDGES = ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
OPERATIONS = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3")
PICKED = [("sep_conv_3x3", 0, 2), ("skip_connect", 1, 2), ("max_pool_3x3", 0, 3), ("none", 2, 3)]


def table(alive=None, weighs_edges=False):
    return Table(EDGES, OPERATIONS, torch.ones(5, 4, dtype=torch.bool) if alive is None else alive, weighs_edges)


def cells(edges=PICKED):
    return {"cell": Cell(tuple(Edge(*edge) for edge in edges), (2, 3))}


def test_the_projected_mixing_is_one_where_an_operation_was_picked():
    found = projected({"cell": table()}, cells())["cell"]
    expected = torch.zeros(5, 4)
    for row, column in ((0, 3), (1, 2), (2, 1), (4, 0)):
        expected[row, column] = 1
    assert torch.equal(found.operations, expected) and found.edges is None
    assert torch.equal(projected({"cell": table(weighs_edges=True)}, cells())["cell"].edges, torch.ones(5))


def test_what_is_no_candidate_is_not_projected():
    alive = torch.ones(5, 4, dtype=torch.bool)
    alive[0, 3] = False
    assert projected({"cell": table(alive)}, cells()) is None
    assert projected({"cell": table()}, cells([("dil_conv_3x3", 0, 2)])) is None
    assert projected({"cell": table()}, cells([("skip_connect", 0, 5)])) is None


@pytest.fixture
def state(tiny_folder):
    state, feeds, step = tiny.training(tiny.search_config())
    for number in range(3):
        for feed in feeds:
            feed.load(number)
        step(state)
        state.clock.tick()
    state.validation = feeds[1].part
    return state


def decided_as(state, cells):
    """Set the logits so that the mixture is the derived cell, to one part in e^40."""
    mixing = projected(state.architecture.tables, cells)
    with torch.no_grad():
        for name, logits in state.architecture.operations.items():
            rows = mixing[name].operations
            rows = torch.where(rows.sum(1, keepdim=True) > 0, rows, torch.tensor([1.0, 0, 0, 0]))  # `none`
            logits.copy_(40 * rows)


def test_without_a_difference_there_is_no_gap_and_with_one_there_is(state):
    space = tiny.build_space(tiny.SPACE)
    derived = space.random(Random(3)).cells
    loose = discretization_gap(state, derived)
    decided_as(state, derived)
    tight = discretization_gap(state, derived)
    assert tight["mixture"] == tight["derived"] == loose["derived"] and tight["images"] == 32
    assert loose["mixture"] != loose["derived"]


def test_measuring_changes_nothing(state):
    derived = tiny.build_space(tiny.SPACE).random(Random(3)).cells
    before = copy.deepcopy(state.state_dict())
    generator = state.clock.generator.get_state()
    assert discretization_gap(state, derived) == discretization_gap(state, derived)
    assert torch.equal(generator, state.clock.generator.get_state())
    after = state.state_dict()
    for one, other in zip(tensors(before), tensors(after), strict=True):
        assert torch.equal(one, other)
    assert state.supernet.training


def test_a_search_reports_it(tiny_folder):
    report = tiny.Report()
    result = search(tiny.search_config(), report=report)
    final = tiny.read_lines("run/metrics.jsonl")[-1]["values"]
    assert result["gap"] == {name: final[f"architecture/gap_{name}"] for name in ("mixture", "derived", "images")}
    assert any(line.startswith("supernet with batch statistics: ") for line in report.lines)
    assert 0 <= result["gap"]["derived"] <= 1 and result["gap"]["images"] == 32  # whole batches of 48


def tensors(value):
    """All tensors in nested containers."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
