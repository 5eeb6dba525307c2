"""Selection by evidence: the most promising candidates of finished searches are trained briefly from scratch, and the best one is picked.

Successive halving (Jamieson & Talwalkar 2016): in rung r = 0, 1, ... every candidate that is left trains for `epochs` * 2^r
epochs on the images that the weights of the search learned from, is judged by those of its alphas, and the better half goes on; the last
rung leaves one. Each rung begins anew: a schedule that has ended at a learning rate of zero cannot be gone on with, and so a score is that
of one `retrain` command.

With random candidates alone it is random search, at whatever `k` and `epochs` cost.
"""

from dataclasses import dataclass, fields
from typing import Any

from darts_lite.errors import UserError
from darts_lite.methods.selections.candidates import SOURCES, Candidate, Origin, most_promising
from darts_lite.methods.selections.hooks import Competing
from darts_lite.settings import schema
from darts_lite.settings.configs import RetrainConfig
from darts_lite.settings.options import option
from darts_lite.settings.parts import PartConfig

# What a short training may have of its own; its data, seed and epochs are given.
FIRST, LAST = "cells", "ema"
OWN = ("epochs",)


@dataclass(frozen=True)
class Validated(Competing):
    """Short trainings by successive halving."""

    k: int = option(8, low=1, high=1000)  # candidates at most
    epochs: int = option(4, low=1)  # of the first rung; each rung doubles them
    rungs: int | None = option(None, low=1)  # at most, the last of which leaves one; None: until one is left
    of: list[str] = option(["score", "consensus", "margin", "epoch"], choices=tuple(SOURCES))
    training: dict[str, Any] = option({})  # settings of the short trainings; those of the search where they are absent
    # Selection of the searches; None: best_of where alphas learn nothing, else the space's.
    rule: str | None = option(None)
    rule_options: dict[str, Any] = option({})

    def __post_init__(self) -> None:
        if self.of == []:
            raise UserError("selection.of", "must not be empty", f"give some of {', '.join(SOURCES)}", value=[])
        if self.rule is None and isinstance(self.rule_options, dict) and self.rule_options:
            fix = "give selection.rule, too"
            raise UserError("selection.rule_options", "are those of selection.rule", fix, value=self.rule_options)
        if isinstance(self.training, dict):
            names = [field.name for field in fields(RetrainConfig)]
            known = [name for name in names[names.index(FIRST) : names.index(LAST) + 1] if name not in OWN]
            for name in self.training:
                if name not in known:
                    raise schema.unknown_key(
                        f"selection.training.{name}", [f"selection.training.{one}" for one in known]
                    )
            schema.from_plain(RetrainConfig, self.training, "selection.training.")

    @property
    def ranked_by(self) -> PartConfig | None:
        """The selection of the searches before."""
        return None if self.rule is None else PartConfig(self.rule, self.rule_options)

    @property
    def needs_searches(self) -> bool:
        """Whether candidates come from searches; where all of them are random there is none."""
        return set(self.of) != {"random"}

    def candidates(self, origin: Origin) -> list[Candidate]:
        """At most `k` distinct genotypes, most promising first."""
        return most_promising(origin, self.of, self.k)

    def trained_with(self) -> dict[str, Any]:
        """Settings of the short trainings that are not those of the search."""
        return self.training

    def rung_epochs(self, rung: int) -> int:
        """Epochs of a short training in rung 0, 1, ..."""
        return self.epochs * 2**rung

    def left_after(self, rung: int, number: int) -> int:
        """The better half, or one after the last rung."""
        return 1 if rung + 1 == self.rungs else max(1, number // 2)
