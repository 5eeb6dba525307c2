"""The rule of each space that needs no judge: it makes the genotypes of single epochs where the selection comes at the end only."""

from collections.abc import Callable

from darts_lite.genotypes.genotype import Genotype
from darts_lite.methods.selections.darts import darts
from darts_lite.methods.views import Judge, SelectionView

# Name of a space -> its published rule; a space that is not here has that of DARTS.
USUAL: dict[str, Callable[[SelectionView], Genotype]] = {"darts": darts}


def usual(view: SelectionView, judge: Judge | None = None) -> Genotype:
    """The genotype that the rule of the view's space makes of its mixing."""
    return USUAL.get(view.space, darts)(view)
