"""Second-order DARTS: differentiate through one step of the weight optimizer, the mixed derivative by finite differences.

    d outer/d mixing = direct - learning_rate * [ d inner(w + eps v) - d inner(w - eps v) ] / (2 eps),      eps = radius / ||v||
    with v = d outer / d w' at w' = lookahead(w)                                       (Liu et al. 2019, eq. 6-8; radius = 0.01)

The expansion holds for smooth networks. Every ReLU between the two probes adds an error of its jump / (2 eps), so on a ReLU network the
term differs from the exact one (`unrolled_exact`) by up to a multiple of itself: this is the published algorithm all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from darts_lite.methods.solvers.bilevel import Bilevel, Tensors, gradients, requiring_gradients
from darts_lite.settings.options import option


@dataclass(frozen=True)
class Unrolled:
    """Five passes: inner, outer, two probes (forward and backward each), and the weight step that follows elsewhere."""

    needs_float32: ClassVar[bool] = True  # finite differences drown in TF32's 10 bits

    radius: float = option(0.01, above=0)  # of the two probes around the weights

    def __call__(self, problem: Bilevel) -> tuple[Tensor, Tensors]:
        """The outer loss (0-d) at the unrolled weights and its gradient, one tensor for each of `problem.mixing`."""
        weights = requiring_gradients(problem.weights)
        inner_gradients = gradients(problem.inner(weights, problem.mixing), weights)
        ahead = requiring_gradients(problem.lookahead(problem.weights, inner_gradients))
        mixing = requiring_gradients(problem.mixing)
        loss = problem.outer(ahead, mixing)
        both = gradients(loss, (*ahead, *mixing))
        loss = loss.detach()  # lets go of its graph, which would be held during the probes: a third of the memory
        v, direct = both[: len(ahead)], both[len(ahead) :]

        # v = 0 leaves the weights in place: both probes agree and the term is zero, not NaN.
        norm = torch.stack(torch._foreach_norm(v)).norm()
        eps = self.radius / norm.clamp_min(torch.finfo(norm.dtype).tiny)
        step = torch._foreach_mul(v, eps)
        plus = self._probe(problem, torch._foreach_add(problem.weights, step))
        minus = self._probe(problem, torch._foreach_sub(problem.weights, step))
        scale = problem.lookahead.learning_rate / (2 * eps)
        return loss, tuple(g - scale * (p - m) for g, p, m in zip(direct, plus, minus, strict=True))

    @staticmethod
    def _probe(problem: Bilevel, weights: Sequence[Tensor]) -> Tensors:
        mixing = requiring_gradients(problem.mixing)
        return gradients(problem.probe(tuple(weights), mixing), mixing)
