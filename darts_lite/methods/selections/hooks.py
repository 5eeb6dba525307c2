"""What a selection says of itself that needs more than a view of the architecture."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from darts_lite.genotypes.genotype import Genotype
from darts_lite.genotypes.schema import SPACE_RULES
from darts_lite.methods.phases import Phase
from darts_lite.methods.selections.argmax import Argmax
from darts_lite.methods.selections.darts import darts
from darts_lite.methods.views import Judge, SelectionView
from darts_lite.settings.configs import SearchConfig

Selection = Callable[[SelectionView, Judge | None], Genotype]


def usual_rule(view: SelectionView, judge: Judge | None = None) -> Genotype:
    """The genotype by the rule of the space: every edge where its cells have all of them, else the two strongest of a node."""
    rules = SPACE_RULES.get(view.space)
    rule = darts if rules is None or rules.edges is None else Argmax()
    return rule(view, judge)


class AtTheEnd(ABC):
    """A selection that cannot be made of a line of alphas.jsonl alone, so it is called at the end of a search only."""

    ranking: Selection = staticmethod(usual_rule)  # the rule for single epochs, and for `discretize`

    @abstractmethod
    def __call__(self, view: SelectionView, judge: Judge | None) -> Genotype:
        """The genotype of a finished search."""


class Validating(AtTheEnd):
    """A selection that asks the judge."""


class Training(AtTheEnd):
    """A selection that trains on: its phases follow those of the method."""

    @abstractmethod
    def phases(self, config: SearchConfig) -> list[Phase]:
        """Further phases; what they leave alive is what the selection is called with."""


def rule_of(selection: Selection) -> Selection:
    """The rule that needs no judge: the selection itself, or the one that ranks its candidates."""
    return selection.ranking if isinstance(selection, AtTheEnd) else selection
