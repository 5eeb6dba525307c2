"""The softmax of GAEA (Li et al. 2021): what it hands back to the logits is the gradient with respect to the mixing itself.

Plain gradient descent on the logits (alpha_optimizer=sgd) is then exponentiated gradient on theta = softmax(logits):

    logits <- logits - rate g    means    theta <- theta exp(-rate g), each row normalized,    with g = d loss / d theta

`none` has no share in the output of an edge, so its g is 0: its logit rests, and it gains only where the others lose.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from darts_lite.methods.relaxations.softmax import Softmax
from darts_lite.methods.relaxations.straight_through import straight_through
from darts_lite.settings.options import option
from darts_lite.spaces.table import Table


@dataclass(frozen=True)
class IdentitySoftmax:
    """Softmax forward, identity backward; no live operation has less than `floor` before a row is normalized (GAEA: 1e-5).

    Unlike the authors' code, which lifts theta itself at each step, a logit may sink below the floor and has to climb back.
    """

    identity_backward: ClassVar[bool] = True  # the factors of edges, where there are, are made in the same way

    floor: float = option(1e-5, low=0, high=0.01)

    def sample(self, logits: Tensor, table: Table, progress: Tensor, generator: Generator) -> Tensor:
        """(E, O) logits -> (E, O) mixing whose rows sum to 1; the Jacobian is 1 on the diagonal where a candidate is alive, else 0."""
        return straight_through(self.expected(logits, table, progress), logits.masked_fill(~table.alive, 0))

    def expected(self, logits: Tensor, table: Table, progress: Tensor) -> Tensor:
        """Mixing without noise (E, O): the values of `sample`, which has none."""
        theta = Softmax().expected(logits, table, progress)
        theta = torch.where(table.alive, theta.clamp_min(self.floor), 0)
        return theta / theta.sum(-1, keepdim=True)
