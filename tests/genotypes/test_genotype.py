"""Genotypes: both text forms round trip, equal architectures are equal text, hostile files are refused in one line."""

import json
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from darts_lite.errors import LINE_LIMIT, Exit, UserError
from darts_lite.genotypes import genotype as genotype_module
from darts_lite.genotypes.find import MOST_BYTES, read
from darts_lite.genotypes.genotype import (
    Cell,
    Edge,
    Genotype,
    from_json,
    from_plain,
    to_json,
    to_plain,
)
from darts_lite.genotypes.schema import OPERATION_NAMES
from darts_lite.genotypes.text import PUBLISHED, parse_text, published, published_table, to_text


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    nodes = draw(st.integers(1, 16))
    operations = st.sampled_from(OPERATION_NAMES[1:])
    edge = st.integers(2, nodes + 1).flatmap(
        lambda target: st.builds(Edge, operations, st.integers(0, target - 1), st.just(target))
    )
    edges = draw(st.lists(edge, min_size=1, max_size=40))
    concat = draw(st.lists(st.integers(2, nodes + 1), min_size=1, unique=True))
    return Cell(tuple(edges), tuple(concat))


genotypes = st.builds(lambda normal, reduce: Genotype("darts", {"normal": normal, "reduce": reduce}), cells(), cells())


@given(genotypes)
def test_json_round_trip_is_exact(genotype: Genotype):
    text = to_json(genotype)
    assert from_json(text) == genotype
    assert to_json(from_json(text)) == text
    assert json.loads(text) == to_plain(genotype)
    assert hash(from_json(text)) == hash(genotype)


@given(genotypes, st.randoms(use_true_random=False))
def test_equal_architectures_are_equal_text(genotype: Genotype, rng: random.Random):
    def shuffled(cell: Cell) -> Cell:
        return Cell(*(tuple(rng.sample(part, len(part))) for part in (cell.edges, cell.concat)))

    names = list(genotype.cells)
    rng.shuffle(names)
    other = Genotype("darts", {name: shuffled(genotype.cells[name]) for name in names})
    assert to_json(other) == to_json(genotype)


@given(st.integers(1, 16), st.integers(0, 2**32))
def test_text_round_trip_where_each_node_has_two_edges(nodes: int, seed: int):
    genotype = tiny.random_genotype(nodes, OPERATION_NAMES, random.Random(seed))
    text = to_text(genotype)
    assert text is not None
    assert parse_text(text) == genotype
    spread = text.replace("(", "(\n ").replace(",", " ,\n")
    assert parse_text(spread) == genotype
    for cell in genotype.cells.values():
        assert cell.last == nodes + 1
        for node in range(2, nodes + 2):
            first, second = cell.into(node)
            assert first.source != second.source
    assert tiny.random_genotype(nodes, OPERATION_NAMES, random.Random(seed)) == genotype


def test_random_operations_are_uniform():
    rng, operations = random.Random(0), OPERATION_NAMES
    draws = [tiny.random_genotype(4, operations, rng) for _ in range(700)]
    names = [edge.operation for genotype in draws for cell in genotype.cells.values() for edge in cell.edges]
    for name in operations[1:]:
        assert names.count(name) == pytest.approx(
            11_200 / 10, rel=0.1
        )  # 11,200 draws; the deviation of one count is 32
    assert "none" not in names


def test_no_text_form_for_other_cells():
    one = Cell((Edge("skip_connect", 0, 2),), (2,))
    assert to_text(Genotype("darts", {"normal": one, "reduce": one})) is None


