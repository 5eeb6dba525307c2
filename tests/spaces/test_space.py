"""The DARTS space: what it refuses, the tables it makes, reduced spaces with candidates of their own on every edge."""

import random
from pathlib import Path

import pytest
import torch
from tiny import network

import darts_lite
from darts_lite.benchmarking.reference import CANDIDATES
from darts_lite.errors import UserError
from darts_lite.methods.relaxations.softmax import Softmax
from darts_lite.methods.selections import SELECTIONS
from darts_lite.methods.views import SelectionView
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces import SPACES
from darts_lite.spaces.darts import DartsSpace, types
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.table import Mixing

SKIP, MAX, AVG = "skip_connect", "max_pool_3x3", "avg_pool_3x3"
SEP3, DIL3, DIL5 = "sep_conv_3x3", "dil_conv_3x3", "dil_conv_5x5"

# The space S1 of Zela et al. 2020 (RobustDARTS): two candidates an edge, in which plain DARTS collapses.
S1 = {
    "normal": [
        [SKIP, DIL3],
        [SKIP, DIL5],
        [SKIP, DIL5],
        [SKIP, SEP3],
        [SKIP, DIL3],
        [MAX, SKIP],
        [SKIP, SEP3],
        [SKIP, SEP3],
        [SKIP, DIL3],
        [SKIP, SEP3],
        [MAX, SKIP],
        [SKIP, DIL3],
        [DIL3, DIL5],
        [DIL3, DIL5],
    ],
    "reduce": [
        [MAX, AVG],
        [MAX, DIL3],
        [MAX, AVG],
        [MAX, AVG],
        [SKIP, DIL5],
        [MAX, AVG],
        [MAX, SEP3],
        [SKIP, DIL3],
        [SKIP, DIL5],
        [MAX, AVG],
        [MAX, AVG],
        [SKIP, DIL5],
        [SKIP, DIL5],
        [SKIP, DIL5],
    ],
}


def space(**settings):
    return DartsSpace(SpaceConfig(**settings))


def problems(**settings):
    """key -> the line, of everything that is wrong."""
    with pytest.raises(UserError) as caught:
        space(**settings)
    assert caught.value.code == 2
    lines = [str(problem) for problem in caught.value.problems]
    assert all(len(line) <= 380 and "\n" not in line and "; fix: " in line for line in lines)
    return {str(problem.key): line for problem, line in zip(caught.value.problems, lines, strict=True)}


# What is refused -------------------------------------------------------------------


def test_an_unknown_operation_is_named_with_the_nearest():
    (line,) = problems(candidates=["none", "sep_conv_3x"]).values()
    assert "'sep_conv_3x'" in line and "did you mean 'sep_conv_3x3'?" in line


def test_an_operation_named_twice():
    (line,) = problems(candidates=[SKIP, SEP3, SKIP]).values()
    assert "twice" in line


@pytest.mark.parametrize("candidates", [[], ["none"]])
def test_nothing_to_choose_from(candidates):
    found = problems(candidates=candidates)
    assert list(found) == ["space.candidates"] and "no operation is left" in found["space.candidates"]


def test_an_unknown_cell_type():
    found = problems(edge_candidates={"reduction": [None] * 14})
    assert "did you mean 'reduce'?" in found["space.edge_candidates"]


@pytest.mark.parametrize("rows", [[None] * 13, [None] * 15, [], "skip_connect", None, 3])
def test_a_list_for_every_edge(rows):
    found = problems(edge_candidates={"normal": rows})
    assert list(found) == ["space.edge_candidates.normal"]
    assert (
        "14 edges" in found["space.edge_candidates.normal"]
        and "(0->2), (1->2)" in found["space.edge_candidates.normal"]
    )


@pytest.mark.parametrize("row", [SKIP, 3, {SKIP: 1}, True])
def test_the_candidates_of_an_edge_are_a_list(row):
    found = problems(nodes=1, edge_candidates={"normal": [None, row]})
    assert list(found) == ["space.edge_candidates.normal.1"]
    assert "list of names" in found["space.edge_candidates.normal.1"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([SKIP, "identity"], "unknown name, got 'identity'"),
        ([MAX], f"unknown name, got '{MAX}'"),  # is known, but no candidate of this space
        ([[SKIP]], "unknown name"),
        ([SKIP, SKIP], "twice"),
        ([], "no operation is left"),
    ],
)
def test_the_candidates_of_an_edge_are_candidates_of_the_space(row, reason):
    found = problems(nodes=1, candidates=["none", SKIP, SEP3], edge_candidates={"reduce": [row, None]})
    assert list(found) == ["space.edge_candidates.reduce.0"]
    assert reason in found["space.edge_candidates.reduce.0"]


