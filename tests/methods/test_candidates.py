"""Where candidates come from, by hand and against brute force, and which of them survive a rung."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darts_lite.errors import UserError
from darts_lite.genotypes.genotype import Cell, Edge, Genotype
from darts_lite.methods.build import build_method, build_rule, searched_with
from darts_lite.methods.selections.candidates import (
    DRAWS,
    Finished,
    Origin,
    alternatives,
    least_certain,
    margin,
    mean,
    most_promising,
    survivors,
    weight,
)
from darts_lite.methods.selections.darts import darts
from darts_lite.methods.selections.validated import Validated
from darts_lite.methods.views import SelectionView
from darts_lite.search import SearchConfig
from darts_lite.settings.configs import SpaceConfig
from darts_lite.settings.parts import PartConfig
from darts_lite.spaces.darts import DartsSpace
from darts_lite.spaces.table import Mixing

SKIP, SEP = "skip_connect", "sep_conv_3x3"
COLUMNS = ["none", SKIP, SEP]
# Edges (0->2), (1->2), (0->3), (1->3), (2->3) of a normal cell; the reduction cell is certain of everything.
ROWS = [[0.2, 0.5, 0.3], [0.1, 0.46, 0.44], [0.3, 0.1, 0.6], [0.6, 0.3, 0.1], [0.5, 0.25, 0.25]]
CERTAIN = [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]


def view(rows=ROWS, reduce=CERTAIN, edges=None):
    tables = DartsSpace(SpaceConfig(nodes=2, candidates=COLUMNS)).tables()
    mixing = {
        cell: Mixing(torch.tensor(one, dtype=torch.float64), edges)
        for cell, one in (("normal", rows), ("reduce", reduce))
    }
    return SelectionView("darts", tables, mixing, {})


def search(*views, name="restart_0"):
    return Finished(name, darts(views[-1]), len(views), dict(enumerate(views, 1)))


def origin(searches, draw=None):
    return Origin(searches, darts, draw)


def normal(genotype):
    """Operation and source of each edge of the normal cell, node by node."""
    return [(edge.operation, edge.source) for edge in genotype.cells["normal"].edges]


FOUND = [(SKIP, 0), (SKIP, 1), (SEP, 0), (SKIP, 1)]


def test_the_weight_of_a_genotype_is_that_of_its_operations():
    assert normal(darts(view())) == FOUND
    assert weight(view(), darts(view())) == pytest.approx(0.5 + 0.46 + 0.6 + 0.3 + 4)
    factors = torch.tensor([1.0, 0.5, 1.0, 1.0, 0.1], dtype=torch.float64)
    assert weight(view(edges=factors), darts(view())) == pytest.approx(0.5 + 0.23 + 0.6 + 0.3 + 3.5)


def test_the_margin_leaves_none_aside():
    found = [margin(view(), ("normal", row)) for row in range(5)]
    assert found == pytest.approx([0.2, 0.02, 0.5, 0.2, 0.0])


def test_alternatives_of_an_edge():
    assert [normal(one) for one in alternatives(view(), darts, ("normal", 1))] == [
        FOUND,
        [FOUND[0], (SEP, 1), *FOUND[2:]],
    ]
    # With `none` on it, the edge loses against another one, where there is one; what the rule makes up otherwise is no alternative.
    assert [normal(one)[2:] for one in alternatives(view(), darts, ("normal", 3))] == [
        [(SEP, 0), (SKIP, 2)],
        [(SEP, 0), (SKIP, 1)],
        [(SEP, 0), (SEP, 1)],
    ]
    # An edge that was not taken takes the place of the weakest one.
    assert [normal(one)[2:] for one in alternatives(view(), darts, ("normal", 4))] == [
        [(SEP, 0), (SKIP, 1)],
        [(SEP, 0), (SKIP, 2)],
        [(SEP, 0), (SEP, 2)],
    ]


def test_an_edge_without_a_preference_gives_none():
    third = 1 / 3
    assert list(alternatives(view([[third] * 3] * 5), darts, ("normal", 0))) == []
    nothing = view([[third] * 3] * 5, [[third] * 3] * 5)
    every = ["score", "margin", "epoch", "consensus"]
    several = [search(nothing, nothing), search(nothing, nothing)]
    assert [one.genotype for one in most_promising(origin(several), every, 9)] == [darts(nothing)]
    assert [one.genotype for one in most_promising(origin([search(view(), nothing)]), ["epoch"], 9)] == [darts(view())]
    of_weights = Finished(
        "restart_0", darts(view()), 2, {1: nothing, 2: nothing}
    )  # found by other means than the mixing
    assert [one.genotype for one in most_promising(origin([of_weights]), every, 9)] == [darts(view())]


def test_the_least_certain_edge_comes_first():
    rows = [[0.0, 0.9, 0.1], [0.1, 0.46, 0.44], [0.0, 0.1, 0.9], [0.0, 0.8, 0.2], [0.9, 0.05, 0.05]]
    found = [normal(one) for one in least_certain(view(rows), darts, darts(view(rows)))]
    changed = [[(SKIP, 0), (SEP, 1)], [(SKIP, 0), (SKIP, 1)]]
    base = [(SEP, 0), (SKIP, 1)]
    assert found[:2] == [changed[1] + base, changed[0] + base], (
        "edge 1->2: skip is what was found, then the convolution"
    )
    assert found[2:5] == [changed[1] + base, changed[1] + [(SEP, 0), (SEP, 1)], changed[1] + [(SEP, 0), (SKIP, 2)]]


def test_by_score_the_weight_falls():
    """After what was found: all that differs by one choice, the most weight first."""
    one = search(view())
    found = [candidate.genotype for candidate in most_promising(origin([one]), ["score"], 100)]
    weights = [weight(view(), genotype) for genotype in found]
    assert weights == sorted(weights, reverse=True) and found[0] == one.genotype and len(found) > 8
    assert normal(found[1]) == [FOUND[0], (SEP, 1), *FOUND[2:]], "0.44 instead of 0.46"
    edges = {(name, edge) for name, cell in found[0].cells.items() for edge in cell.edges}
    for genotype in found[1:]:
        other = {(name, edge) for name, cell in genotype.cells.items() for edge in cell.edges}
        assert len(other - edges) == 1


def changed(row, operations):
    rows = [list(weights) for weights in ROWS]
    rows[row] = operations
    return view(rows)


def test_epochs_newest_first_without_the_last_and_what_nothing_was_learned_in():
    epochs = [changed(0, [0.0, 0.1, 0.9]), changed(1, [0.0, 0.1, 0.9]), view()]
    one = search(*epochs)
    one.views[0] = changed(2, [0.0, 0.9, 0.1])
    found = most_promising(origin([one]), ["epoch"], 9)
    assert [candidate.genotype for candidate in found] == [darts(epochs[1]), darts(epochs[0])]
    assert {(candidate.run, candidate.source) for candidate in found} == {("restart_0", "epoch")}


def test_a_consensus_is_that_of_the_mean():
    both = [changed(0, [0.0, 0.2, 0.8]), changed(0, [0.0, 0.9, 0.1])]
    together = mean(both)
    assert together.mixing["normal"].operations[0].tolist() == pytest.approx([0.0, 0.55, 0.45])
    searches = [search(both[0]), search(both[1], name="restart_1")]
    found = most_promising(origin(searches), ["consensus"], 9)
    assert found[0].genotype == darts(together) and normal(found[0].genotype)[0] == (SKIP, 0)
    assert found[1].genotype in list(least_certain(together, darts, darts(together)))[:3]
    assert most_promising(origin(searches[:1]), ["consensus"], 9) == []


def test_a_candidate_that_one_search_has_left_counts_as_nothing_there():
    alive = view().tables["normal"].alive.clone()
    alive[0, 2] = False
    tables = DartsSpace(SpaceConfig(nodes=2, candidates=COLUMNS)).tables(alive={"normal": alive, "reduce": alive})
    less = SelectionView("darts", tables, changed(0, [0.4, 0.6, 0.0]).mixing, {})
    together = mean([less, changed(0, [0.2, 0.4, 0.4])])
    assert together.tables["normal"].alive.all()
    assert together.mixing["normal"].operations[0].tolist() == pytest.approx([0.3, 0.5, 0.2])


def test_sources_take_turns():
    searches = [search(view()), search(changed(2, [0.0, 0.9, 0.1]), name="restart_1")]
    found = most_promising(origin(searches), ["score", "margin"], 6)
    assert [(one.run, one.source) for one in found] == [
        ("restart_0", "score"), ("restart_1", "score"), ("restart_0", "margin"), ("restart_1", "margin"),
        ("restart_0", "score"), ("restart_1", "score"),
    ]  # fmt: skip
    assert len({one.genotype for one in found}) == 6
    assert most_promising(origin(searches), ["score", "margin"], 3) == found[:3]


def test_a_rule_that_takes_none_is_offered_none():
    def strongest(seen, judge=None):
        cells = {}
        for cell, table in seen.tables.items():
            chosen = seen.mixing[cell].operations[:2].argmax(-1).tolist()
            edges = [Edge(COLUMNS[column], *ends) for column, ends in zip(chosen, table.edges, strict=False) if column]
            cells[cell] = Cell(tuple(edges) or (Edge(SKIP, 0, 3),), (2, 3))
        return Genotype("darts", cells)

    found = list(alternatives(view(), strongest, ("normal", 1)))
    assert [normal(one) for one in found] == [[(SKIP, 0), (SKIP, 1)], [(SKIP, 0), (SEP, 1)], [(SKIP, 0)]]


def test_random_candidates_are_distinct_and_end_where_the_space_does():
    genotypes = [darts(changed(0, row)) for row in ([0, 1, 0], [0, 0, 1])]
    draws = iter([0, 0, 1] + [0] * DRAWS)
    found = most_promising(origin([], lambda: genotypes[next(draws)]), ["random"], 3)
    assert [(one.genotype, one.run, one.source) for one in found] == [(one, None, "random") for one in genotypes]


# Rungs

SCORES = st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.sampled_from([1.0, 2.0]))


@given(st.dictionaries(st.integers(0, 30), SCORES, min_size=1))
def test_the_better_half_survives(scores):
    left = survivors(scores, Validated().left_after(0, len(scores)))
    assert len(left) == max(1, len(scores) // 2) and left == sorted(left)
    for kept in left:
        for lost in set(scores) - set(left):
            (better, lower), (worse, higher) = scores[kept], scores[lost]
            assert (-better, lower, kept) < (-worse, higher, lost)


# Options


def test_a_search_by_itself_uses_the_rule_that_ranks():
    config = SearchConfig(selection=Validated(k=3))
    assert searched_with(config).selection == PartConfig("darts") and build_rule(config) is darts
    assert Validated(epochs=3).rung_epochs(0) == 3 and Validated(epochs=3).rung_epochs(2) == 12
    assert searched_with(SearchConfig(selection="validated", relaxation="uniform_path")).selection.name == "best_of"
    nothing = SearchConfig(selection="validated", relaxation="uniform_path", solver="first_order")
    assert build_method(nothing).learns is False, "it is not refused"
    plain = SearchConfig()
    assert searched_with(plain) is plain


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"of": []}, "selection.of: must not be empty"),
        ({"of": ["scores"]}, "did you mean 'score'?"),
        ({"k": 0}, "selection.k: must be at least 1"),
        ({"rule_options": {"samples": 3}}, "selection.rule_options: are those of selection.rule"),
        ({"rule": "validated"}, "selection.rule: unknown name"),
        ({"rule": "dart"}, "did you mean 'darts'?"),
        ({"rule": "darts", "rule_options": {"k": 3}}, "selection.k"),
        ({"rule_options": 3}, "selection.rule_options: must be a mapping"),
    ],
)
def test_wrong_options(options, said):
    with pytest.raises(UserError, match="selection") as error:
        searched_with(SearchConfig(selection=PartConfig("validated", options)))
    assert said in str(error.value)
