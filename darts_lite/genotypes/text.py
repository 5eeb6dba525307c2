"""The form in which the field prints genotypes, as a genotype, and the published ones, which are stored in that form.

Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

from darts_lite.errors import UserError, all_of, choice, did_you_mean
from darts_lite.genotypes.genotype import Genotype, from_plain
from darts_lite.genotypes.schema import FORMAT, SPACE_RULES, key_problems, validate
from darts_lite.genotypes.syntax import definitions

RULES = SPACE_RULES["darts"]  # the field's form is that of the DARTS space
INPUTS = RULES.inputs
PUBLISHED = ("darts_v1", "darts_v2", "pc_darts", "p_darts", "snas", "gdas_v1", "drnas")


def looks_like_text(value: str) -> bool:
    """Whether a text is meant as a genotype in the field's form, rather than as a name or a path."""
    pattern = r"\bGenotype\s*\(|^\s*(normal|reduce)(_concat)?\s*=|^\s*\w+\s*=\s*[\w.]+\s*$"
    return re.search(pattern, value) is not None


def parse_text(text: str, key: object = "genotype") -> Genotype:
    """The genotype in the field's form, as `genotype_text` reads it. Raises UserError.

    Of several different ones in a text that which its last line names is meant, as in `DARTS = DARTS_V2`; a name that the text does not
    define may be that of a published one.
    """
    found, alias = definitions(text, key)
    if alias is not None:
        named = [one for one in found if one.name == alias]
        if not named and alias.lower() in published_table():
            return published(alias.lower())
        if not named:
            names = [*(one.name for one in found if one.name), *PUBLISHED]
            fix = f"{did_you_mean(alias, names)}define it in the text"
            raise UserError(key, "ends with a name that it does not define", fix, value=alias)
        found = named[-1:]
    genotypes = [_from_arguments(one.arguments, key) for one in found]
    if any(genotype != genotypes[0] for genotype in genotypes):
        listed = ", ".join(one.name or f"line {one.line}" for one in found)
        raise UserError(key, f"holds {len(found)} different genotypes ({listed})", "keep one of them")
    return genotypes[0]


def to_text(genotype: Genotype) -> str | None:
    """The field's form of the genotype on one line, or None unless it is of the DARTS space and each node has exactly two edges."""
    if genotype.space != "darts":
        return None
    parts = []
    for name, cell in genotype.cells.items():
        if any(len(cell.into(node)) != 2 for node in range(INPUTS, cell.last + 1)):
            return None
        first, last = cell.concat[0], cell.concat[-1] + 1
        contiguous = cell.concat == tuple(range(first, last))
        pairs = [(edge.operation, edge.source) for edge in cell.edges]
        parts += [f"{name}={pairs}", f"{name}_concat={f'range({first}, {last})' if contiguous else list(cell.concat)}"]
    return f"Genotype({', '.join(parts)})"


@functools.cache
def published_table() -> dict[str, dict[str, Any]]:
    """name -> text form, CIFAR-10 test error and its std (%), parameters, sources; the file says how counted."""
    return json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))["genotypes"]


def published(name: str) -> Genotype:
    """The genotype of a paper, by a name of PUBLISHED."""
    if name not in PUBLISHED:
        raise choice("genotype", name, PUBLISHED)
    return parse_text(published_table()[name]["genotype"])


def _from_arguments(values: dict[str, Any], key: object) -> Genotype:
    """The genotype of the named arguments of a `Genotype(...)`."""
    names = RULES.cells
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
