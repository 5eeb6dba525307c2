"""Alpha optimizers: (logits, configuration) -> the optimizer that moves them.

It is a `torch.optim.Optimizer` with one parameter group, whose learning rate is a 0-d tensor that each step writes into, and whose step
moves nothing where its attribute `found_inf` (0-d) is 1, as fused optimizers of torch do. Its state is made at once: a checkpoint finds its
places, and a CUDA graph cannot capture a first step.
"""

from darts_lite.methods.alpha_optimizers.adam import Adam
from darts_lite.methods.alpha_optimizers.sgd import Sgd

ALPHA_OPTIMIZERS = {"adam": Adam, "sgd": Sgd}
