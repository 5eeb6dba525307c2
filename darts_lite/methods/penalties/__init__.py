"""Penalties: terms of the outer loss on the architecture itself, called with an `ArchitectureView` and returning a scalar.

None is needed by plain DARTS, whose L2 penalty on alpha is Adam's weight decay.
"""

from darts_lite.methods.penalties.beta_decay import BetaDecay

PENALTIES = {"beta_decay": BetaDecay}
