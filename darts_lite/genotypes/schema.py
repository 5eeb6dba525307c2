"""What a genotype is: its invariants, checked in one place on plain dicts and lists, whoever made them (no torch)."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from darts_lite.errors import UserError, all_of, choice, did_you_mean

OPERATION_NAMES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "sep_conv_7x7",
    "conv_7x1_1x7",
)
CELLS = {"darts": ("normal", "reduce")}  # space -> the cell types of its genotypes
OPERATIONS = {"darts": OPERATION_NAMES[1:]}  # space -> what an edge can carry; `none` is the absence of an edge

FORMAT = 1
INPUTS = 2  # states before the first node: the outputs of the two cells before this one
MOST_NODES = 16
MOST_EDGES = 1368  # all nine operations on all 152 edges of a cell of 16 nodes
MOST_PROBLEMS = 10  # reported at once


def validate(data: object, key: object = "genotype", *, none: bool = False) -> None:
    """Raise UserError, listing up to ten problems, unless `data` is a genotype as `genotype.to_plain` gives it.

    `none`: an edge may also carry that, as long as it is not a genotype yet.
    """
    problem = all_of(itertools.islice(_problems(data, f"{key} ", ("none",) if none else ()), MOST_PROBLEMS))
    if problem:
        raise problem


def _problems(data: Any, at: str, further: tuple[str, ...]) -> Iterator[UserError]:
    yield from key_problems(data, ("format", "space", "cells", "choices"), at)
    if not isinstance(data, dict) or "space" not in data:
        return
    if "format" in data and (type(data["format"]) is not int or data["format"] != FORMAT):
        yield UserError(f"{at}format", f"must be {FORMAT}", "write it with this version", value=data["format"])
    space = data["space"]
    if type(space) is not str or space not in CELLS:
        yield choice(f"{at}space", space, CELLS)
        return
    if "choices" in data and (type(data["choices"]) is not dict or data["choices"]):
        yield UserError(f"{at}choices", f"must be {{}} in space {space}", "empty it", value=data["choices"])
    cells = data.get("cells", {})
    if "cells" in data:
        yield from key_problems(cells, CELLS[space], f"{at}cells.")
    for name in CELLS[space]:
        if isinstance(cells, dict) and name in cells:
            yield from _cell_problems(cells[name], (*OPERATIONS[space], *further), f"{at}cells.{name}.")


def _cell_problems(cell: Any, operations: Sequence[str], at: str) -> Iterator[UserError]:
    yield from key_problems(cell, ("edges", "concat"), at)
    if not isinstance(cell, dict):
        return
    lengths = {"edges": MOST_EDGES, "concat": MOST_NODES}
    lists = {name: cell[name] for name in lengths if name in cell}
    for name, value in list(lists.items()):
        if type(value) is not list or not 1 <= len(value) <= lengths[name]:
            yield UserError(f"{at}{name}", f"must be a list of 1 to {lengths[name]}", "list them", value=value)
            del lists[name]
    last = INPUTS + MOST_NODES - 1
    for index, edge in enumerate(lists.get("edges", [])):
        here = f"{at}edges[{index}]."
        yield from key_problems(edge, ("operation", "source", "target"), here)
        if not isinstance(edge, dict):
            continue
        operation, source, target = edge.get("operation"), edge.get("source"), edge.get("target")
        if "operation" in edge and (type(operation) is not str or operation not in operations):
            yield choice(f"{here}operation", operation, operations)
        if type(target) is int and INPUTS <= target <= last:
            top = target
        else:
            top = last
            if "target" in edge:
                yield UserError(f"{here}target", "must be a node", f"an integer, {INPUTS} to {last}", value=target)
        if "source" in edge and (type(source) is not int or not 0 <= source < top):
            fix = f"an integer, 0 to {top - 1}: nodes see earlier states only"
            yield UserError(f"{here}source", f"must be a state before node {top}", fix, value=source)
    concat = lists.get("concat", [])
    for index, node in enumerate(concat):
        if type(node) is not int or not INPUTS <= node <= last:
            yield UserError(f"{at}concat[{index}]", "must be a node", f"an integer, {INPUTS} to {last}", value=node)
        elif node in concat[:index]:
            yield UserError(f"{at}concat[{index}]", "repeats a node", "name each node once", value=node)


def key_problems(data: object, names: Sequence[str], at: str) -> Iterator[UserError]:
    """One problem for each unknown and each missing key of the closed object `data`; `at` is the path before a key."""
    if not isinstance(data, dict):
        yield UserError(at.rstrip(". "), "must be an object", f"give the keys {', '.join(names)}", value=data)
        return
    for name in data:
        if name not in names:
            hint = did_you_mean(name, names) or "remove it; "
            yield UserError(f"{at}{str(name)[:40]}", "unknown key", f"{hint}the keys are {', '.join(names)}")
    for name in names:
        if name not in data:
            yield UserError(f"{at}{name}", "is missing", "add it")
