"""First-order DARTS: today's weights stand in for w*, so only the direct gradient remains (Liu et al. 2019, eq. 5 with xi = 0)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from darts_lite.methods.solvers.bilevel import Bilevel, Tensors, gradients, requiring_gradients


@dataclass(frozen=True)
class FirstOrder:
    """One forward and one backward pass; no weight gradient is computed."""

    needs_float32: ClassVar[bool] = False  # may run in bf16 and TF32

    def __call__(self, problem: Bilevel) -> tuple[Tensor, Tensors]:
        """The outer loss (0-d) and its gradient, one tensor for each of `problem.mixing`."""
        mixing = requiring_gradients(problem.mixing)
        loss = problem.outer(problem.weights, mixing)
        return loss.detach(), gradients(loss, mixing)
