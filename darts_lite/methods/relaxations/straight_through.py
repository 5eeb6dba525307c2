"""Values of one tensor with the gradient of another: the straight-through estimator (Bengio et al. 2013)."""

from torch import Tensor


def straight_through(values: Tensor, gradient: Tensor) -> Tensor:
    """Exactly `values`, whose derivative is that of `gradient` (both of one shape)."""
    return values.detach() + (gradient - gradient.detach())  # + 0, to the bit: zeros stay zeros, and are not computed
