"""The bilevel problem a solver sees: two losses as pure functions of weights and mixing, and one optimizer step ahead.

    min over mixing of  outer(w*(mixing), mixing)   with   w*(mixing) = argmin over w of inner(w, mixing)

`inner` is the loss on the training half, `outer` on the validation half (DARTS, Liu et al. 2019, eq. 3-4). A solver knows nothing of
networks, relaxations or architectures: weights and mixing are tuples of tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Loss = Callable[[Tensors, Tensors], Tensor]


@dataclass(frozen=True)
class Lookahead:
    """One step of SGD with momentum and weight decay, as a pure function: `torch.optim.SGD` with dampening 0 and without Nesterov.

    w' = w - learning_rate (momentum * velocity + g + weight_decay * w)     (DARTS, eq. 6, with the optimizer that is really used)
    """

    learning_rate: Tensor  # 0-d
    momentum: float
    weight_decay: float
    velocity: Tensors  # the optimizer's momentum buffers, in the order of the weights

    def __call__(self, weights: Tensors, gradients: Tensors) -> Tensors:
        """The weights after one step along `gradients`, all moved together in a few kernels; differentiable in both."""
        steps = torch._foreach_mul(self.velocity, self.momentum)
        steps = torch._foreach_add(steps, gradients)
        steps = torch._foreach_add(steps, torch._foreach_mul(weights, self.weight_decay))
        return tuple(torch._foreach_sub(weights, torch._foreach_mul(steps, self.learning_rate)))


@dataclass(frozen=True)
class Bilevel:
    """One mini-batch of the bilevel problem, at the current weights and mixing (both detached)."""

    inner: Loss
    outer: Loss
    probe: Loss  # `inner` in float32: finite differences drown in less (eps is about 0.01 / ||v||)
    weights: Tensors
    mixing: Tensors
    lookahead: Lookahead


def requiring_gradients(tensors: Tensors) -> Tensors:
    """Copies without history whose gradients are recorded; they share the memory of `tensors`."""
    return tuple(tensor.detach().requires_grad_() for tensor in tensors)


def gradients(loss: Tensor, inputs: Tensors, *, create_graph: bool = False) -> Tensors:
    """d loss / d inputs; zeros where the loss does not depend on an input (a column of `none`, a cell that is not reached)."""
    if not loss.requires_grad:  # it depends on none of them: every drawn operation is `none`
        return tuple(torch.zeros_like(one) for one in inputs)
    return torch.autograd.grad(loss, inputs, create_graph=create_graph, materialize_grads=True)
