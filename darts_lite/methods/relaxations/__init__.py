"""Relaxations: logits -> mixing.

A relaxation has `sample(logits, table, progress, generator)`, differentiable, with the noise of one step, and
`expected(logits, table, progress)`, noise-free; both map (E, O) to (E, O) and give exactly 0 to dead candidates.
`sparse = True` says that only the drawn operations run, which the host has to know: no CUDA graph is made of such steps.
"""

from darts_lite.methods.relaxations.softmax import Softmax

RELAXATIONS = {"softmax": Softmax}
