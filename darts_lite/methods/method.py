"""The algorithm of a search, as the parts that it is put together from."""

from dataclasses import dataclass
from typing import Any

from darts_lite.methods.phases import Phase


@dataclass(frozen=True)
class Method:
    """The algorithm, built from its names."""

    relaxation: Any
    solver: Any
    penalties: list[Any]
    perturbation: Any
    regularization: Any
    alpha_optimizer: Any
    monitor: Any
    selection: Any
    phases: list[Phase]

    def stateful_parts(self) -> dict[str, Any]:
        """Parts that a checkpoint has to hold, by name: those with a `state_dict`."""
        return {name: part for name, part in self._parts().items() if hasattr(part, "state_dict")}

    def obstacle(self) -> str | None:
        """Why no CUDA graph can hold a step of this method, if so: a part of it has the host decide what is computed."""
        if getattr(self.relaxation, "sparse", False):
            return "the relaxation runs only the operations that it draws"
        held = [name for name, part in self._parts().items() if not getattr(part, "capturable", True)]
        return f"the {held[0]} cannot be captured" if held else None

    def _parts(self) -> dict[str, Any]:
        names = ("relaxation", "solver", "perturbation", "regularization", "alpha_optimizer", "monitor")
        parts = {name: getattr(self, name) for name in names}
        return parts | {f"penalty_{i}": penalty for i, penalty in enumerate(self.penalties)}
