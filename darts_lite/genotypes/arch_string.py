"""Form in which NAS-Bench-201 names its cells, both ways (no torch): the operations into each node, each with the state that it reads.

|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|
"""

import re

from darts_lite.errors import UserError
from darts_lite.genotypes.genotype import Genotype, from_plain
from darts_lite.genotypes.schema import FORMAT, SPACE_RULES

SPACE = "nasbench201"
EXAMPLE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"
MOST_CHARACTERS = 400  # the longest is 111 long


def looks_like_arch(value: str) -> bool:
    """Whether a text is meant as a cell of NAS-Bench-201, rather than as a name or a path."""
    return re.match(r"\s*\|\s*\w+~\d", value) is not None


def parse_arch(text: str, key: object = "genotype") -> Genotype:
    """Genotype that an arch string names. Raises UserError."""
    nodes = "".join(text.split()).split("+") if len(text) <= MOST_CHARACTERS else []
    edges = []
    for target, node in enumerate(nodes, 1):
        inner = node[1:-1].split("|")
        pairs = [pair.partition("~") for pair in inner]
        if node[:1] != "|" or node[-1:] != "|" or [source for _, _, source in pairs] != [str(i) for i in range(target)]:
            break
        edges += [{"operation": name, "source": i, "target": target} for i, (name, _, _) in enumerate(pairs)]
    if len(edges) != len(SPACE_RULES[SPACE].edges or ()) or len(nodes) != edges[-1]["target"]:
        raise UserError(key, "is no cell of NAS-Bench-201", f"write it as {EXAMPLE}", value=text.strip())
    cell = {"edges": edges, "concat": [len(nodes)]}
    return from_plain({"format": FORMAT, "space": SPACE, "cells": {"cell": cell}, "choices": {}}, key)


def to_arch(genotype: Genotype) -> str:
    """Arch string of a genotype of the space `nasbench201`."""
    cell = genotype.cells["cell"]
    nodes = [
        "|".join(f"{edge.operation}~{edge.source}" for edge in cell.into(node))
        for node in range(genotype.inputs, cell.last + 1)
    ]
    return "+".join(f"|{node}|" for node in nodes)