BY_NODE = "[[(u'sep_conv_3x3', 1), ('skip_connect', 0)],\n\t [ ( 'max_pool_3x3' ,2), (\"dil_\nconv_5x5\", 0), ], ]"
TRIPLES = "[('dil_conv_5x5', 3, 0), ('skip_connect', 2, 0), ('sep_conv_3x3', 2, 1), ('max_pool_3x3', 3, 2)]"
WITH_NONE = BY_NODE.replace("0)],", "0), ('none', 1)],")
PAIRS = "[('sep_conv_3x3', 1), ('skip_connect', 0), ('max_pool_3x3', 2), ('dil_conv_5x5', 0)]"


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(normal={p}, normal_concat=range(2, 4), reduce={p}, reduce_concat=[2, 3])",
        "Genotype(reduce={p}, reduce_concat=[3, 2], normal={p}, normal_concat=(2, 3))",
        "normal={p}, normal_concat=range(2, 4), reduce={p}, reduce_concat=range(2, 4)",
        "Genotype(normal={n}, normal_concat=range(2, 4), reduce={n}, reduce_concat=range(2, 4))",
        "Genotype(normal={n}, normal_concat=range(2, 4), reduce={t}, reduce_concat=range(2, 4))",
        "Genotype(normal={none}, normal_concat=list(range(2, 4)), reduce={t}, reduce_concat=[np.int64(2), np.int64(3)])",
        "03/12 10:22:33 PM genotype = {g}",
        "2019-03-12 10:22:33,123 genotype = {g}\n",
        "[2019-03-12T10:22:33.5+01:00] INFO:root: Best genotype: {g}",
        "epoch 49 train 97.2 % - genotype = genotypes.Genotype{a}\n",
        "found = {g};",
        "genotypes . Genotype\n\n{a}",
        "DARTS_V2=\n{g}\nDARTS = DARTS_V2",
        "OTHER = {o}\nMINE = {g}\n\nDARTS = genotypes.MINE  # the better one\n",
        "OTHER = {g}\nMINE = {g}\n",
        "from genotypes import Genotype\n{g}",
        "from collections import namedtuple\n\nGenotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')\n\n"
        'PRIMITIVES = [\n    \'none\',  # no edge\n    \'sep_conv_3x3\'\n]\n\n"""Found [in] (May)"""\nMINE = {g}\n',
        "import genotypes as g, os\nfrom a.b import (c, Genotype)\nfrom d import *\nx = g.Genotype{a}",
        "# Genotype(normal=[('none', 0) it's\n{g}  # ) that was it",
        "normal={p},\nnormal_concat=range(2, 4),\nreduce={p},\nreduce_concat=range(2, 4),  # found today\n",
        "MINE = Genotype(\n    normal={p},\n    normal_concat=[2, 3],\n    reduce={p},\n    reduce_concat=[2, 3],\n)\n",
    ],
)
def test_accepted_text_forms(text: str):
    form = "(normal={p}, normal_concat=range(2, 4), reduce={p}, reduce_concat=range(2, 4))".replace("{p}", PAIRS)
    other = form.replace("range(2, 4)", "[3]")
    text = text.format(p=PAIRS, n=BY_NODE, t=TRIPLES, none=WITH_NONE, a=form, g=f"Genotype{form}", o=f"Genotype{other}")
    genotype = parse_text(text)
    edges = genotype.cells["normal"].edges
    assert edges == (
        Edge("skip_connect", 0, 2),
        Edge("sep_conv_3x3", 1, 2),
        Edge("dil_conv_5x5", 0, 3),
        Edge("max_pool_3x3", 2, 3),
    )
    assert genotype.cells["reduce"] == genotype.cells["normal"]
    assert genotype.cells["normal"].concat == (2, 3)


def test_a_name_alone_may_be_that_of_a_published_genotype():
    assert parse_text("DARTS = DARTS_V2\n") == published("darts_v2")
    assert parse_text("from x import PC_DARTS\nbest = genotypes.PC_DARTS") == published("pc_darts")


def test_none_is_no_edge():
    text = TEXT.format(n="[('none', 0), ('skip_connect', 1), ('none', 0), ('none', 2)]", c="[2, 3]", p=PAIRS)
    assert parse_text(text).cells["normal"] == Cell((Edge("skip_connect", 1, 2),), (2, 3))


@given(genotypes, st.randoms(use_true_random=False))
def test_triples_say_every_genotype(genotype: Genotype, rng: random.Random):
    parts = []
    for name, cell in genotype.cells.items():
        triples = [(edge.operation, edge.target, edge.source) for edge in cell.edges]
        parts.append(f"{name}={rng.sample(triples, len(triples))}, {name}_concat={cell.concat}")
    assert parse_text(f"Genotype({', '.join(parts)})") == genotype


@given(st.text(st.sampled_from("Genotype(normal=[]),'\" 0\n#.:-\\x"), max_size=60))
def test_whatever_stands_there_is_refused_in_a_line(text: str):
    with pytest.raises(UserError) as caught:
        parse_text(text)
    assert len(str(caught.value)) <= LINE_LIMIT and caught.value.code is Exit.CONFIGURATION


