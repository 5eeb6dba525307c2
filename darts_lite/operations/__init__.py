"""Candidate operations: name -> how to build it, as `build(channels, stride, copies, form, activation)`, and whether edges share it.

`none` has no entry: nothing is computed for it, it only takes its share of the softmax.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from darts_lite.operations.candidates import (
    CrossedConvolution,
    DilatedConvolution,
    Noise,
    Pool,
    SeparableConvolution,
    SkipConnect,
)

NONE = "none"
NOISE = "noise"


@dataclass(frozen=True)
class Candidate:
    """One row of the table."""

    build: Callable[..., nn.Module]
    shared_strides: tuple[int, ...] = ()  # where it has no weights and no numbers of its own

    def shared(self, stride: int) -> bool:
        """Whether the output is the same on every edge out of a state: one copy a state is enough, called without `scale`."""
        return stride in self.shared_strides


OPERATIONS = {
    "max_pool_3x3": Candidate(partial(Pool, "max"), (1, 2)),
    "avg_pool_3x3": Candidate(partial(Pool, "avg"), (1, 2)),
    "skip_connect": Candidate(SkipConnect, (1,)),
    "sep_conv_3x3": Candidate(partial(SeparableConvolution, 3)),
    "sep_conv_5x5": Candidate(partial(SeparableConvolution, 5)),
    "dil_conv_3x3": Candidate(partial(DilatedConvolution, 3)),
    "dil_conv_5x5": Candidate(partial(DilatedConvolution, 5)),
    NOISE: Candidate(Noise),  # of S4; a search has it among its candidates only where it is told to
    # Of NASNet-A and AmoebaNet-A; a search has them among its candidates only where it is told to.
    "sep_conv_7x7": Candidate(partial(SeparableConvolution, 7)),
    "conv_7x1_1x7": Candidate(partial(CrossedConvolution, 7)),
}
