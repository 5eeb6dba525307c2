"""The discretization gap: what a supernet loses when its mixing becomes the derived cell, on images of the validation part.

At the end of a search only: two forward passes over at most 2,000 images are under 2 % of an epoch (six passes over the images of each
half) from 33,000 images a half on, which CIFAR-10 does not have.
"""

from typing import Any

import torch

from darts_lite.data.parts import Order
from darts_lite.genotypes.genotype import Cell
from darts_lite.hardware.precision import computing, lowered
from darts_lite.methods.seams import Mixed
from darts_lite.seeds import derive
from darts_lite.spaces.table import Mixing, Table, projection
from darts_lite.training.search_state import SearchState

MOST_IMAGES = 2000


def projected(tables: dict[str, Table], cells: dict[str, Cell]) -> Mixed | None:
    """Mixing (E, O) of each cell type that computes these derived cells: 1 for what was picked, 0 elsewhere.

    None where a picked operation is no live candidate.
    """
    try:
        return projection(cells, tables)
    except ValueError:
        return None


@torch.no_grad()
def discretization_gap(state: SearchState, cells: dict[str, Cell]) -> dict[str, Any] | None:
    """{"mixture": accuracy, "derived": accuracy, "images": number}, with batch statistics on the same shuffled batches; None: no such cell.

    Batches have the size of those of the training; weights and running statistics stay as they are.
    """
    cell = projected(state.architecture.tables, cells)
    if cell is None:
        return None
    assert state.validation is not None
    mixture, part, size = state.architecture.expected(state.clock.progress), state.validation, state.config.batch_size
    order = Order(len(part), size, derive(state.config.seed, "gap"), part.order_device)
    arriving, batches = part.follow(order, 0), max(1, min(MOST_IMAGES, len(part)) // size)
    supernet, hits = lowered(state.supernet, state.precision), {"mixture": 0, "derived": 0}
    compared = {"mixture": mixture, "derived": {name: _moved(one, state.alpha_lr) for name, one in cell.items()}}
    for number in range(batches):
        pixels, labels = part.pick(next(arriving))
        images = part.preparation.normalized(pixels)
        for name, mixing in compared.items():
            generator = torch.Generator(state.device).manual_seed(derive(state.config.seed, "gap", number))
            with computing(state.device, state.precision):  # in training mode: statistics of the batch
                logits = supernet(images, mixing, draws=state.supernet.draw(generator, len(images)))
            hits[name] += int((logits.argmax(dim=1) == labels).sum())
    return {name: right / (batches * size) for name, right in hits.items()} | {"images": batches * size}


def _moved(mixing: Mixing, like: torch.Tensor) -> Mixing:
    """The mixing on the device and in the type of `like`."""
    return Mixing(mixing.operations.to(like), None if mixing.edges is None else mixing.edges.to(like))
