"""Form in which NAS-Bench-201 names its cells, both ways (no torch): the operations into each node, each with the state that it reads.

|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|
"""

import re
from collections.abc import Sequence

from darts_lite.errors import UserError
from darts_lite.genotypes.genotype import Genotype, from_plain
from darts_lite.genotypes.schema import FORMAT, SPACE_RULES

SPACE = "nasbench201"
OPERATIONS, EDGES = SPACE_RULES[SPACE].operations, SPACE_RULES[SPACE].edges or ()
EXAMPLE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"
MOST_CHARACTERS = 400  # the longest is 111 long


def looks_like_arch(value: str) -> bool:
    """Whether a text is meant as a cell of NAS-Bench-201, rather than as a name or a path."""
    return re.match(r"\s*\|\s*\w+~\d", value) is not None


def arch_operations(text: str) -> list[str]:
    """Names of the operations in an arch string, by target and source as edges of a genotype are ordered; empty for what is none."""
    nodes = "".join(text.split()).split("+") if len(text) <= MOST_CHARACTERS else []
    names = []
    for target, node in enumerate(nodes, 1):
        pairs = [pair.partition("~") for pair in node[1:-1].split("|")]
        if node[:1] != "|" or node[-1:] != "|" or [source for _, _, source in pairs] != [str(i) for i in range(target)]:
            return []
        names += [name for name, _, _ in pairs]
    return names if len(names) == len(EDGES) else []


def parse_arch(text: str, key: object = "genotype") -> Genotype:
    """Genotype that an arch string names. Raises UserError."""
    names = arch_operations(text)
    if not names:
        raise UserError(key, "is no cell of NAS-Bench-201", f"write it as {EXAMPLE}", value=text.strip())
    edges = [
        {"operation": name, "source": source, "target": target}
        for name, (source, target) in zip(names, EDGES, strict=True)
    ]
    cell = {"edges": edges, "concat": [EDGES[-1][1]]}
    return from_plain({"format": FORMAT, "space": SPACE, "cells": {"cell": cell}, "choices": {}}, key)


def to_arch(genotype: Genotype) -> str:
    """Arch string of a genotype of the space `nasbench201`."""
    return arch_of([edge.operation for edge in genotype.cells["cell"].edges])


def arch_of(names: Sequence[str]) -> str:
    """Arch string of six operations, in the order of `arch_operations`."""
    pairs = [f"{name}~{source}" for name, (source, _) in zip(names, EDGES, strict=True)]
    nodes = range(1, EDGES[-1][1] + 1)
    return "+".join(
        "|" + "|".join(pairs[i] for i, (_, target) in enumerate(EDGES) if target == node) + "|" for node in nodes
    )
