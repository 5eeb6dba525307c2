"""The result of a search as pure data: two small directed graphs of named operations (no torch here).

A cell has the states 0 and 1 (outputs of the two cells before it) and the nodes 2, 3, ...; an edge carries a state
through an operation into a later node, a node is the sum of its edges, and the cell's output concatenates the nodes of
`concat`. Two text forms are read, and nothing in them is ever evaluated or imported: JSON (`genotype.json`, canonical:
equal architectures are equal text) and the form that the field prints (see `genotype_text`),

    Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))

in which node i owns the pairs 2i and 2i + 1, or the list i of pairs; or edges are triples (operation, target, source). There `none` is no
edge, while JSON leaves the edge out. Whichever way a genotype is made, `genotype_schema.validate` checks it.
"""

import collections
import errno
import functools
import json
import os
import random
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from darts_lite.errors import Exit, UserError, all_of, choice, did_you_mean
from darts_lite.genotype_schema import (  # OPERATION_NAMES is for those who import this module
    CELLS,
    FORMAT,
    INPUTS,
    MOST_NODES,
    OPERATION_NAMES,  # noqa: F401
    OPERATIONS,
    key_problems,
    validate,
)
from darts_lite.genotype_text import DEEPEST, definitions, looks_like_text

PUBLISHED = ("darts_v1", "darts_v2", "pc_darts", "p_darts", "snas", "gdas_v1", "drnas")

MOST_BYTES = 1_000_000  # of a file


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
    def nodes(self) -> int:
        """Number of intermediate nodes; they are the states 2 ... nodes + 1."""
        return max(*self.concat, *(edge.target for edge in self.edges)) - INPUTS + 1

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
        object.__setattr__(self, "cells", {name: _canonical(plain["cells"][name]) for name in CELLS[self.space]})
        object.__setattr__(self, "choices", plain["choices"])

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
    return Genotype(data["space"], data["cells"], data["choices"])


def to_text(genotype: Genotype) -> str | None:
    """The field's form of the genotype on one line, or None unless each node has exactly two edges."""
    parts = []
    for name, cell in genotype.cells.items():
        if any(len(cell.into(node)) != 2 for node in range(INPUTS, INPUTS + cell.nodes)):
            return None
        first, last = cell.concat[0], cell.concat[-1] + 1
        contiguous = cell.concat == tuple(range(first, last))
        pairs = [(edge.operation, edge.source) for edge in cell.edges]
        parts += [f"{name}={pairs}", f"{name}_concat={f'range({first}, {last})' if contiguous else list(cell.concat)}"]
    return f"Genotype({', '.join(parts)})"


def parse_text(text: str, key: object = "genotype") -> Genotype:
    """The genotype in the field's form, as `genotype_text` reads it. Raises UserError.

    Of several different ones in a text that which its last line names is meant, as in `DARTS = DARTS_V2`; a name that the text does not
    define may be that of a published one.
    """
    found, alias = definitions(text, key)
    if alias is not None:
        named = [one for one in found if one.name == alias.target]
        if not named and alias.target.lower() in published_table():
            return published(alias.target.lower())
        if not named:
            names = [*(one.name for one in found if one.name), *PUBLISHED]
            fix = f"{did_you_mean(alias.target, names)}define it in the text"
            raise UserError(key, "ends with a name that it does not define", fix, value=alias.target)
        found = named[-1:]
    genotypes = [_from_arguments(one.arguments, key) for one in found]
    if any(genotype != genotypes[0] for genotype in genotypes):
        listed = ", ".join(one.name or f"line {one.line}" for one in found)
        raise UserError(key, f"holds {len(found)} different genotypes ({listed})", "keep one of them")
    return genotypes[0]


def read(path: str | os.PathLike[str]) -> Genotype:
    """The genotype in a regular file of at most 1 MB, in either form. Raises UserError that names the file."""
    fix = "give a genotype.json or a text file with Genotype(...)"
    try:
        # O_NONBLOCK: opening a pipe must not wait for its writer. O_NOFOLLOW: not a symbolic link.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(path, "is not a regular file", fix)
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        number = getattr(error, "errno", errno.EINVAL)
        if number == errno.ELOOP:
            raise UserError(path, "is a symbolic link, not a regular file", "give the file that it points to") from None
        known = number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO)
        code = Exit.CONFIGURATION if known else Exit.ENVIRONMENT
        raise UserError(path, f"cannot be read ({os.strerror(number)})", fix, code=code) from None
    if len(content) > MOST_BYTES:
        raise UserError(path, f"is larger than {MOST_BYTES:,} bytes, too large for a genotype", fix)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(path, f"is not UTF-8 text (byte {error.start})", fix) from None
    first = text.lstrip()[:1]  # a line of a log may begin with a bracket, too
    json_form = first in ("{", "") or (first == "[" and not looks_like_text(text))
    return (from_result if json_form else parse_text)(text, os.fspath(path))


