"""The DARTS rule against its definition, on logits that a real search could have; one contract for every selection."""

import itertools
import math
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings

from darts_lite.benchmarking.reference import CANDIDATES
from darts_lite.genotypes.genotype import Edge
from darts_lite.methods.build import searched_with
from darts_lite.methods.relaxations.softmax import Softmax
from darts_lite.methods.selections import SELECTIONS
from darts_lite.methods.selections.candidates import Finished, Origin
from darts_lite.methods.selections.darts import darts
from darts_lite.methods.selections.hooks import Competing, rule_of
from darts_lite.methods.views import OperationCosts, SelectionView
from darts_lite.operations import NONE
from darts_lite.settings.configs import SearchConfig, SpaceConfig
from darts_lite.spaces import SPACES
from darts_lite.spaces.darts import DartsSpace
from darts_lite.spaces.table import Mixing, Table

HALF = torch.tensor(0.5)


def selected(tables, mixing, name="darts"):
    """The genotype that a selection makes of an architecture whose operations cost nothing."""
    nothing = {cell: OperationCosts(*torch.zeros(2, *table.alive.shape)) for cell, table in tables.items()}
    first = next(iter(tables.values()))
    nodes = len({target for _, target in first.edges})
    space = DartsSpace(SpaceConfig(nodes=nodes, candidates=list(first.operations)))
    rule = SELECTIONS[name]() if isinstance(SELECTIONS[name], type) else SELECTIONS[name]
    return rule(SelectionView("darts", tables, mixing, nothing, space), lambda mixing, images=None: (0.0, 0.0))


@dataclass(frozen=True)
class Drawn:
    """Logits of one cell type: distinct multiples of 1/64 in +-8, exact in float32 with any shift of a row."""

    nodes: int
    rows: list
    columns: tuple[str, ...] = CANDIDATES

    @property
    def edges(self):
        return tuple((source, target) for target in range(2, 2 + self.nodes) for source in range(target))

    def select(self, *, shifts=None, order=None, alive=None, factors=None):
        """The normal cell that is selected after a shift of every row and with the columns in another order."""
        order = list(range(len(self.columns))) if order is None else order
        logits = torch.tensor(self.rows)[:, order]
        if shifts is not None:
            logits = logits + torch.tensor(shifts, dtype=torch.float32)[:, None]
        mask = torch.ones(logits.shape, dtype=torch.bool) if alive is None else torch.tensor(alive)[:, order]
        table = Table(self.edges, tuple(self.columns[i] for i in order), mask)
        mixing = Mixing(Softmax().expected(logits, table, HALF), factors)
        genotype = selected({"normal": table, "reduce": table}, {"normal": mixing, "reduce": mixing})
        assert genotype.cells["normal"] == genotype.cells["reduce"]
        return genotype.cells["normal"]

    def strengths(self):
        """Of each edge, in double precision: the share of its best operation apart from `none`."""
        found = []
        for row in self.rows:
            total = math.fsum(math.exp(value) for value in row)
            found.append(max(math.exp(v) for v, name in zip(row, self.columns, strict=True) if name != NONE) / total)
        return found

    def best(self, row):
        """Its best operation apart from `none`."""
        return max((v, name) for v, name in zip(self.rows[row], self.columns, strict=True) if name != NONE)[1]


@st.composite
def drawn(draw, most_nodes=4):
    nodes = draw(st.integers(1, most_nodes))
    count = sum(range(2, 2 + nodes))
    grid = draw(st.lists(st.integers(-512, 512), min_size=8 * count, max_size=8 * count, unique=True))
    return Drawn(nodes, [[value / 64 for value in grid[8 * i : 8 * i + 8]] for i in range(count)])


def far_apart(one):
    """No two edges into one node that differ by less than rounding does: their order would be chance."""
    for node in range(2, 2 + one.nodes):
        rows = sorted(s for s, (_, target) in zip(one.strengths(), one.edges, strict=True) if target == node)
        if any(b - a < 1e-5 * b for a, b in itertools.pairwise(rows)):
            return False
    return True


quickly = settings(max_examples=60, deadline=None)


