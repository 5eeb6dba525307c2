"""Selection by evidence: the most promising candidates of finished searches are trained briefly from scratch, and the best one is picked.

Successive halving (Jamieson & Talwalkar 2016): in rung r = 0, 1, ... every candidate that is left trains for `epochs` * 2^r epochs on the
images that the weights of the search learned from, is judged by those of its alphas, and the better half goes on. Each rung begins anew: a
schedule that has ended at a learning rate of zero cannot be gone on with, and so a score is that of one `retrain` command.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from darts_lite.errors import UserError
from darts_lite.methods.selections.candidates import SOURCES, Candidate, Finished, Rule, most_promising
from darts_lite.methods.selections.hooks import Competing
from darts_lite.settings.options import option
from darts_lite.settings.parts import PartConfig


@dataclass(frozen=True)
class Validated(Competing):
    """Short trainings by successive halving."""

    k: int = option(8, low=1, high=1000)  # candidates at most
    epochs: int = option(4, low=1)  # of the first rung; each rung doubles them
    of: list[str] = option(["score", "consensus", "margin", "epoch"], choices=tuple(SOURCES))
    rule: str | None = option(
        None
    )  # selection of the searches; None: best_of where alphas learn nothing, else the space's
    rule_options: dict[str, Any] = option({})

    def __post_init__(self) -> None:
        if self.of == []:
            raise UserError("selection.of", "must not be empty", f"give some of {', '.join(SOURCES)}", value=[])
        if self.rule is None and isinstance(self.rule_options, dict) and self.rule_options:
            fix = "give selection.rule, too"
            raise UserError("selection.rule_options", "are those of selection.rule", fix, value=self.rule_options)

    @property
    def ranked_by(self) -> PartConfig | None:
        """The selection of the searches before."""
        return None if self.rule is None else PartConfig(self.rule, self.rule_options)

    def candidates(self, searches: Sequence[Finished], rule: Rule) -> list[Candidate]:
        """At most `k` distinct genotypes, most promising first."""
        return most_promising(searches, rule, self.of, self.k)

    def rung_epochs(self, rung: int) -> int:
        """Epochs of a short training in rung 0, 1, ..."""
        return self.epochs * 2**rung
