"""Monitors: asked after every epoch, `epoch(state, judge)` says how the search goes on.

`state` is the `SearchState`, `judge` maps a mixing to (accuracy, loss) of its supernet on the validation part. A monitor with memory is a
`Stateful`, and is resumed with the run.
"""

from dataclasses import dataclass, field
from typing import Any

from darts_lite.methods.phases import CHANGEABLE
from darts_lite.methods.views import Judge


@dataclass(frozen=True)
class Verdict:
    """How a search goes on after an epoch."""

    stop: bool = False  # this epoch was the last one of the run
    # The epoch whose architecture gives the genotype, unless a later verdict says otherwise; None: the last.
    take_epoch: int | None = None
    change: dict[str, Any] = field(default_factory=dict)  # settings from here on, those in CHANGEABLE

    def __post_init__(self) -> None:
        if type(self.stop) is not bool or not (self.take_epoch is None or type(self.take_epoch) is int):
            raise ValueError("a verdict has a bool and the number of an epoch")
        for name, value in self.change.items():
            if name not in CHANGEABLE or type(value) not in (int, float):
                raise ValueError(f"{name} = {value!r} is not a number of {', '.join(CHANGEABLE)}")


@dataclass(frozen=True)
class NoMonitor:
    """The search goes on to its last epoch, which gives the genotype."""

    def epoch(self, state: Any, judge: Judge) -> Verdict:
        """Go on."""
        return Verdict()


MONITORS = {"none": NoMonitor}
