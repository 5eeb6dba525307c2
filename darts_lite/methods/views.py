"""What parts of a method may look at; dictionaries are by cell type, R rows (edges) and O operations."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.table import Mixing, Table


class Judge(Protocol):
    """Mixing -> (accuracy, loss) of the supernet on the validation part, or on about so many `images` of it."""

    def __call__(self, mixing: dict[str, Mixing], images: int | None = None) -> tuple[float, float]: ...


@dataclass(frozen=True)
class OperationCosts:
    """Costs of each candidate in the final network, summed over the cells of a type."""

    parameters: Tensor  # (R, O), trainable numbers
    macs: Tensor  # (R, O), multiply-accumulates an image


@dataclass(frozen=True)
class ArchitectureView:
    """An architecture in the middle of a step, as penalties see it."""

    logits: dict[str, Tensor]  # (R, O)
    mixing: dict[str, Tensor]  # (R, O), this step's sample, differentiable
    expected: dict[str, Tensor]  # (R, O), noise-free
    tables: dict[str, Table]
    costs: dict[str, OperationCosts]
    progress: Tensor  # 0-d


@dataclass(frozen=True)
class SelectionView:
    """An architecture at the end of an epoch, as selections see it."""

    space: str  # name
    tables: dict[str, Table]
    mixing: dict[str, Mixing]  # expected
    costs: dict[str, OperationCosts]
    maker: Any = None  # the space itself, which draws and changes genotypes; None: the view is for rules only
    seed: int = 0  # of the search, for what is drawn


def costs_of(
    space: Any, tables: dict[str, Table], skeleton: Skeleton, device: torch.device | str = "cpu"
) -> dict[str, OperationCosts]:
    """Costs of every candidate of every table of a space, in a network of this skeleton."""

    def tensor(rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.get_default_dtype(), device=device)

    return {
        cell: OperationCosts(
            tensor([[one.parameters for one in row] for row in rows]),
            tensor([[one.macs for one in row] for row in rows]),
        )
        for cell, rows in space.costs(tables, skeleton).items()
    }
