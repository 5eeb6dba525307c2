"""What a selection says of itself that needs more than a view of the architecture."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from darts_lite.genotypes.genotype import Genotype
from darts_lite.methods.phases import Phase
from darts_lite.methods.selections.candidates import Candidate, Finished, Rule
from darts_lite.methods.selections.usual import usual
from darts_lite.methods.views import Judge, SelectionView
from darts_lite.settings.configs import SearchConfig
from darts_lite.settings.parts import PartConfig

Selection = Callable[[SelectionView, Judge | None], Genotype]


class AtTheEnd(ABC):
    """A selection that cannot be made of a line of alphas.jsonl alone, so it is called at the end of a search only."""

    ranking: Selection = staticmethod(usual)  # the rule for single epochs, and for `discretize`

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


class Competing(ABC):
    """A selection between candidates of finished searches, each trained from scratch (runs/contest.py); it is no function of a view."""

    reads_alphas: ClassVar[bool] = False  # where the mixing ranks nothing, what the searches found competes

    @property
    @abstractmethod
    def ranked_by(self) -> PartConfig | None:
        """The selection of the searches themselves, which ranks the candidates; None: the usual one."""

    @abstractmethod
    def candidates(self, searches: Sequence[Finished], rule: Rule) -> list[Candidate]:
        """Distinct genotypes, most promising first; `rule` makes one of a view."""

    @abstractmethod
    def rung_epochs(self, rung: int) -> int:
        """Epochs that the candidates train for in rung 0, 1, ..., after each of which the better half is left."""


def rule_of(selection: Selection) -> Selection:
    """The rule that needs no judge: the selection itself, or the one that ranks its candidates."""
    return selection.ranking if isinstance(selection, AtTheEnd) else selection
