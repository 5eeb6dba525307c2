"""Relaxations: logits -> mixing.

A relaxation has `sample(logits, table, progress, generator)`, differentiable, with the noise of one step, and
`expected(logits, table, progress)`, noise-free; both map (E, O) to (E, O) and give exactly 0 to dead candidates.
`sparse = True` says that only the drawn operations run, which the host has to know: no CUDA graph is made of such steps.
`learns = False` says that the logits do not matter: no step of theirs is made, and what would learn with them is refused.
"""

from darts_lite.methods.relaxations.dirichlet import Dirichlet
from darts_lite.methods.relaxations.gumbel import Gumbel
from darts_lite.methods.relaxations.identity_softmax import IdentitySoftmax
from darts_lite.methods.relaxations.softmax import Softmax
from darts_lite.methods.relaxations.uniform_path import UniformPath

RELAXATIONS = {
    "softmax": Softmax,
    "identity_softmax": IdentitySoftmax,
    "dirichlet": Dirichlet,
    "gumbel": Gumbel,
    "uniform_path": UniformPath,
}
