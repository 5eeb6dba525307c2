"""A search is a list of phases. Plain DARTS has one; progressive methods shrink the space or deepen the supernet from phase to phase."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from darts_lite.methods.architecture import Architecture


@dataclass(frozen=True)
class Phase:
    """A stretch of the search with one supernet."""

    epochs: int
    warmup_epochs: int = 0  # with frozen alphas
    # What comes from the phase before: nothing | weights (with momentum) | all (the alphas, too).
    carry: str = "nothing"
    # Changes of the skeleton, such as {"cells": 11}; only with carry="nothing".
    skeleton: dict[str, Any] = field(default_factory=dict)
    # Which candidates stay, from the architecture at the end of the phase before: cell type -> (E, O) bool. None: as they were.
    alive: Callable[[Architecture], dict[str, Tensor]] | None = None


def one_phase(config: Any) -> list[Phase]:
    """The plain search."""
    return [Phase(config.epochs, config.warmup_epochs)]


PHASES = {"one": one_phase}
