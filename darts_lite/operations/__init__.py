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
    shared: Callable[[int], bool]  # of the stride; see `candidates`


OPERATIONS = {
    "max_pool_3x3": Candidate(partial(Pool, "max"), Pool.shared),
    "avg_pool_3x3": Candidate(partial(Pool, "avg"), Pool.shared),
    "skip_connect": Candidate(SkipConnect, SkipConnect.shared),
    "sep_conv_3x3": Candidate(partial(SeparableConvolution, 3), SeparableConvolution.shared),
    "sep_conv_5x5": Candidate(partial(SeparableConvolution, 5), SeparableConvolution.shared),
    "dil_conv_3x3": Candidate(partial(DilatedConvolution, 3), DilatedConvolution.shared),
    "dil_conv_5x5": Candidate(partial(DilatedConvolution, 5), DilatedConvolution.shared),
    NOISE: Candidate(Noise, Noise.shared),  # of S4; a search has it among its candidates only where it is told to
    # Of NASNet-A and AmoebaNet-A; a search has them among its candidates only where it is told to.
    "sep_conv_7x7": Candidate(partial(SeparableConvolution, 7), SeparableConvolution.shared),
    "conv_7x1_1x7": Candidate(partial(CrossedConvolution, 7), CrossedConvolution.shared),
}
