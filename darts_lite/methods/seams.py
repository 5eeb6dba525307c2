"""Two places in the weight step where robust methods act, and their identity.

Each is called as

    perturbation    (mixing, loss of mixing, progress, generator) -> mixing for the weight step's forward     (SDARTS)
    regularization  (weights, their gradients, progress) -> None, changes the gradients in place             (Lambda-DARTS, OLES)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Generator, Tensor

Mixed = tuple[Tensor, ...]


@dataclass(frozen=True)
class NoPerturbation:
    """The weights are trained at the mixing that was sampled."""

    def __call__(self, mixing: Mixed, loss: Callable[[Mixed], Tensor], progress: Tensor, generator: Generator) -> Mixed:
        """`mixing` as it is."""
        return mixing


@dataclass(frozen=True)
class NoRegularization:
    """The gradients are used as they are."""

    def __call__(self, weights: Sequence[Tensor], gradients: Sequence[Tensor], progress: Tensor) -> None:
        """Nothing."""


PERTURBATIONS = {"none": NoPerturbation}
REGULARIZATIONS = {"none": NoRegularization}
