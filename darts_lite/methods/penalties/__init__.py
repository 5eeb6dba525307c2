"""Penalties: terms of the outer loss on the architecture itself, called with an `ArchitectureView` and returning a scalar.

None is needed by plain DARTS, whose L2 penalty on alpha is Adam's weight decay; the table is filled by later methods.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ArchitectureView:
    """What a penalty may look at; dictionaries are by cell type."""

    logits: dict[str, Tensor]  # (E, O)
    mixing: dict[str, Tensor]  # (E, O), this step's sample, differentiable
    expected: dict[str, Tensor]  # (E, O), noise-free
    progress: Tensor  # 0-d


PENALTIES: dict = {}
