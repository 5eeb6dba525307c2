"""Whether stored tensors are those of a network, found out before any memory is taken for it.

A checkpoint may come from anywhere, and a few bytes of description can ask for any number of cells and channels. So the network is
bounded by the tensors that are there: it is made on `meta`, where nothing is computed or allocated, and compared by names and shapes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

LEAST = 6  # tensors of a cell of DARTS without any edge: both inputs have a convolution and two running statistics
FREE = 100  # cells that a configuration may ask for anyway; those of NAS-Bench-201 may have no tensor at all


def check_fit(build: Callable[[], nn.Module], cells: int, tensors: Any) -> None:
    """ValueError unless `tensors` (by name) are those of the network that `build()` makes, which has as many cells as `cells`."""
    if type(tensors) is not dict or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError("the weights are no tensors")
    if len(tensors) < LEAST * (cells - FREE):  # a cell takes milliseconds, also on `meta`
        raise ValueError(f"{len(tensors)} tensors are too few for {cells} cells")
    # One storage under many names would make a small file a large network.
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    if sum(tensor.nbytes for tensor in tensors.values()) > sum(storages.values()):
        raise ValueError("some weights share their memory")
    try:
        with torch.device("meta"):
            wanted = {name: _kind(tensor) for name, tensor in build().state_dict().items()}
    except (ArithmeticError, RuntimeError, TypeError) as error:  # of sizes that no tensor can have
        raise ValueError("its sizes are impossible") from error
    found = {name: _kind(tensor) for name, tensor in tensors.items()}
    if wanted != found:
        name = min((name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)), key=str)
        raise ValueError(f"{name} is {_words(found.get(name))}, and in the network {_words(wanted.get(name))}")


def _kind(tensor: Tensor) -> tuple[tuple[int, ...], bool]:
    return tuple(tensor.shape), tensor.is_floating_point()


def _words(kind: tuple[tuple[int, ...], bool] | None) -> str:
    if kind is None:
        return "missing"
    shape, floating = kind
    return f"{'x'.join(map(str, shape)) or 'a scalar'}{'' if floating else ' of whole numbers'}"
