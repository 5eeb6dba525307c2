"""Method: the algorithm of a search as the parts that it is put together from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from darts_lite.methods.phases import Phase

# What a part may say of itself, and what holds of one that does not: sparse, it computes only the operations that it draws;
# learns, its mixing depends on the logits; identity_backward, the gradient of the mixing is handed to the logits as it is; capturable, the
# host need not decide or wait within a step, so that a CUDA graph can hold it; reads_alphas, the genotype depends on the mixing.
UNSAID = {"sparse": False, "learns": True, "identity_backward": False, "capturable": True, "reads_alphas": True}


class Stateful(ABC):
    """Part that remembers something from step to step, which a checkpoint has to hold."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data that the part remembers."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""


@dataclass(frozen=True)
class Method:
    """All parts of one algorithm."""

    relaxation: Any
    solver: Any
    penalties: list[Any]
    perturbation: Any
    regularization: Any
    alpha_optimizer: Any
    monitor: Any
    selection: Any
    phases: list[Phase]

    def stateful_parts(self) -> dict[str, Stateful]:
        """Parts that a checkpoint has to hold, by kind."""
        return {name: part for name, part in self._parts().items() if isinstance(part, Stateful)}

    @property
    def sparse(self) -> bool:
        """Whether a step computes only the operations that were drawn."""
        return said(self.relaxation, "sparse")

    @property
    def learns(self) -> bool:
        """Whether there is something to learn about the architecture, so that alphas take steps."""
        return said(self.relaxation, "learns")

    def obstacle(self) -> str | None:
        """Reason why no CUDA graph can hold a step of this method, or None: a part has the host decide what is computed."""
        if self.sparse:
            return "the relaxation runs only the operations that it draws"
        held = [name for name, part in self._parts().items() if not said(part, "capturable")]
        return f"the {held[0]} cannot be captured" if held else None

    def _parts(self) -> dict[str, Any]:
        names = ("relaxation", "solver", "perturbation", "regularization", "alpha_optimizer", "monitor")
        parts = {name: getattr(self, name) for name in names}
        return parts | {f"penalty_{i}": penalty for i, penalty in enumerate(self.penalties)}


def said(part: Any, name: str) -> bool:
    """Statement of a part about itself; any callable is a part, so most make none."""
    return getattr(part, name, UNSAID[name])
