"""Solvers: the derivative of the validation loss with respect to the mixing.

A solver is called with a `Bilevel` and returns (outer loss, d outer / d mixing) without side effects. `needs_float32` says that it must run
without TF32. One that waits for the device or decides on the host what it computes has to say `capturable = False`; then no CUDA graph is
made of a step (hardware/graph.py). The same holds for perturbations, regularizations and penalties.
"""

from darts_lite.methods.solvers.first_order import FirstOrder
from darts_lite.methods.solvers.unrolled import Unrolled
from darts_lite.methods.solvers.unrolled_exact import UnrolledExact

SOLVERS = {
    "first_order": FirstOrder,
    "unrolled": Unrolled,
    "unrolled_exact": UnrolledExact,
}
