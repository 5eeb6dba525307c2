"""Rules of the genotypes of each space, checked in one place on plain dicts and lists, whoever made them (no torch)."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
    "noise",
)


@dataclass(frozen=True)
class SpaceRules:
    """Rules of the genotypes of one space."""

    cells: tuple[str, ...]  # cell types
    inputs: int  # states of a cell before its first node
    operations: tuple[str, ...]  # what an edge can carry; without `none`, that is the absence of an edge
    least_edges: int = 1  # 0: a cell may be empty
    # Where a cell has just these, each once; the last node is the output.
    edges: tuple[tuple[int, int], ...] | None = None


SPACE_RULES = {
    "darts": SpaceRules(("normal", "reduce"), 2, OPERATION_NAMES[1:]),
    # By target, then source, as edges of a genotype are ordered.
    "nasbench201": SpaceRules(
        ("cell",),
        1,
        ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"),
        edges=((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)),
    ),
}

FORMAT = 1
MOST_NODES = 16
MOST_EDGES = 1368  # all nine usual operations on all 152 edges of a cell of 16 nodes and two inputs
MOST_PROBLEMS = 10  # reported at once
DEEPEST = 8  # brackets inside each other; a genotype needs 5


def validate(data: object, key: object = "genotype", *, none: bool = False) -> None:
    """Raise UserError, listing up to ten problems, unless `data` is a genotype as `genotype.to_plain` gives it.

    `none`: an edge of any space may also carry that, as long as `data` is not a genotype yet.
    """
    problem = all_of(itertools.islice(_problems(data, f"{key} ", none), MOST_PROBLEMS))
    if problem:
        raise problem


def _problems(data: Any, at: str, none: bool) -> Iterator[UserError]:
    yield from key_problems(data, ("format", "space", "cells", "choices"), at)
    if not isinstance(data, dict) or "space" not in data:
        return
    if "format" in data and (type(data["format"]) is not int or data["format"] != FORMAT):
        yield UserError(f"{at}format", f"must be {FORMAT}", "write it with this version", value=data["format"])
    space = data["space"]
    if type(space) is not str or space not in SPACE_RULES:
        yield choice(f"{at}space", space, SPACE_RULES)
        return
    rules = SPACE_RULES[space]
    rules = replace(rules, operations=(*rules.operations, "none")) if none else rules
    if "choices" in data and (type(data["choices"]) is not dict or data["choices"]):
        yield UserError(f"{at}choices", f"must be {{}} in space {space}", "empty it", value=data["choices"])
    cells = data.get("cells", {})
    if "cells" in data:
        yield from key_problems(cells, rules.cells, f"{at}cells.")
    for name in rules.cells:
        if isinstance(cells, dict) and name in cells:
            yield from _cell_problems(cells[name], rules, f"{at}cells.{name}.")


def _cell_problems(cell: Any, rules: SpaceRules, at: str) -> Iterator[UserError]:
    yield from key_problems(cell, ("edges", "concat"), at)
    if not isinstance(cell, dict):
        return
    lengths = {"edges": (rules.least_edges, MOST_EDGES), "concat": (1, MOST_NODES)}
    lists = {name: cell[name] for name in lengths if name in cell}
    for name, value in list(lists.items()):
        least, most = lengths[name]
        if type(value) is not list or not least <= len(value) <= most:
            yield UserError(f"{at}{name}", f"must be a list of {least} to {most}", "list them", value=value)
            del lists[name]
    first, last = rules.inputs, rules.inputs + MOST_NODES - 1
    for index, edge in enumerate(lists.get("edges", [])):
        here = f"{at}edges[{index}]."
        yield from key_problems(edge, ("operation", "source", "target"), here)
        if not isinstance(edge, dict):
            continue
        operation, source, target = edge.get("operation"), edge.get("source"), edge.get("target")
        if "operation" in edge and (type(operation) is not str or operation not in rules.operations):
            yield choice(f"{here}operation", operation, rules.operations)
        if type(target) is int and first <= target <= last:
            top = target
        else:
            top = last
            if "target" in edge:
                yield UserError(f"{here}target", "must be a node", f"an integer, {first} to {last}", value=target)
        if "source" in edge and (type(source) is not int or not 0 <= source < top):
            fix = f"an integer, 0 to {top - 1}: nodes see earlier states only"
            yield UserError(f"{here}source", f"must be a state before node {top}", fix, value=source)
    concat = lists.get("concat", [])
    for index, node in enumerate(concat):
        if type(node) is not int or not first <= node <= last:
            yield UserError(f"{at}concat[{index}]", "must be a node", f"an integer, {first} to {last}", value=node)
        elif node in concat[:index]:
            yield UserError(f"{at}concat[{index}]", "repeats a node", "name each node once", value=node)
    if rules.edges is not None and len(lists) == 2:
        yield from _whole_problems(lists["edges"], concat, rules.edges, at)


def _whole_problems(
    edges: list[Any], concat: list[Any], wanted: tuple[tuple[int, int], ...], at: str
) -> Iterator[UserError]:
    """Problems of a cell whose edges and output its space prescribes."""
    ends = [repr((edge.get("source"), edge.get("target"))) for edge in edges if isinstance(edge, dict)]
    if sorted(ends) != sorted(map(repr, wanted)):  # as text: what is there may be anything
        listed = ", ".join(f"{source}->{target}" for source, target in wanted)
        yield UserError(
            f"{at}edges", f"must be {len(wanted)}, one each of {listed}", "give none where there is no operation"
        )
    if concat != [wanted[-1][1]]:
        yield UserError(f"{at}concat", f"must be [{wanted[-1][1]}]", "the last node is the output", value=concat)


def refuse_deep(text: str, key: object) -> None:
    """Raise UserError where brackets nest too deeply, before any parser recurses. Brackets in strings count, too: no name has one."""
    depth = 0
    for match in re.finditer(r"[\[({\])}]", text):
        depth = max(0, depth + (1 if match[0] in "[({" else -1))
        if depth > DEEPEST:
            raise UserError(key, f"is nested deeper than {DEEPEST} levels", "give a genotype as darts_lite writes it")


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