@quickly
@given(drawn())
def test_two_distinct_earlier_edges_a_node_and_never_none(one):
    cell = one.select()
    assert cell.concat == tuple(range(2, 2 + one.nodes))
    for node in cell.concat:
        edges = cell.into(node)
        assert len({edge.source for edge in edges}) == len(edges) == 2
        assert all(0 <= edge.source < node and edge.operation != NONE for edge in edges)
    assert len(cell.edges) == 2 * one.nodes


@quickly
@given(drawn())
def test_the_definition(one):
    """The two strongest edges of every node, each with its strongest operation."""
    assume(far_apart(one))
    expected, strengths = [], one.strengths()
    for node in range(2, 2 + one.nodes):
        rows = [row for row, (_, target) in enumerate(one.edges) if target == node]
        chosen = sorted(sorted(rows, key=lambda row: -strengths[row])[:2])
        expected += [Edge(one.best(row), one.edges[row][0], node) for row in chosen]
    assert one.select().edges == tuple(expected)


@quickly
@given(drawn(), st.data())
def test_a_shift_of_a_row_changes_nothing(one, data):
    count = len(one.rows)
    shifts = data.draw(st.lists(st.integers(-100, 100), min_size=count, max_size=count))
    assert one.select(shifts=shifts) == one.select()


@quickly
@given(drawn(), st.permutations(range(8)))
def test_the_order_of_the_operations_does_not_matter(one, order):
    assume(far_apart(one))
    assert one.select(order=order) == one.select()


@quickly
@given(drawn(most_nodes=3), st.data())
def test_dead_candidates_are_never_chosen(one, data):
    """And their logits have no share in the softmax: the same choice as in a table without them."""
    alive = [data.draw(st.lists(st.booleans(), min_size=8, max_size=8).filter(any)) for _ in one.rows]
    assume(any(any(row[1:]) for row in alive))  # a space refuses a cell without an edge
    cell = one.select(alive=alive)
    for edge in cell.edges:
        row = one.edges.index((edge.source, edge.target))
        assert alive[row][one.columns.index(edge.operation)]
        assert (
            edge.operation
            == max(
                (v, name)
                for v, name, lives in zip(one.rows[row], one.columns, alive[row], strict=True)
                if lives and name != NONE
            )[1]
        )
    for node in cell.concat:
        possible = [row for row, (_, target) in enumerate(one.edges) if target == node and any(alive[row][1:])]
        assert len(cell.into(node)) == min(2, len(possible))


@quickly
@given(drawn(), st.data())
def test_edge_weights_count(one, data):
    """A factor so large that it decides makes its two edges the strongest of every node."""
    sources = [
        data.draw(st.lists(st.integers(0, node - 1), min_size=2, max_size=2, unique=True))
        for node in range(2, 2 + one.nodes)
    ]
    factors = torch.tensor([1.0 if source in sources[target - 2] else 1e-9 for source, target in one.edges])
    cell = one.select(factors=factors)
    assert [[edge.source for edge in cell.into(node)] for node in cell.concat] == [sorted(pair) for pair in sources]
    assert all(edge.operation == one.best(one.edges.index((edge.source, edge.target))) for edge in cell.edges)


# Cases by hand ---------------------------------------------------------------------


def tables(nodes=2, columns=("none", "skip_connect", "sep_conv_3x3"), **settings):
    return DartsSpace(SpaceConfig(nodes=nodes, candidates=list(columns), **settings)).tables()


def select(rows, nodes=2, edges=None, **settings):
    """The normal cell of a mixing given row by row."""
    mixing = Mixing(torch.tensor(rows, dtype=torch.float64), edges)
    genotype = selected(tables(nodes, **settings), {"normal": mixing, "reduce": mixing})
    return genotype.cells["normal"].edges


def test_ties_go_to_the_earlier_operation_and_the_earlier_state():
    edges = select([[0.2, 0.4, 0.4]] * 5)
    assert edges == tuple(Edge("skip_connect", source, target) for target in (2, 3) for source in (0, 1))
    edges = select([[0.2, 0.4, 0.4]] * 4 + [[0.1, 0.4, 0.5]])
    assert edges[2:] == (Edge("skip_connect", 0, 3), Edge("sep_conv_3x3", 2, 3))