def test_every_problem_is_listed():
    found = problems(
        nodes=1,
        candidates=["none", SKIP, SKIP],
        edge_candidates={"normal": [["sep"], [SKIP, SKIP]], "reduce": [None], "both": []},
    )
    assert set(found) == {
        "space.candidates",
        "space.edge_candidates",
        "space.edge_candidates.normal.0",
        "space.edge_candidates.normal.1",
        "space.edge_candidates.reduce",
    }


# Tables ----------------------------------------------------------------------------


def test_edges_come_node_by_node():
    assert space().edges == (
        *((source, 2) for source in range(2)),
        *((source, 3) for source in range(3)),
        *((source, 4) for source in range(4)),
        *((source, 5) for source in range(5)),
    )


@pytest.mark.parametrize("nodes", [1, 2, 5, 16])
def test_tables(nodes):
    made = space(nodes=nodes).tables()
    assert tuple(made) == ("normal", "reduce")
    for table in made.values():
        assert len(table.edges) == nodes * (nodes + 3) // 2
        assert table.operations == CANDIDATES
        assert table.alive.all() and table.alive.dtype == torch.bool
        assert not table.weighs_edges
    assert all(table.weighs_edges for table in space(nodes=nodes).tables(weighs_edges=True).values())


def test_the_order_of_the_candidates_is_the_configured_one():
    assert space(candidates=[SEP3, "none", SKIP]).tables()["normal"].operations == (SEP3, "none", SKIP)


def test_candidates_of_every_edge():
    made = space(edge_candidates=S1).tables()
    for cell, rows in S1.items():
        found = [set() for _ in rows]
        for row, name in made[cell].live():
            found[row].add(name)
        assert found == [set(row) for row in rows]


def test_tuples_are_lists():
    made = space(nodes=1, candidates=("none", SKIP), edge_candidates={"normal": ((SKIP,), None)}).tables()
    assert made["normal"].alive.tolist() == [[False, True], [True, True]]


def test_null_stands_for_all_candidates():
    made = space(nodes=1, candidates=["none", SKIP, SEP3], edge_candidates={"normal": [None, [SEP3]]}).tables()
    assert made["normal"].alive.tolist() == [[True, True, True], [False, False, True]]
    assert made["reduce"].alive.all()


def test_a_later_phase_brings_its_own_masks():
    alive = {cell: torch.eye(2, 8, dtype=torch.bool) for cell in ("normal", "reduce")}
    made = space(nodes=1, edge_candidates={"normal": [[SKIP], [SKIP]]}).tables(alive=alive, weighs_edges=True)
    assert all(torch.equal(made[cell].alive, alive[cell]) and made[cell].weighs_edges for cell in alive)


# Reduced spaces --------------------------------------------------------------------


def test_a_reduced_space_is_searched_from_end_to_end():
    """The supernet holds the candidates alone, the selection picks among them, the network can be built."""
    reduced, skeleton = space(edge_candidates=S1), Skeleton(3, 4, 5, image_size=(8, 8))
    tables = reduced.tables()
    supernet = reduced.supernet(skeleton, tables)
    held = {
        (c, operation, source, target)
        for *_, keys in supernet.stacks()
        for c, (operation, source, target) in keys
        if target is not None
    }
    kinds, edges = types(skeleton), reduced.edges
    assert held == {
        (c, name, *edges[row])
        for c, kind in enumerate(kinds)
        for row, names in enumerate(S1[kind])
        for name in names
        if name not in (MAX, AVG) and not (name == SKIP and (kind == "normal" or edges[row][0] > 1))
    }
    logits = torch.randn(14, 8, generator=torch.Generator().manual_seed(0))
    mixing = {cell: Mixing(Softmax().expected(logits, table, torch.zeros(()))) for cell, table in tables.items()}
    genotype = SELECTIONS["darts"](SelectionView("darts", tables, mixing, {}))
    for cell, rows in S1.items():
        for edge in genotype.cells[cell].edges:
            assert edge.operation in rows[edges.index((edge.source, edge.target))]
    images = torch.randn(2, 3, 8, 8)
    assert supernet(images, mixing).shape == network(genotype, skeleton)(images).shape == (2, 5)


