"""Second-order DARTS by double backward: the executable definition that `unrolled` approximates.

    d/d mixing of  outer(lookahead(w, d inner(w, mixing)/d w), mixing)                              (Liu et al. 2019, eq. 5)

Four passes instead of five, but the graph of the inner gradient stays in memory.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from darts_lite.methods.solvers.bilevel import Bilevel, Tensors, gradients, requiring_gradients


@dataclass(frozen=True)
class UnrolledExact:
    """Exact to rounding wherever the network is twice differentiable."""

    needs_float32: ClassVar[bool] = True

    def __call__(self, problem: Bilevel) -> tuple[Tensor, Tensors]:
        """The outer loss (0-d) at the unrolled weights and its gradient, one tensor for each of `problem.mixing`."""
        weights, mixing = requiring_gradients(problem.weights), requiring_gradients(problem.mixing)
        inner_gradients = gradients(problem.probe(weights, mixing), weights, create_graph=True)
        loss = problem.outer(problem.lookahead(weights, inner_gradients), mixing)
        return loss.detach(), gradients(loss, mixing)
