"""The rule of each space that needs no judge: it makes the genotypes of single epochs where the selection comes at the end only."""

from darts_lite.genotypes.genotype import Genotype
from darts_lite.genotypes.schema import SPACE_RULES
from darts_lite.methods.selections.argmax import Argmax
from darts_lite.methods.selections.darts import darts
from darts_lite.methods.views import Judge, SelectionView


def usual(view: SelectionView, judge: Judge | None = None) -> Genotype:
    """The genotype by the rule of the space: every edge where its cells have all of them, else the two strongest of a node."""
    rules = SPACE_RULES.get(view.space)
    rule = darts if rules is None or rules.edges is None else Argmax()
    return rule(view, judge)
