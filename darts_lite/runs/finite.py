"""Whether all numbers of a training are finite: the one check before anything of it is recorded or saved."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from darts_lite.training.health import not_finite

# Part of a training's state -> (whose, what to lower). Buffers of the weights' optimizer lie in `weights`.
STATE = {
    "weights": ("weights", "lr"),
    "architecture": ("alphas", "alpha_lr"),
    "alpha_optimizer": ("alphas", "alpha_lr"),
}


def check_finite(state: Any, values: Mapping[str, float] | None = None) -> None:
    """End a run with exit 5 at what is not finite: noted in a step, among measured `values`, or (None) a tensor of the state.

    Waits for the device. The tensors are many, so they are looked at before a checkpoint and after an epoch only; `values` are
    looked at too, because the loss of an evaluation is in no step.
    """
    state.health.raise_if_bad()
    step = state.clock.done
    for name, value in (values or {}).items():
        if not math.isfinite(value):
            whose, lower = STATE["architecture" if name.endswith("/alphas") else "weights"]
            raise not_finite(whose, name, step, lower)
    stored = state.state_dict() if values is None else {}
    for part, (whose, lower) in STATE.items():
        finite = [tensor.isfinite().all() for tensor in _tensors(stored.get(part, {}))]
        if finite and not torch.stack(finite).all():
            raise not_finite(whose, f"a number of the {whose}", step, lower)


def _tensors(tree: Any) -> Iterator[Tensor]:
    """Every tensor in nested dictionaries."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for branch in tree.values():
            yield from _tensors(branch)
