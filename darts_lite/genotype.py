"""The result of a search as pure data: two small directed graphs of named operations (no torch here).

A cell has the states 0 and 1 (outputs of the two cells before it) and the nodes 2, 3, ...; an edge carries a state
through an operation into a later node, a node is the sum of its edges, and the cell's output concatenates the nodes of
`concat`. Two text forms are read, and nothing in them is ever evaluated or imported: JSON (`genotype.json`, canonical:
equal architectures are equal text) and the form that the field prints,

    Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))

in which node i owns the pairs 2i and 2i + 1. Whichever way a genotype is made, `genotype_schema.validate` checks it.
"""

import ast
import collections
import errno
import functools
import json
import os
import random
import re
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from darts_lite.errors import Exit, UserError, all_of, choice
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

PUBLISHED = ("darts_v1", "darts_v2", "pc_darts", "p_darts", "snas", "gdas_v1", "drnas")

MOST_BYTES = 1_000_000  # of a file
MOST_CHARACTERS = 65_536  # of the field's form: a syntax tree takes some hundred times the memory of its text
DEEPEST = 8  # brackets inside each other; a genotype needs 5


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


def looks_like_text(value: str) -> bool:
    """Whether a text is meant as a genotype in the field's form, rather than as a name or path."""
    return re.search(r"\bGenotype\s*\(", value) is not None or re.match(r"\s*(normal|reduce)\w*\s*=", value) is not None


def parse_text(text: str, key: object = "genotype") -> Genotype:
    """The genotype in the field's form; `Genotype(` ... `)` and a name assigned to may be missing. Raises UserError."""
    _refuse_deep(text, key)
    if len(text) > MOST_CHARACTERS:
        raise UserError(key, f"is text of {len(text):,} characters", f"give at most {MOST_CHARACTERS:,}, or JSON")
    match = re.match(r"\s*(?:\w+\s*=\s*)?Genotype\s*\(", text)
    source = f"Genotype({text[match.end() :].strip()}" if match else f"Genotype({text.strip()}\n)"
    try:
        with warnings.catch_warnings(action="ignore"):  # of invalid escapes
            call = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _not_the_form(key, text.strip()[:60], getattr(error, "msg", "too complex")) from None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args):
        raise _not_the_form(key, text.strip()[:60], "no call of Genotype with named arguments")
    values: dict[str | None, Any] = {}
    for keyword in call.keywords:
        if keyword.arg in values:
            raise UserError(f"{key} {keyword.arg}", "is given twice", "leave one of them out")
        values[keyword.arg] = _literal(keyword.value, source, key)
    names = CELLS["darts"]
    problem = all_of(key_problems(values, [part for name in names for part in (name, f"{name}_concat")], f"{key} "))
    if problem:
        raise problem
    cells = {}
    for name in names:
        cells[name] = {"edges": _pairs(values[name], f"{key} {name}"), "concat": values[f"{name}_concat"]}
    return from_plain({"format": FORMAT, "space": "darts", "cells": cells, "choices": {}}, key)


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
    json_form = text.lstrip()[:1] in ("{", "[", "") and not looks_like_text(text)
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


def _literal(node: ast.expr, source: str, key: object) -> Any:
    """Strings, integers, lists, tuples and `range(a, b)` as data; anything else is refused, nothing is called."""
    match node:
        case ast.Constant(value=str() | int() as value):
            return value
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_literal(part, source, key) for part in parts]
        case ast.Call(func=ast.Name(id="range"), args=[ast.Constant(first), ast.Constant(last)], keywords=[]):
            if type(first) is type(last) is int and 0 <= first < last <= INPUTS + MOST_NODES:
                return list(range(first, last))
    text = (ast.get_source_segment(source, node) or "")[:60]  # not ast.unparse: it recurses
    raise _not_the_form(key, text, "only strings, integers, lists, pairs and range(2, 6) may stand here")


def _pairs(value: Any, at: str) -> list[dict[str, Any]]:
    """Pairs (operation, source), two a node, as edges."""
    if type(value) is not list or len(value) % 2 or any(type(pair) is not list or len(pair) != 2 for pair in value):
        raise UserError(at, "must be pairs (operation, source), two a node", "list them in pairs", value=value)
    return [
        {"operation": operation, "source": source, "target": INPUTS + index // 2}
        for index, (operation, source) in enumerate(value)
    ]


def _not_the_form(key: object, text: str, reason: str) -> UserError:
    form = "Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=...)"
    return UserError(key, f"is not a genotype ({reason})", f"write {form} or JSON", value=text)