def random_genotype(nodes: int, candidates: Sequence[str], rng: random.Random) -> Genotype:
    """Two edges from distinct states into each node, operations uniform over `candidates` without `none`."""
    operations = [name for name in candidates if name != "none"]
    unknown = [name for name in operations if name not in OPERATIONS["darts"]]
    if unknown:
        raise choice("space.candidates", unknown[0], OPERATIONS["darts"])
    if not operations:
        raise UserError("space.candidates", "has no operation", "name one besides none", value=list(candidates))
    if not 1 <= nodes <= MOST_NODES:
        raise UserError("space.nodes", f"must be 1 to {MOST_NODES}", "4 is usual", value=nodes)

    def cell() -> Cell:
        edges = [
            Edge(rng.choice(operations), source, node)
            for node in range(INPUTS, INPUTS + nodes)
            for source in sorted(rng.sample(range(node), 2))
        ]
        return Cell(tuple(edges), tuple(range(INPUTS, INPUTS + nodes)))

    return Genotype("darts", {name: cell() for name in CELLS["darts"]})


@functools.cache
def published_table() -> dict[str, dict[str, Any]]:
    """name -> text form, CIFAR-10 test error and its std (%), parameters, sources; the file says how counted."""
    return json.loads(Path(__file__).with_name("published_genotypes.json").read_text(encoding="utf-8"))["genotypes"]


def published(name: str) -> Genotype:
    """The genotype of a paper, by a name of PUBLISHED."""
    if name not in PUBLISHED:
        raise choice("genotype", name, PUBLISHED)
    return parse_text(published_table()[name]["genotype"])


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


def _refuse_deep(text: str, key: object) -> None:
    """Before any parser recurses. Brackets in strings count too: no name in a genotype has one."""
    depth = 0
    for match in re.finditer(r"[\[({\])}]", text):
        depth += 1 if match[0] in "[({" else -1
        if depth > DEEPEST:
            raise UserError(key, f"is nested deeper than {DEEPEST} levels", "give a genotype as darts_lite writes it")


def _json(text: str, key: object) -> Any:
    _refuse_deep(text, key)
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


def _from_arguments(values: dict[str, Any], key: object) -> Genotype:
    """The genotype of the named arguments of a `Genotype(...)`."""
    names = CELLS["darts"]
    problem = all_of(key_problems(values, [part for name in names for part in (name, f"{name}_concat")], f"{key} "))
    if problem:
        raise problem
    cells = {}
    for name in names:
        cells[name] = {"edges": _edges(values[name], f"{key} {name}"), "concat": values[f"{name}_concat"]}
    data = {"format": FORMAT, "space": "darts", "cells": cells, "choices": {}}
    validate(data, key, none=True)
    for cell in cells.values():
        cell["edges"] = [edge for edge in cell["edges"] if edge["operation"] != "none"]
    return from_plain(data, key)


def _edges(value: Any, at: str) -> list[dict[str, Any]]:
    """Edges of pairs (operation, source), two a node or a list for each node, or of triples (operation, target, source)."""
    sizes = {len(part) for part in value if type(part) is list} if type(value) is list else set()
    lists = type(value) is list and all(type(part) is list for part in value)
    if lists and value and all(type(pair) is list for part in value for pair in part):
        triples = [(*pair, INPUTS + node) for node, part in enumerate(value) for pair in part]
        even = all(len(triple) == 3 for triple in triples)
    elif lists and sizes == {3}:
        triples, even = [(operation, source, target) for operation, target, source in value], True
    else:
        even = lists and sizes <= {2} and len(value) % 2 == 0
        triples = [(*pair, INPUTS + index // 2) for index, pair in enumerate(value)] if even else []
    if not even:
        reason = "must be pairs (operation, source), two a node or a list for each node, or triples (operation, target, source)"
        raise UserError(at, reason, "list them so", value=value)
    return [{"operation": operation, "source": source, "target": target} for operation, source, target in triples]
