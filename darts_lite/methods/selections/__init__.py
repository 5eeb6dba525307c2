"""Selections: (view of an architecture, judge) -> genotype.

Most are rules that read the view alone. One that is a `Validating` needs a judge; one that is a `Training` adds phases to the search; one
that is a `Competing` chooses between candidates of finished searches.
"""

from darts_lite.methods.selections.argmax import Argmax
from darts_lite.methods.selections.best_of import BestOf
from darts_lite.methods.selections.darts import darts
from darts_lite.methods.selections.validated import Validated

SELECTIONS = {"darts": darts, "argmax": Argmax, "best_of": BestOf, "validated": Validated}
