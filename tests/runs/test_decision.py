"""The sentence at the end of a search: when it says decided, hardly, collapsed or at chance, and on which published runs."""

import json
from dataclasses import replace

import pytest
import tiny

from darts_lite.genotypes.genotype import Cell, Edge
from darts_lite.runs.decision import LEAST_MARGIN, Evidence, collapses, decide, in_short, mean_margin
from darts_lite.search import search
from darts_lite.settings.configs import SearchConfig
from darts_lite.settings.parts import PartConfig

SOUND = ["sep_conv_3x3", "skip_connect", "sep_conv_3x3", "max_pool_3x3"]


def cell(operations):
    """A cell whose nodes read the inputs alone."""
    edges = [Edge(name, place % 2, 2 + place // 2) for place, name in enumerate(operations)]
    return Cell(tuple(edges), tuple(range(2, 2 + len(operations) // 2)))


def both(operations=SOUND, reduce=SOUND):
    return {"normal": cell(operations), "reduce": cell(reduce)}


def ended(margin=0.2, operations=SOUND, **changes):
    values = {
        "architecture/margin/normal": margin,
        "architecture/margin/reduce": margin,
        "architecture/entropy/normal": 1.0,
    }
    return replace(Evidence(values, both(operations), 0.9, 1000, 0.1, 132), **changes)


CASES = {
    "decided": (ended(), "decided", ["leads by 0.20 on average", "restarts=4"]),
    "tested": (ended(tested="the selection validated its candidates"), "decided", ["validated its candidates"]),
    "at the limit": (ended(LEAST_MARGIN), "decided", ["0.01"]),
    "hardly": (ended(0.0004), "hardly decided", ["leads by 0.0004 on average", "near to chance", "epochs=48", "alpha_lr=0.044"]),
    "hardly though tested": (ended(0.0004, tested="x"), "hardly decided", ["alpha_lr="]),
    "skips": (ended(0.9, ["skip_connect"] * 5 + ["sep_conv_3x3"] * 3), "collapsed", ["5 of 8 edges", "are skip", "epochs=6"]),
    "pools": (ended(0.9, ["max_pool_3x3", "avg_pool_3x3", "max_pool_3x3", "skip_connect"]), "collapsed", ["3 of 4", "are pool"]),
    "none": (ended(0.9, ["none"] * 3 + ["skip_connect"]), "collapsed", ["3 of 4", "are none", "space.candidates=[max_pool_3x3,"]),
    "no path": (ended(0.9, ["none"] * 4), "collapsed", ["no path leads through the normal cell", "space.candidates="]),
    "collapsed without learning": (ended(0.0, ["none"] * 4, learns=False), "collapsed", ["no path"]),
    "learns nothing": (ended(0.0, learns=False), "not judged", ["margins mean nothing"]),
    "without a choice": (ended(values={}), "decided", ["no edge has two candidates"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_and_the_override_that_helps(name):
    evidence, verdict, words = CASES[name]
    found = decide(evidence, SearchConfig(alpha_lr=3e-4))
    assert found["verdict"] == verdict and found["sentence"].startswith(f"{verdict}: ") and not found["at_chance"]
    assert [word for word in words if word not in found["sentence"]] == [] and "\n" not in found["sentence"]
    assert ("a margin alone" in found["sentence"]) == (verdict == "decided" and evidence.tested is None)
    assert found["evidence"] == evidence.tested and json.loads(json.dumps(found)) == found


def test_at_chance_comes_first_and_its_limit_is_that_of_a_binomial_distribution():
    for accuracy, chance in ((0.3333, True), (0.41, True), (0.42, False)):  # 1/3 + 1.96 sqrt(1/3 2/3 / 120) = 0.4177
        found = decide(ended(accuracy=accuracy, samples=120, commonest=1 / 3), SearchConfig())
        assert found["at_chance"] == chance and found["sentence"].startswith("the supernet's accuracy") == chance
        assert found["chance_limit"] == pytest.approx(0.41768, abs=1e-5)
        assert "decided" in found["sentence"]
    unequal = decide(ended(accuracy=0.9, samples=1000, commonest=0.9), SearchConfig())
    assert unequal["at_chance"], "always saying the commonest class is no learning"


def test_a_control_is_named_whatever_it_found():
    for evidence in (ended(), ended(0.0004)):
        sentence = decide(evidence, SearchConfig(control="permuted_labels"))["sentence"]
        assert sentence.endswith("permuted_labels: there was no signal, so this is what the method does without one")


def test_skips_of_a_cell_that_reduces_are_no_collapse():
    assert collapses(both(reduce=["skip_connect"] * 4)) == []
    assert collapses(both(["skip_connect"] * 2 + ["sep_conv_3x3"] * 2)) == [], "half is not more than half"


def test_margins_in_short():
    assert [in_short(margin) for margin in (0.171, 0.01, 0.00041, 0.0)] == ["0.17", "0.01", "0.0004", "0"]
    assert mean_margin({}) is None
    assert mean_margin({"architecture/margin/a": 0.1, "architecture/margin/b": 0.3, "x": 9.0}) == pytest.approx(0.2)


def test_the_limits_on_published_runs(data_folder):
    """105 DARTS runs in RobustDARTS' S1: 9 collapse to skips, which no accuracy of the supernet shows; 3 supernets are at chance."""
    runs = json.loads((data_folder / "robustdarts_s1_runs.json").read_text("utf-8"))
    found = {True: [], False: []}
    at_chance = 0
    for run in runs:
        operations = [operation for operation, _ in run["final_normal"]]
        edges = [Edge(*edge, 2 + place // 2) for place, edge in enumerate(run["final_normal"])]
        ours = both() | {"normal": Cell(tuple(edges), (2, 3, 4, 5))}
        error = run["valid_error"][-1]
        evidence = ended(cells=ours, accuracy=1 - error / 100, samples=25_000)
        verdict = decide(evidence, SearchConfig())
        skips = operations.count("skip_connect")
        assert (f"{skips} of 8 edges of the normal cell are skip" in verdict["reasons"]) == (skips >= 5)
        found[skips >= 5].append(error)
        at_chance += verdict["at_chance"]
    assert (len(found[True]), len(found[False]), at_chance) == (9, 96, 3)
    assert max(found[True]) < sorted(found[False])[len(found[False]) // 4]


def test_a_search_ends_with_it(tiny_folder):
    report = tiny.Report()
    result = search(tiny.search_config(), report=report)
    decided = result["decided"]
    assert decided["sentence"] in report.lines and decided["sentence"] in (tiny.Path("run/run.log")).read_text("utf-8")
    last = [line for line in tiny.read_lines("run/metrics.jsonl") if line["kind"] == "epoch"][-1]
    assert decided["margin"] == pytest.approx(mean_margin(last["values"]))
    assert any(
        line.startswith("epoch 2/2") and f"  margin {in_short(decided['margin'])}" in line for line in report.lines
    )
    assert decided["chance"] == pytest.approx(1 / 3) and result["alpha_lr"] == 0.1 and result["control"] is None


def test_what_learns_nothing_has_no_margin(tiny_folder):
    report = tiny.Report()
    parts = {"relaxation": "uniform_path", "selection": PartConfig("best_of", {"samples": 3, "population": 2})}
    result = search(tiny.search_config(**parts), report=report)
    assert result["decided"]["verdict"] in ("not judged", "collapsed") and not any(
        "  margin " in line for line in report.lines
    )
    assert result["decided"]["evidence"] == "the selection validated its candidates"
    assert not any(line.startswith("alpha_lr=") for line in report.lines)
