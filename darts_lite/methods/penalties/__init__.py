"""Penalties: terms of the outer loss on the architecture itself, called with an `ArchitectureView` and returning a scalar.

None is needed by plain DARTS, whose L2 penalty on alpha is Adam's weight decay; the table is filled by later methods.
"""

PENALTIES: dict = {}