def test_none_weakens_its_edge_but_is_not_chosen():
    """Its share stays in the softmax, so an edge that is mostly `none` is weak."""
    edges = select([[0.9, 0.06, 0.04], [0.9, 0.04, 0.06], [0.8, 0.1, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]])
    assert edges == (
        Edge("skip_connect", 0, 2),
        Edge("sep_conv_3x3", 1, 2),
        Edge("skip_connect", 1, 3),
        Edge("sep_conv_3x3", 2, 3),
    )


def test_edge_weights_multiply():
    rows = [[0.2, 0.5, 0.3]] * 2 + [[0.0, 0.9, 0.1], [0.0, 0.6, 0.4], [0.0, 0.5, 0.5]]
    assert [edge.source for edge in select(rows)][2:] == [0, 1]
    factors = torch.tensor([0.5, 0.5, 0.1, 0.3, 0.6])  # 0.09, 0.18, 0.30
    assert [edge.source for edge in select(rows, edges=factors)][2:] == [1, 2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["operations", "none", "edges"])
def test_what_is_not_finite_is_refused(part, value):
    """Even in a column that is not eligible: such a mixing is no result."""
    operations, edges = torch.full((5, 3), 1 / 3), torch.full((5,), 0.5)
    if part == "edges":
        edges[1] = value
    else:
        operations[1, 0 if part == "none" else 2] = value
    good = Mixing(torch.full((5, 3), 1 / 3))
    mixing = {"normal": good, "reduce": Mixing(operations, edges)}
    with pytest.raises(ValueError, match="finite"):
        selected(tables(), mixing)


def test_zero_weights_are_weights():
    assert len(select([[1.0, 0.0, 0.0]] * 5)) == 4


def test_an_edge_with_nothing_but_none_is_no_edge():
    rows = [["none"], ["none"], None, ["none"], None]
    edges = select([[0.2, 0.3, 0.5]] * 5, edge_candidates={"normal": rows, "reduce": rows})
    assert edges == (Edge("sep_conv_3x3", 0, 3), Edge("sep_conv_3x3", 2, 3))


# The strongest operation of every edge -------------------------------------------------


def strongest(rows, **options):
    """The operations of the six edges of NAS-Bench-201 that a mixing leads to."""
    table = SPACES["nasbench201"](SpaceConfig(name="nasbench201")).tables()["cell"]
    mixing = {"cell": Mixing(torch.tensor(rows, dtype=torch.float64))}
    view = SelectionView("nasbench201", {"cell": table}, mixing, {})
    return [edge.operation for edge in SELECTIONS["argmax"](**options)(view).cells["cell"].edges]


MOSTLY_NONE = (
    [[0.6, 0.1, 0.2, 0.05, 0.05]] * 2 + [[0.2] * 5] * 2 + [[0.1, 0.1, 0.1, 0.3, 0.4], [0.0, 0.0, 0.0, 1.0, 0.0]]
)


def test_argmax_keeps_every_edge_and_none_may_win():
    three, pool = "nor_conv_3x3", "avg_pool_3x3"
    assert strongest(MOSTLY_NONE) == ["none"] * 4 + [pool, three]
    others = ["nor_conv_1x1", "nor_conv_1x1", "skip_connect", "skip_connect", pool, three]
    assert strongest(MOSTLY_NONE, exclude_none=True) == others


def test_where_only_none_is_left_it_is_kept():
    space = SPACES["nasbench201"](SpaceConfig(name="nasbench201", edge_candidates={"cell": [["none"], *[None] * 5]}))
    view = SelectionView("nasbench201", space.tables(), {"cell": Mixing(torch.full((6, 5), 0.2))}, {})
    edges = SELECTIONS["argmax"](exclude_none=True)(view).cells["cell"].edges
    assert [edge.operation for edge in edges] == ["none"] + ["skip_connect"] * 5


def test_argmax_leaves_an_edge_of_none_out_of_a_cell_of_darts():
    rows = [[0.9, 0.06, 0.04], [0.1, 0.4, 0.5], [0.8, 0.1, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]]
    mixing = Mixing(torch.tensor(rows))
    cell = selected(tables(), {"normal": mixing, "reduce": mixing}, "argmax").cells["normal"]
    assert cell.edges == (
        Edge("sep_conv_3x3", 1, 2),
        Edge("skip_connect", 1, 3),
        Edge("sep_conv_3x3", 2, 3),
    )


