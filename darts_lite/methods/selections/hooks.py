"""What a selection says of itself that needs more than a view of the architecture."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from darts_lite.genotypes.genotype import Genotype
from darts_lite.methods.phases import Phase
from darts_lite.methods.selections.candidates import Candidate, Origin
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

    @property
    def needs_searches(self) -> bool:
        """Whether candidates come from searches."""
        return True

    @abstractmethod
    def candidates(self, origin: Origin) -> list[Candidate]:
        """Distinct genotypes, most promising first."""

    @abstractmethod
    def rung_epochs(self, rung: int) -> int:
        """Epochs that the candidates train for in rung 0, 1, ..."""

    @abstractmethod
    def left_after(self, rung: int, number: int) -> int:
        """How many of `number` candidates are left after a rung; one is picked."""

    def trained_with(self) -> dict[str, Any]:
        """Settings of the short trainings, as of `retrain`, that are not those of the search."""
        return {}


def rule_of(selection: Selection) -> Selection:
    """The rule that needs no judge: the selection itself, or the one that ranks its candidates."""
    return selection.ranking if isinstance(selection, AtTheEnd) else selection