@pytest.mark.parametrize("name", CANDIDATES[1:])
def test_a_space_of_one_operation(name):
    """Nothing to decide, but nothing breaks: every edge has it with weight one."""
    single, skeleton = space(candidates=[name], nodes=2), Skeleton(3, 4, 5)
    tables = single.tables()
    mixing = {
        cell: Mixing(Softmax().expected(torch.zeros(5, 1), table, torch.zeros(()))) for cell, table in tables.items()
    }
    assert mixing["normal"].operations.eq(1).all()
    genotype = SELECTIONS["darts"](SelectionView("darts", tables, mixing, {}))
    assert {edge.operation for cell in genotype.cells.values() for edge in cell.edges} == {name}
    images = torch.randn(2, 3, 8, 8)
    assert single.supernet(skeleton, tables)(images, mixing).isfinite().all()
    assert network(genotype, skeleton)(images).isfinite().all()


# Random genotypes and mutations ------------------------------------------------------


def differences(one, other):
    """(cell, edges of `one` alone, edges of `other` alone) of each cell that differs."""
    return [
        (
            cell,
            set(one.cells[cell].edges) - set(other.cells[cell].edges),
            set(other.cells[cell].edges) - set(one.cells[cell].edges),
        )
        for cell in one.cells
        if one.cells[cell] != other.cells[cell]
    ]


def test_a_mutation_is_one_change_and_every_change_occurs():
    small = space(nodes=2, candidates=["none", SKIP, SEP3])
    genotype = small.random(random.Random(0))
    found = {}
    for seed in range(1500):
        mutated = small.mutate(genotype, random.Random(seed))
        ((_, (before,), (after,)),) = differences(genotype, mutated)
        assert before.target == after.target
        assert (before.source == after.source) != (before.operation == after.operation)
        assert all(
            len({edge.source for edge in one.into(node)}) == 2 for one in mutated.cells.values() for node in (2, 3)
        )
        found[mutated] = found.get(mutated, 0) + 1
    # Four edges a cell with another operation each, and node 3 with one more state to come from, for each of its two edges.
    assert len(found) == 2 * (4 + 2) and min(found.values()) > 80
    assert small.mutate(genotype, random.Random(5)) == small.mutate(genotype, random.Random(5))


def test_random_genotypes_and_mutations_keep_to_the_candidates_of_every_edge():
    reduced = space(edge_candidates=S1)
    edges = reduced.edges
    for seed in range(30):
        genotype = reduced.random(random.Random(seed))
        for one in (genotype, reduced.mutate(genotype, random.Random(seed))):
            for cell, rows in S1.items():
                assert all(
                    edge.operation in rows[edges.index((edge.source, edge.target))] for edge in one.cells[cell].edges
                )
    narrow = space(nodes=1, candidates=["none", SKIP], edge_candidates={"normal": [["none"], [SKIP]]})
    (edge,) = narrow.random(random.Random(0)).cells["normal"].edges
    assert (edge.operation, edge.source) == (SKIP, 1)
    with pytest.raises(ValueError, match="no other genotype"):
        narrow.mutate(narrow.random(random.Random(0)), random.Random(0))


def test_nobody_knows_the_file_of_a_space():
    package = Path(darts_lite.__file__).parent
    found = [path for path in package.rglob("*.py") if "darts_lite.spaces.darts" in path.read_text(encoding="utf-8")]
    assert found == [package / "spaces" / "__init__.py"]


# Every space -----------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_a_space_makes_tables_that_its_supernet_can_be_mixed_by(name):
    made = SPACES[name](SpaceConfig(name=name))
    tables = made.tables()
    supernet = made.supernet(Skeleton(2, 4, 5, input_channels=1), tables)
    mixing = {cell: Mixing(table.alive / table.alive.sum(1, keepdim=True)) for cell, table in tables.items()}
    assert supernet(torch.randn(2, 1, 9, 7), mixing).shape == (2, 5)
