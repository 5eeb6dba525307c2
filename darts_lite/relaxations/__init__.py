"""Relaxations: logits -> mixing.

A relaxation has `sample(logits, table, progress, generator)`, differentiable, with the noise of one step, and
`expected(logits, table, progress)`, noise-free; both map (E, O) to (E, O) and give exactly 0 to dead candidates.
"""

from darts_lite.relaxations.softmax import Softmax

RELAXATIONS = {"softmax": Softmax}
