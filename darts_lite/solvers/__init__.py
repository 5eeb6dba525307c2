"""Solvers: the derivative of the validation loss with respect to the mixing.

A solver is called with a `Bilevel` and returns (outer loss, d outer / d mixing) without side effects. `precise` says that it must run
without TF32.
"""

from darts_lite.solvers.first_order import FirstOrder
from darts_lite.solvers.unrolled import Unrolled
from darts_lite.solvers.unrolled_exact import UnrolledExact

SOLVERS = {
    "first_order": FirstOrder,
    "unrolled": Unrolled,
    "unrolled_exact": UnrolledExact,
}