def test_published_table():
    assert tuple(published_table()) == PUBLISHED
    for name, row in published_table().items():
        genotype = published(name)
        assert [cell.last for cell in genotype.cells.values()] == [5, 5]
        assert all(len(cell.into(node)) == 2 for cell in genotype.cells.values() for node in range(2, 6))
        assert 2 < row["test_error"] < 4 and 2_500_000 < row["parameters"] < 4_200_000
        assert row["paper"] and row["repository"] and len(row["commit"]) == 40
    assert published("darts_v2").cells["normal"].into(5) == (Edge("skip_connect", 0, 5), Edge("dil_conv_3x3", 2, 5))
    with pytest.raises(UserError, match="did you mean 'darts_v2'"):
        published("darts_v3")


def test_files_of_both_forms(tmp_path: Path):
    genotype = published("pc_darts")
    for number, text in enumerate((to_json(genotype), f"\n{to_text(genotype)}\n", "\ufeff" + to_json(genotype))):
        path = tmp_path / f"größe {number}"
        path.write_text(text, encoding="utf-8")
        assert read(path) == genotype


def test_a_genotype_is_validated_once_on_each_read(monkeypatch: pytest.MonkeyPatch):
    known, calls, validate = published("darts_v2"), [], genotype_module.validate
    monkeypatch.setattr(genotype_module, "validate", lambda *all, **named: (calls.append(1), validate(*all, **named)))
    read_again = [from_json(to_json(known)), from_plain(to_plain(known))]
    assert len(calls) == 2 and read_again == [known, known] and to_json(read_again[1]) == to_json(known)


def test_python_values_meet_the_same_checks():
    edge = Edge("skip_connect", 0, 2)
    with pytest.raises(UserError) as caught:
        Genotype("darts", {"normal": Cell((Edge("none", True, 2),), (2, 2)), "rduce": Cell((edge,), (2,))})
    lines = [str(problem) for problem in caught.value.problems]
    words = ["cells.rduce", "cells.reduce: is missing", "operation", "source", "concat[1]: repeats"]
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))
    assert "did you mean 'reduce'" in lines[0]
    for wrong in (None, [], {"normal": edge}, {"normal": None, "reduce": 3}):
        with pytest.raises(UserError):
            Genotype("darts", wrong)  # type: ignore[arg-type]
    for nodes, candidates in ((4, ["none"]), (4, ["skip"])):
        with pytest.raises(UserError, match="space"):
            tiny.random_genotype(nodes, candidates, random.Random(0))


def plain() -> dict:
    return to_plain(published("darts_v2"))


def changed(path: str, value: object) -> str:
    """The JSON of a good genotype with the value at a path like cells.normal.edges.0 replaced, or removed (...)."""
    data = plain()
    *front, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = data
    for part in front:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(data)


EDGE = "cells.normal.edges.3"
TEXT = "Genotype(normal={n}, normal_concat={c}, reduce={p}, reduce_concat=range(2, 4))"


def field(normal: str = PAIRS, concat: str = "range(2, 4)") -> str:
    return TEXT.format(n=normal, c=concat, p=PAIRS)


