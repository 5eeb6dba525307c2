"""Discretize: by the rule of the search, unless another one is given."""

import pytest
import tiny

from darts_lite.discretize import DiscretizeConfig, discretize
from darts_lite.errors import Exit, UserError
from darts_lite.genotypes.genotype import from_plain, to_plain
from darts_lite.methods import selections
from darts_lite.methods.selections.darts import darts
from darts_lite.methods.selections.hooks import Training, Validating
from darts_lite.methods.views import SelectionView

pytestmark = pytest.mark.usefixtures("tiny_folder")


def weakest(view, judge=None):
    """The DARTS rule on the mixing turned round."""
    turned = {cell: type(one)(1 - one.operations, one.edges) for cell, one in view.mixing.items()}
    return darts(SelectionView(view.space, view.tables, turned, view.costs))


class Asks(Validating):
    """A rule that needs a judge; it ranks its candidates by the weakest."""

    ranking = staticmethod(weakest)

    def __call__(self, view, judge):
        assert judge(view.mixing)[1] > 0
        return darts(view)


class Trains(Training):
    """A rule that trains on, for no epoch."""

    ranking = staticmethod(weakest)

    def phases(self, config):
        return []

    def __call__(self, view, judge):
        return darts(view)


def found(**config):
    """The genotype of the last epoch, and the lines that are said."""
    report = tiny.Report()
    result = discretize(DiscretizeConfig(run="run", **config), report=report)
    return result["genotype"], report.lines


def test_the_rule_of_the_search_is_used_unless_another_is_given(monkeypatch):
    monkeypatch.setitem(selections.SELECTIONS, "weakest", weakest)
    searched = tiny.run(tiny.search_config(selection="weakest"))["genotype"]
    own, _ = found(run_dir="own")
    other, _ = found(run_dir="other", selection="darts")
    assert own == searched != other


@pytest.mark.parametrize("rule", [Asks(), Trains()])
def test_without_a_judge_the_rule_that_ranked_is_used_and_one_line_says_so(rule, monkeypatch):
    monkeypatch.setitem(selections.SELECTIONS, "asks", rule)
    monkeypatch.setitem(selections.SELECTIONS, "weakest", weakest)
    searched = tiny.run(tiny.search_config(selection="asks"))["genotype"]
    ranked, said = found(run_dir="own")
    assert ranked == found(run_dir="weakest", selection="weakest")[0] != searched
    assert sum("the rule that ranked its candidates is used" in line for line in said) == 1
    lines = [line for line in tiny.read_lines("run/metrics.jsonl") if line["kind"] == "epoch"]
    assert lines[-1]["genotype"] == ranked, "each epoch shows what that rule finds"


def test_a_rule_from_python_has_to_be_given_again():
    tiny.run(tiny.search_config(selection=weakest))
    with pytest.raises(UserError, match="selection: the search has another rule than those with a name") as error:
        found()
    assert error.value.code == Exit.CONFIGURATION
    given, _ = found(selection=weakest)
    assert given == tiny.read_json("run/result.json")["genotype"] == to_plain(from_plain(given))
