"""The discretization gap: what a supernet loses when its mixing becomes the derived cell, on images of the validation part.

At the end of a search only: two forward passes over at most 2,000 images are under 2 % of an epoch (six passes over the images of each
half) from 33,000 images a half on, which CIFAR-10 does not have.
"""

from typing import Any

import torch

from darts_lite.genotypes.genotype import Cell
from darts_lite.methods.seams import Mixed
from darts_lite.spaces.table import Table, projection
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

    Weights and running statistics stay as they are.
    """
    cell = projected(state.architecture.tables, cells)
    if cell is None:
        return None
    mixture, derived = (
        state.scores(mixing, MOST_IMAGES, batch_statistics=True)
        for mixing in (state.architecture.expected(state.clock.progress), cell)
    )
    return {"mixture": mixture["accuracy"], "derived": derived["accuracy"], "images": mixture["samples"]}
