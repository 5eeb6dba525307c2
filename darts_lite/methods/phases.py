"""A search is a list of phases. Plain DARTS has one; progressive methods shrink the space or deepen the supernet from phase to phase."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from darts_lite.settings.configs import SearchConfig

CHANGEABLE = ("lr", "lr_min", "alpha_lr", "weight_decay")  # settings that may change in the middle of a search


@dataclass(frozen=True)
class Phase:
    """A stretch of the search with one supernet."""

    epochs: int
    warmup_epochs: int = 0  # with frozen alphas
    # From the phase before: nothing | weights (with momentum) | all (the alphas, too).
    keeps: str = "nothing"
    # Changes of the skeleton, such as {"cells": 11}; only with keeps="nothing".
    skeleton: dict[str, Any] = field(default_factory=dict)
    # Settings of this phase that differ from the configuration, such as {"lr": 0.01}; those in CHANGEABLE.
    settings: dict[str, Any] = field(default_factory=dict)
    # The `SearchState` at the end of the phase before -> candidates that stay: cell type -> (R, O) bool. None: as they were.
    alive: Callable[[Any], dict[str, Tensor]] | None = None


def one_phase(config: SearchConfig) -> list[Phase]:
    """The plain search."""
    return [Phase(config.epochs, config.warmup_epochs)]


PHASES = {"one": one_phase}