@pytest.mark.parametrize("name", ["argmax", "best_of"])
def test_the_rule_for_single_epochs_knows_the_space(name):
    """On NAS-Bench-201 all six edges, on DARTS two a node, whatever a selection does at the end of a search."""
    rule = SELECTIONS[name]() if isinstance(SELECTIONS[name], type) else SELECTIONS[name]
    space = SPACES["nasbench201"](SpaceConfig(name="nasbench201"))
    view = SelectionView("nasbench201", space.tables(), {"cell": Mixing(torch.tensor(MOSTLY_NONE))}, {})
    edges = rule_of(rule)(view, None).cells["cell"].edges
    assert [edge.operation for edge in edges] == strongest(MOSTLY_NONE)


# Every selection ---------------------------------------------------------------------

COMPETING = [name for name, entry in SELECTIONS.items() if isinstance(entry, type) and issubclass(entry, Competing)]
every_selection = pytest.mark.parametrize("name", [name for name in SELECTIONS if name not in COMPETING])


@every_selection
@pytest.mark.parametrize("nodes", [1, 4])
def test_a_selection_gives_a_genotype_of_the_space(name, nodes):
    """The same for the same mixing, which it leaves alone, whatever its precision and graph."""
    made = tables(nodes, CANDIDATES)
    generator = torch.Generator().manual_seed(0)
    mixing = {}
    for cell, table in made.items():
        logits = torch.randn(table.alive.shape, generator=generator, requires_grad=True)
        mixing[cell] = Mixing(
            Softmax().expected(logits, table, HALF), torch.rand(len(table.edges), generator=generator)
        )
    before = [tensor.clone() for one in mixing.values() for tensor in (one.operations, one.edges)]
    genotype = selected(made, mixing, name)
    assert genotype.space == "darts" and tuple(genotype.cells) == ("normal", "reduce")
    assert all(cell.edges and set(cell.concat) <= set(range(2, 2 + nodes)) for cell in genotype.cells.values())
    assert all(edge.operation in CANDIDATES[1:] for cell in genotype.cells.values() for edge in cell.edges)
    assert selected(made, mixing, name) == genotype
    double = {cell: Mixing(one.operations.double(), one.edges.double()) for cell, one in mixing.items()}
    assert selected(made, double, name) == genotype
    after = [tensor for one in mixing.values() for tensor in (one.operations, one.edges)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("name", COMPETING)
def test_candidates_are_distinct_genotypes_of_the_space(name, restarts):
    """The same for the same searches; the first is what the first search found; no rung is shorter than the one before."""
    made, generator = tables(4, CANDIDATES), torch.Generator().manual_seed(0)
    nothing = {cell: OperationCosts(*torch.zeros(2, *table.alive.shape)) for cell, table in made.items()}

    def view():
        logits = {cell: torch.randn(table.alive.shape, generator=generator) for cell, table in made.items()}
        mixing = {cell: Mixing(Softmax().expected(logits[cell], table, HALF)) for cell, table in made.items()}
        return SelectionView("darts", made, mixing, nothing)

    searches = []
    for number in range(restarts):
        views = {epoch: view() for epoch in range(4)}
        searches.append(Finished(f"restart_{number}", darts(views[3]), 3, views))
    selection = SELECTIONS[name]()
    found = selection.candidates(Origin(searches, darts, None))
    genotypes = [candidate.genotype for candidate in found]
    assert len(set(genotypes)) == len(found) > restarts and genotypes[0] == searches[0].genotype
    assert {genotype.space for genotype in genotypes} == {"darts"}
    assert {candidate.run for candidate in found} <= {one.name for one in searches}
    assert selection.candidates(Origin(searches, darts, None)) == found
    epochs = [selection.rung_epochs(rung) for rung in range(4)]
    assert epochs == sorted(epochs) and epochs[0] >= 1
    assert searched_with(SearchConfig(selection=name)).selection.name in set(SELECTIONS) - set(COMPETING)
