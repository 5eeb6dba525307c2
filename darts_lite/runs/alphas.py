"""The record of an architecture: one line of alphas.jsonl an epoch, from which every genotype can be derived again.

{"epoch": 3, "step": 66, "mixing": {"normal": {"operations": [[0.12, null, ...], ...], "edges": null}, "reduce": ...}}

`operations` is the expected mixing (E, O); null stands for a candidate that is out of the race.
"""

import math
from dataclasses import replace
from typing import Any

import torch

from darts_lite.methods.architecture import Architecture
from darts_lite.spaces.table import Mixing, Table


@torch.no_grad()
def to_record(architecture: Architecture, progress: torch.Tensor, *, epoch: int, step: int) -> dict[str, Any]:
    """One line of alphas.jsonl: the expected mixing after `step` steps, which end `epoch`."""
    mixing = {}
    for cell, one in architecture.expected(progress).items():
        alive = architecture.tables[cell].alive.tolist()
        rows = [
            [weight if live else None for weight, live in zip(*row, strict=True)]
            for row in zip(one.operations.tolist(), alive, strict=True)
        ]
        mixing[cell] = {"operations": rows, "edges": None if one.edges is None else one.edges.tolist()}
    return {"epoch": epoch, "step": step, "mixing": mixing}


def from_record(record: dict[str, Any], tables: dict[str, Table]) -> tuple[dict[str, Table], dict[str, Mixing]]:
    """Tables with the record's candidates, and its mixing. ValueError when it does not fit `tables`: it may come from anywhere."""
    mixing, alive_tables = {}, {}
    if not isinstance(record.get("mixing"), dict) or set(record["mixing"]) != set(tables):
        raise ValueError("it does not have the cell types of the space")
    for cell, table in tables.items():
        one = record["mixing"][cell]
        rows, edges = (one.get("operations"), one.get("edges")) if isinstance(one, dict) else (None, None)
        shape = len(table.edges), len(table.operations)
        if (
            not isinstance(rows, list)
            or len(rows) != shape[0]
            or not all(_numbers(row, shape[1], True) for row in rows)
        ):
            raise ValueError(f"the mixing of {cell} is not {shape[0]} x {shape[1]} numbers or null")
        if edges is not None and not _numbers(edges, shape[0], False):
            raise ValueError(f"the edge weights of {cell} are not {shape[0]} numbers")
        alive = torch.tensor([[weight is not None for weight in row] for row in rows])
        weights = torch.tensor([[weight or 0.0 for weight in row] for row in rows], dtype=torch.float64)
        alive_tables[cell] = replace(table, alive=alive)
        mixing[cell] = Mixing(weights, None if edges is None else torch.tensor(edges, dtype=torch.float64))
    return alive_tables, mixing


def _numbers(row: Any, length: int, with_null: bool) -> bool:
    if not isinstance(row, list) or len(row) != length:
        return False
    return all((with_null and x is None) or (type(x) in (int, float) and math.isfinite(x)) for x in row)
