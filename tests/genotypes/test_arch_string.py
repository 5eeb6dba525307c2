"""Arch strings of NAS-Bench-201, both ways, and what is no cell of it."""

import itertools
import json

import pytest

from darts_lite.errors import UserError
from darts_lite.genotypes.arch_string import EXAMPLE, looks_like_arch, parse_arch, to_arch
from darts_lite.genotypes.find import find_genotype
from darts_lite.genotypes.genotype import Cell, Edge, Genotype, from_json, to_json
from darts_lite.genotypes.schema import SPACE_RULES

EMPTY = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def found(text):
    return find_genotype(text, lambda: None)


def test_by_hand():
    assert found(EXAMPLE) == Genotype(
        "nasbench201",
        {
            "cell": Cell(
                (
                    Edge("nor_conv_3x3", 0, 1),
                    Edge("none", 0, 2),
                    Edge("skip_connect", 1, 2),
                    Edge("none", 0, 3),
                    Edge("none", 1, 3),
                    Edge("avg_pool_3x3", 2, 3),
                ),
                (3,),
            )
        },
    )


def test_every_cell_is_its_own_text():
    names, texts = SPACE_RULES["nasbench201"].operations, set()
    for a, b, c, d, e, f in itertools.product(names, repeat=6):
        text = f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        if len(texts) % 97 == 0:  # of 15,625, some
            assert to_arch(parse_arch(text)) == text and from_json(to_json(parse_arch(text))) == parse_arch(text)
        texts.add(text)
    assert len(texts) == 15_625


def test_files_hold_them(tmp_path):
    path = tmp_path / "cell.txt"
    path.write_text(f"\n {EMPTY}\n")
    assert found(str(path)) == found(EMPTY)
    path.write_text(to_json(found(EMPTY)))
    assert found(str(path)) == found(EMPTY)
    assert json.loads(path.read_text())["cells"]["cell"]["concat"] == [3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (EXAMPLE[:-1], "is no cell of NAS-Bench-201, got"),
        (EXAMPLE.replace("|none~0|none~1|avg", "|none~1|none~0|avg"), "is no cell of NAS-Bench-201"),
        (EXAMPLE + "+|none~0|none~1|none~2|none~3|", "is no cell of NAS-Bench-201"),
        ("|none~0|", "is no cell of NAS-Bench-201"),
        ("|none~0|" * 100_000, "is no cell of NAS-Bench-201"),
        (
            EXAMPLE.replace("nor_conv_3x3", "nor_conv_5x5"),
            r"operation: unknown name, got 'nor_conv_5x5'.* nor_conv_3x3",
        ),
    ],
)
def test_what_is_none(text, said):
    assert looks_like_arch(text)
    with pytest.raises(UserError, match=said) as caught:
        found(text)
    assert caught.value.code == 2 and all(len(str(one)) <= 380 for one in caught.value.problems)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"edges": [Edge("none", 0, 1)]}, r"edges: must be 6, one each of 0->1, 0->2, 1->2, 0->3, 1->3, 2->3"),
        ({"edges": [Edge("none", 0, 1)] * 6}, "edges: must be 6"),
        ({"concat": (2, 3)}, r"concat: must be \[3\], got \[2, 3\]"),
    ],
)
def test_a_cell_has_all_six_edges_and_one_output(change, said):
    cell = found(EMPTY).cells["cell"]
    with pytest.raises(UserError, match=said):
        Genotype(
            "nasbench201", {"cell": Cell(tuple(change.get("edges", cell.edges)), change.get("concat", cell.concat))}
        )
