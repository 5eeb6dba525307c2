"""Fields with a default and limits, for settings and for the options of parts (no torch here)."""

from copy import deepcopy
from dataclasses import field, is_dataclass
from typing import Any

LARGEST_SEED = 2**63 - 1
# What a printed command does not need to say: batch size of both trainings, and the part of the images that moves the weights of a search.
USUAL_BATCH, USUAL_FRACTION = 64, 0.5


def option(
    default: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    without_effect: bool = False,
) -> Any:
    """Dataclass field with limits: `low` <= value, `above` < value, value <= `high`, value in `choices`.

    Limits of a list hold for each element. `without_effect` marks what cannot change a result: a resumed run may differ in it.
    """
    metadata = {"low": low, "above": above, "high": high, "choices": choices, "without_effect": without_effect}
    if isinstance(default, (list, dict)) or is_dataclass(default):
        return field(default_factory=lambda: deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)
