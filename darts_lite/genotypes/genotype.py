"""The result of a search as pure data: a small directed graph of named operations for each cell type (no torch here).

A cell has states: first its inputs, then its nodes. An edge carries a state through an operation into a later node, a node is the sum of
its edges, and the cell's output concatenates the nodes of `concat`. How many inputs there are, and what an edge may carry, is the space's
own rule (schema.py); whichever way a genotype is made, `schema.validate` checks it. `genotype.json` is canonical: equal architectures are
equal text. The form that the field prints is read, too (text.py).
"""

import collections
import functools
import json
import re
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from darts_lite.errors import UserError
from darts_lite.genotypes.schema import FORMAT, SPACE_RULES, refuse_deep, validate


@dataclass(frozen=True)
class Edge:
    """State `source` enters node `target` through `operation`."""

    operation: str
    source: int
    target: int


@dataclass(frozen=True)
class Cell:
    """The edges of one cell type, and the nodes whose concatenation is its output."""

    edges: tuple[Edge, ...]
    concat: tuple[int, ...]

    @property
    def last(self) -> int:
        """The last node that occurs; states are counted from 0, inputs first."""
        return max((*self.concat, *(edge.target for edge in self.edges)))

    def into(self, node: int) -> tuple[Edge, ...]:
        """The edges that end in state `node`, in canonical order; a node may have none."""
        return tuple(edge for edge in self.edges if edge.target == node)


@dataclass(frozen=True)
class Genotype:
    """One architecture: its space, a cell for each cell type, and further choices of the space (darts has none).

    Edges are kept ordered by (target, source, operation) and `concat` ascending, so equal architectures compare equal.
    Raises UserError when something is wrong with it.
    """

    space: str
    cells: dict[str, Cell]
    choices: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain = to_plain(self)
        validate(plain)
        self._take(plain)

    def _take(self, plain: dict[str, Any]) -> None:
        """Fill a genotype from valid plain data, in canonical order."""
        space = plain["space"]
        cells = {name: _canonical(plain["cells"][name]) for name in SPACE_RULES[space].cells}
        for name, value in (("space", space), ("cells", cells), ("choices", dict(plain["choices"]))):
            object.__setattr__(self, name, value)

    @property
    def inputs(self) -> int:
        """Number of inputs of a cell; they are the states before the first node."""
        return SPACE_RULES[self.space].inputs

    def __hash__(self) -> int:
        return hash(to_json(self))


def to_plain(genotype: Genotype) -> dict[str, Any]:
    """The genotype as the dicts and lists of `genotype.json`."""
    return {"format": FORMAT, **_plain(genotype)}


def to_json(genotype: Genotype) -> str:
    """Canonical JSON, one edge a line, ending in a newline."""
    text = json.dumps(to_plain(genotype), indent=2)
    # An object or list without inner ones goes on one line: shorter by 80 lines, and a changed edge is a changed line.
    innermost = r"([\[{])\s+([^\[\]{}]*?)\s+([\]}])"
    return re.sub(innermost, lambda match: match[1] + re.sub(r"\s+", " ", match[2]) + match[3], text) + "\n"


def from_json(text: str, key: object = "genotype") -> Genotype:
    """The genotype in `text`; `key` names its origin in errors (UserError, exit code 2)."""
    return from_plain(_json(text, key), key)


def from_result(text: str, key: object = "genotype") -> Genotype:
    """The genotype in the JSON of a genotype, or of a run's result, which has it under the key `genotype`."""
    data = _json(text, key)
    if not isinstance(data, dict) or "genotype" not in data or "cells" in data:
        return from_plain(data, key)
    if data["genotype"] is None:
        fix = "give the folder of one of them"
        raise UserError(f"{key} genotype", "is null: the runs have different genotypes", fix)
    return from_plain(data["genotype"], f"{key} genotype")


def from_plain(data: Any, key: object = "genotype") -> Genotype:
    """The genotype in dicts and lists of `genotype.json`."""
    validate(data, key)
    genotype = object.__new__(Genotype)  # not through __post_init__, which would validate it again
    genotype._take(data)
    return genotype


def _canonical(cell: dict[str, Any]) -> Cell:
    edges = [Edge(**edge) for edge in cell["edges"]]
    edges.sort(key=lambda edge: (edge.target, edge.source, edge.operation))
    return Cell(tuple(edges), tuple(sorted(cell["concat"])))


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (tuple, list)) else value


def _json(text: str, key: object) -> Any:
    refuse_deep(text, key)
    try:
        return json.loads(text, object_pairs_hook=functools.partial(_distinct, key), parse_constant=_not_a_number(key))
    except (ValueError, RecursionError) as error:
        raise UserError(key, f"is not JSON ({error})", "give a genotype.json as darts_lite writes it") from None


def _distinct(key: object, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        twice = collections.Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise UserError(key, "has a duplicate key", "leave one of them out", value=twice)
    return data


def _not_a_number(key: object) -> Any:
    def refuse(name: str) -> None:
        raise UserError(key, "has a value that is not JSON", "write an integer", value=name)

    return refuse
