"""Two places in the weight step where robust methods act, and their identity.

    perturbation    (mixing, tables, loss, progress, generator) -> mixing of the weight step's forward pass   (SDARTS)
    regularization  (gradients, loss, mixing, progress) -> None, changes gradients in place                   (Lambda-DARTS)

`mixing` and `tables` are by cell type. `loss` maps a mixing to the loss on the training batch (0-d) and moves no statistics. A perturbation
gets it with frozen weights, in eval mode; a regularization with the weights that learn, in training mode: their gradients can be taken.
`gradients` maps the name of every weight to (weight, gradient); a gradient is None where the loss does not depend on the weight.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator, Tensor

from darts_lite.spaces.table import Mixing, Table

Mixed = dict[str, Mixing]
MixingLoss = Callable[[Mixed], Tensor]


@dataclass(frozen=True)
class NoPerturbation:
    """The weights are trained at the mixing that was sampled."""

    def __call__(
        self, mixing: Mixed, tables: dict[str, Table], loss: MixingLoss, progress: Tensor, generator: Generator
    ) -> Mixed:
        """`mixing` as it is."""
        return mixing


@dataclass(frozen=True)
class NoRegularization:
    """The gradients are used as they are."""

    def __call__(
        self, gradients: dict[str, tuple[Tensor, Tensor | None]], loss: MixingLoss, mixing: Mixed, progress: Tensor
    ) -> None:
        """Nothing."""


PERTURBATIONS = {"none": NoPerturbation}
REGULARIZATIONS = {"none": NoRegularization}