# name: (content of the file, what the error line must contain)
HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "unknown operation": (changed(f"{EDGE}.operation", "sep_conv_3x4"), "edges[3].operation: unknown name, got 'sep_"),
    "nearest operation": (changed(f"{EDGE}.operation", "sep_conv_3x4"), "did you mean 'sep_conv_3x3'"),
    "none": (changed(f"{EDGE}.operation", "none"), "edges[3].operation: unknown name, got 'none'"),
    "operation list": (changed(f"{EDGE}.operation", ["skip_connect"]), "edges[3].operation"),
    "operation null": (changed(f"{EDGE}.operation", None), "got None"),
    "later node": (changed(f"{EDGE}.source", 4), "edges[3].source: must be a state before node 3, got 4"),
    "itself": (changed(f"{EDGE}.source", 3), "edges[3].source"),
    "negative source": (changed(f"{EDGE}.source", -1), "got -1"),
    "boolean": (changed(f"{EDGE}.source", True), "edges[3].source: must be a state before node 3, got True"),
    "float": (changed(f"{EDGE}.source", 1.0), "got 1.0"),
    "overflow": (changed(f"{EDGE}.source", 1).replace('"source": 1', '"source": 1e999'), "got inf"),
    "NaN": (changed(f"{EDGE}.source", float("nan")), "not JSON, got 'NaN'"),
    "Infinity": (changed(f"{EDGE}.source", float("-inf")), "not JSON, got '-Infinity'"),
    "text for number": (changed(f"{EDGE}.target", "3"), "edges[3].target: must be a node, got '3'"),
    "target input": (changed(f"{EDGE}.target", 1), "edges[3].target"),
    "target far": (changed(f"{EDGE}.target", 18), "an integer, 2 to 17"),
    "target huge": (changed(f"{EDGE}.target", 10**30), "edges[3].target"),
    "edge key": (changed(f"{EDGE}.stride", 2), "edges[3].stride: unknown key"),
    "edge key missing": (changed(f"{EDGE}.source", ...), "edges[3].source: is missing"),
    "edge list": (changed(EDGE, ["skip_connect", 0]), "edges[3]: must be an object"),
    "no edges": (changed("cells.normal.edges", []), "cells.normal.edges: must be a list of 1 to 1368"),
    "many edges": (changed("cells.normal.edges", [plain()["cells"]["normal"]["edges"][0]] * 1369), "1 to 1368"),
    "empty concat": (changed("cells.reduce.concat", []), "cells.reduce.concat: must be a list of 1 to 16"),
    "concat input": (changed("cells.reduce.concat.0", 1), "concat[0]: must be a node, got 1"),
    "concat twice": (changed("cells.reduce.concat.0", 3), "concat[1]: repeats a node, got 3"),
    "concat boolean": (changed("cells.reduce.concat.0", True), "concat[0]: must be a node, got True"),
    "concat object": (changed("cells.reduce.concat", {"2": 3}), "cells.reduce.concat"),
    "unknown key": (changed("score", 0.97), "score: unknown key"),
    "mistyped key": (changed("cell", {}), "did you mean 'cells'"),
    "cell key": (changed("cells.normal.name", "x"), "cells.normal.name: unknown key"),
    "third cell": (changed("cells.upsample", {}), "cells.upsample: unknown key"),
    "cell missing": (changed("cells.reduce", ...), "cells.reduce: is missing"),
    "cells list": (changed("cells", []), "cells: must be an object"),
    "space": (changed("space", "dart"), "space: unknown name, got 'dart'; fix: did you mean 'darts'"),
    "space missing": (changed("space", ...), "space: is missing"),
    "format": (changed("format", 2), "format: must be 1, got 2"),
    "format boolean": (changed("format", True), "format: must be 1, got True"),
    "choices": (changed("choices", {"width": 3}), "choices: must be {}"),
    "choices list": (changed("choices", []), "choices: must be {}"),
    "top list": (json.dumps([plain()]), "must be an object"),
    "duplicate key": (
        changed("format", 1).replace('"format": 1', '"format": 1, "format": 1'),
        "duplicate key, got 'format'",
    ),
    "duplicate in edge": (changed(f"{EDGE}.source", 1).replace('"source"', '"source": 0, "source"', 1), "got 'source'"),
    "deep lists": ("[" * 900_000, "nested deeper than 8"),
    "deep objects": ('{"a":' * 150_000 + "1" + "}" * 150_000, "nested deeper than 8"),
    "flat brackets": ("[" + "[]," * 300_000 + "[]]", "must be an object"),
    "many keys": ("{" + ",".join(f'"k{i}":1' for i in range(75_000)) + "}", "k0: unknown key"),
    "many keys, one twice": (
        "{" + ",".join(f'"k{i}":1' for i in range(75_000)) + ',"k9":2}',
        "duplicate key, got 'k9'",
    ),
    "long number": (
        changed(f"{EDGE}.source", 1).replace('"source": 1', '"source": ' + "9" * 900_000, 1),
        "is not JSON",
    ),
    "long name": (changed("space", "d" * 900_000), "space: unknown name"),
    "long key": (changed("k" * 900_000, 1), "unknown key"),
    "unterminated": ('{"format": "' + '\\"' * 400_000, "is not JSON"),
    "cut": (changed("format", 1)[:-20], "is not JSON"),
    "two documents": (changed("format", 1) * 2, "is not JSON"),
    "escapes": (changed("space", "\x1b[31m\n\u202e\ud800"), "\\x1b[31m\\n\\u202e\\ud800"),
    "resolver": (changed("space", "${oc.env:HOME}"), "got '${oc.env:HOME}'"),
    "target class": (changed("_target_", "os.system"), "_target_: unknown key"),
    "empty": ("", "is not JSON"),
    "space only": (" \n", "is not JSON"),
    "too large": (b" " * (MOST_BYTES + 1), "larger than 1,000,000 bytes"),
    "not utf-8": (b'{"format": "\xff\xfe"}', "is not UTF-8 text (byte 12)"),
    "pickle": (b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.", "UTF-8"),
    "code": ("__import__('os').system('touch TOUCHED')", "is not a genotype"),
    "code as value": (
        field("__import__('os').system('touch TOUCHED')"),
        "got \"__import__('os').system('touch TOUCHED')\"",
    ),
    "code in a list": (field("[open('TOUCHED', 'w'), 1]"), "got \"open('TOUCHED', 'w')\""),
    "comprehension": (field("[('skip_connect', i) for i in (0, 1)]"), "only strings, integers, lists"),
    "walrus": (field("(a := [])"), "only strings, integers, lists"),
    "f-string": (field('f\'{open("TOUCHED", "w")}\''), "only strings, integers, lists"),
    "lambda": (field("(lambda: 0)()"), "only strings, integers, lists"),
    "statements": (field() + "; open('TOUCHED', 'w')", "is not a genotype"),
    "other call": (field().replace("Genotype", "Popen"), "is not a genotype"),
    "attribute": (field() + ".__class__", "is not a genotype"),
    "operator": (field() + " + 1", "is not a genotype"),
    "stars": ("Genotype(**{'normal': 1})", "column 10: a name and = were expected"),
    "positional": (f"Genotype({PAIRS}, [2])", "is not a genotype"),
    "range huge": (field(concat="range(2, 10**9)"), "range(2, 10**9)"),
    "range long": (field(concat="range(2, 999999999)"), "range(2, 999999999)"),
    "range boolean": (field(concat="range(False, 3)"), "range(False, 3)"),
    "range empty": (field(concat="range(4, 2)"), "range(4, 2)"),
    "odd pairs": (field("[('skip_connect', 0)]"), "normal: must be pairs (operation, source), two a node"),
    "triples": (
        field("[('skip_connect', 0, 1), ('skip_connect', 0, 1)]"),
        "normal.edges[0].target: must be a node, got 0",
    ),
    "pairs and triples": (field("[('skip_connect', 0), ('skip_connect', 2, 1)]"), "normal: must be pairs"),
    "triples by node": (field("[[('skip_connect', 2, 0), ('skip_connect', 2, 1)]]"), "normal: must be pairs"),
    "some by node": (field("[[('skip_connect', 0)], ('skip_connect', 1)]"), "normal: must be pairs"),
    "target of a triple": (field("[('skip_connect', 18, 1)]"), "must be a node, got 18"),
    "pairs text": (field("'skip'"), "normal: must be pairs"),
    "text later node": (
        field("[('skip_connect', 2), ('skip_connect', 0)]"),
        "source: must be a state before node 2, got 2",
    ),
    "text boolean": (field("[('skip_connect', True), ('skip_connect', 0)]"), "got True"),
    "text none only": (field("[('none', 0), ('none', 1)]", "[2]"), "normal.edges: must be a list of 1 to"),
    "source of none": (field("[('none', 2), ('skip_connect', 0)]"), "must be a state before node 2, got 2"),
    "place": (field().replace(", ", ",\n  ").replace("'max_pool_3x3'", "max_pool"), "(line 5, column 4: only strings"),
    "place of a bracket": ("# x\n" + field()[:-1], "(line 2, column 9: this bracket is never closed)"),
    "place after": (field() + "\n.__class__", "(line 2, column 1: "),
    "no comma": (field("[('skip_connect' 0)]"), "(line 1, column 34: a comma or ) was expected), got '0'"),
    "no colon": (field().replace("normal=", "normal: "), "(line 1, column 10: a name and = were expected"),
    "several": (f"A = {field()}\nB = {field(concat='[3]')}", "holds 2 different genotypes (A, B)"),
    "several of a log": (f"10:22 {field()}\n10:23 {field(concat='[3]')}", "different genotypes (line 1, line 2)"),
    "unknown alias": (
        f"DARTS_V2 = {field()}\nDARTS = DARTS_V3",
        "it does not define, got 'DARTS_V3'; fix: did you mean 'DARTS_V2'",
    ),
    "import alone": ("from genotypes import Genotype\n", "no Genotype( ... ) is there"),
    "import and more": ("import os; os.remove('x')\n" + field(), "(line 1, column 12: "),
    "call before": (f"print({field()})", "(line 1, column 1: "),
    "call of a type": (f"Genotype = namedtuple('Genotype'\n{field()}", "is not a genotype"),
    "comment only": ("# Genotype(normal=[])", "no Genotype( ... ) is there"),
    "long digits": (field("[('skip_connect', 1111111111111111111), ('skip_connect', 0)]"), "so many digits"),
    "text 17 nodes": (field("[" + "('skip_connect', 0), " * 34 + "]", "[2]"), "an integer, 2 to 17"),
    "text twice": (field()[:-1] + ", normal=[])", "normal: is given twice"),
    "text unknown": (field()[:-1] + ", score=1)", "score: unknown key"),
    "text missing": ("Genotype(normal=[])", "normal_concat: is missing"),
    "text unclosed": (field()[:-1], "is not a genotype"),
    "text null": (field() + "\0", "is not a genotype"),
    "text bad escape": (field("'\\d'"), "normal: must be pairs"),
    "text huge": ("Genotype(" + "0," * 400_000, "65,536"),
    "text wide": (field("[" + "0," * 30_000 + "]"), "normal: must be pairs"),
    "text deep": (field("[" * 30_000), "nested deeper than 8"),
    "minus signs": (field("-" * 60_000 + "1"), "is not a genotype"),
    "sum": (field("+".join("1" * 30_000)), "is not a genotype"),
    "attributes": (field("a" + ".a" * 950), "is not a genotype"),
    "calls": (field("f" + "()" * 950), "is not a genotype"),
    "lambdas": (field("lambda:" * 9_000 + "1"), "is not a genotype"),
    "digits": (field("9" * 60_000), "is not a genotype"),
    "escaped line": ("\x1b[2J\n\r darts", "\\x1b[2J"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content, words = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "genotype.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        read(path.name)
    lines = [str(problem) for problem in caught.value.problems]
    assert words in lines[0]
    assert caught.value.code is Exit.CONFIGURATION
    assert len(lines) <= 10
    for line in lines:
        assert line.isascii() and line.isprintable() and len("darts_lite: error: " + line) <= LINE_LIMIT
        assert "fix: " in line and "genotype.json" in line
    assert not (tmp_path / "TOUCHED").exists()


@pytest.mark.parametrize(
    "name", ["deep lists", "many keys, one twice", "unterminated", "long name", "text wide", "sum"]
)
def test_hostile_files_take_little_memory(name: str, tmp_path: Path):
    content = HOSTILE[name][0]
    path = tmp_path / "genotype.json"
    path.write_text(str(content))
    tracemalloc.start()
    with pytest.raises(UserError):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6


def test_only_regular_files_are_read(tmp_path: Path):
    good = tmp_path / "good.json"
    good.write_text(to_json(published("snas")))
    link, pipe, folder = tmp_path / "link", tmp_path / "pipe", tmp_path / "folder"
    link.symlink_to(good)
    folder.mkdir()
    os.mkfifo(pipe)
    cases = {
        link: "is a symbolic link",
        pipe: "is not a regular file",
        folder: "directory",
        Path("/dev/null"): "is not a regular file",
        Path("/dev/zero"): "is not a regular file",
        tmp_path / "absent": "No such file",
        good / "below": "Not a directory",
        tmp_path / ("n" * 300): "File name too long",
        tmp_path / "null\0": "Invalid argument",
    }
    for path, words in cases.items():
        with pytest.raises(UserError, match=words) as caught:
            read(path)
        assert caught.value.code is Exit.CONFIGURATION
        assert len(str(caught.value)) <= LINE_LIMIT


def test_plain_values_keep_their_origin_in_errors():
    with pytest.raises(UserError, match=r"^mine cells: is missing"):
        from_plain({"format": 1, "space": "darts", "choices": {}}, "mine")


def test_importing_it_needs_no_torch():
    code = "import sys, darts_lite.genotypes.genotype; sys.exit(bool({'torch', 'numpy', 'hydra'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
