"""Selections: (view of an architecture, judge) -> genotype.

Most are rules that read the view alone. One that is a `Validating` needs a judge; one that is a `Training` adds phases to the search.
"""

from darts_lite.methods.selections.best_of import BestOf
from darts_lite.methods.selections.darts import darts

SELECTIONS = {"darts": darts, "best_of": BestOf}
