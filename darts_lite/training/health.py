"""Finiteness, kept on the device: after the first non-finite number no update moves anything, and no step waits for the answer.

Both tensors are written in place, and numbers reach the device as arguments of kernels, not as tensors: a CUDA graph can hold every check.
"""

import torch
from torch import Tensor

from darts_lite.errors import Exit, UserError

# What can be not finite: (whose step, term, what to lower). The device notes the number of the row, counted from 1.
TERMS = (
    ("alphas", "validation loss", "alpha_lr or lr"),
    ("alphas", "penalty", "alpha_lr"),
    ("alphas", "gradient", "alpha_lr or lr"),
    ("weights", "training loss", "lr"),
    ("weights", "gradient", "lr"),
    ("weights", "BatchNorm variance", "lr"),
)


class Health:
    """First step and term that was not finite."""

    def __init__(self, device: torch.device):
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.term = torch.zeros((), dtype=torch.int64, device=device)  # 0 while all is well

    @property
    def bad(self) -> Tensor:
        """0-d float32: 1 once a number was not finite, else 0."""
        return (self.term > 0).float()

    def check(self, whose: str, term: str, step: Tensor, *values: Tensor) -> None:
        """Note `term` and `step` (0-d) if one of `values` holds a number that is not finite and none was met before."""
        number = 1 + [row[:2] for row in TERMS].index((whose, term))
        for value in values:
            first = ~value.isfinite().all() & (self.term == 0)
            self.step.copy_(torch.where(first, step, self.step))
            self.term.masked_fill_(first, number)

    def raise_if_bad(self) -> None:
        """End the run with exit 5 if something was not finite. Waits for the device."""
        number, step = torch.stack([self.term, self.step]).tolist()
        if number:
            whose, term, lower = TERMS[number - 1]
            raise not_finite(whose, f"the {term}", step, lower)


def not_finite(whose: str, what: str, step: int, lower: str) -> UserError:
    """The error that ends a run for numeric reasons."""
    return UserError(
        whose,
        f"{what} is not finite at step {step}; the newest checkpoint is from before it and would end the same way",
        f"start anew with another run_dir and a lower {lower}",
        code=Exit.NUMERIC,
    )
