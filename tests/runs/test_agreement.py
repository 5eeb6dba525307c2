"""Agreement of several searches: closed forms, limits, and that restarts and sweeps report it."""

from pathlib import Path
from random import Random
from statistics import fmean

import pytest
import tiny
import torch

from darts_lite.cli.run import run_verb
from darts_lite.cli.sweep import agreements
from darts_lite.errors import Exit
from darts_lite.genotypes.genotype import Cell, Edge, Genotype
from darts_lite.methods.build import build_space
from darts_lite.runs.agreement import agreement, equal_share, rank_correlation
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces.table import Mixing, Table

SPACE = build_space(SpaceConfig())


def genotype(*operations):
    edges = tuple(Edge(name, place % 2, 2 + place // 2) for place, name in enumerate(operations))
    return Genotype("darts", {kind: Cell(edges, (2, 3)) for kind in ("normal", "reduce")})


def test_the_share_of_equal_edges():
    one = genotype("sep_conv_3x3", "skip_connect", "sep_conv_3x3", "max_pool_3x3")
    other = genotype("sep_conv_3x3", "sep_conv_5x5", "sep_conv_3x3", "sep_conv_3x3")
    assert equal_share([one, one]) == 1 and equal_share([one, other]) == 0.5
    assert equal_share([one, one, other]) == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_chance_is_that_of_the_space():
    """A node that reads 2 of k states with one of 7 operations: an edge of one genotype is in another with 2 / k / 7."""
    random = SPACE.random
    found = agreement(SPACE, [random(Random(0)), random(Random(1))])
    assert found["chance"] == pytest.approx(fmean(2 / k / 7 for k in (2, 3, 4, 5)), abs=0.02)
    assert found["equal"] <= found["chance_limit"] < 0.3 and "no more than chance" in found["sentence"]
    same = agreement(SPACE, [random(Random(0))] * 3)
    assert (
        same["equal"] == 1 and same["sentence"].endswith("the choice comes again") and same["rank_correlation"] is None
    )
    assert agreement(SPACE, [random(Random(0))] * 3) == same


def test_the_correlation_is_of_single_edges_and_of_candidates_that_both_have():
    alive = torch.ones(2, 4, dtype=torch.bool)
    fewer = alive.clone()
    fewer[0, 3] = False
    names, edges = ("a", "b", "c", "d"), ((0, 2), (1, 2))

    def scored(rows, alive):
        return {"cell": Table(edges, names, alive)}, {"cell": Mixing(torch.tensor(rows))}

    one = scored([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]], alive)
    other = scored([[0.2, 0.3, 0.5, 0.0], [0.4, 0.3, 0.2, 0.1]], fewer)
    assert rank_correlation([one, other]) == pytest.approx((1 - 1) / 2)
    assert rank_correlation([one]) is None
    assert rank_correlation([one, scored([[0.25] * 4] * 2, alive)]) is None, "what is equal has no order"


def test_restarts_report_it(tiny_folder):
    report = tiny.Report()
    config = tiny.search_config(restarts=2, restart_epochs=1, epochs=1, control="permuted_labels")
    result = tiny.search(config, report=report)
    found = result["agreement"]
    assert found["runs"] == 2 and found["sentence"] in report.lines and -1 <= found["rank_correlation"] <= 1
    genotypes = [tiny.read_json(f"run/restart_{number}/genotype.json") for number in (0, 1)]
    assert (found["equal"] == 1) == (genotypes[0] == genotypes[1])
    assert result["control"] == tiny.read_json("run/restart_0/result.json")["control"] == "permuted_labels"
    assert tiny.read_json("run/status.json")["control"] == "permuted_labels"


def test_a_sweep_of_seeds_reports_it(tiny_folder, capsys):
    words = ["-m", "seed=0,1", "lr=0.1,0.2", "dataset=npz", "dataset.path=data.npz", "space.nodes=2", "epochs=1"]
    words += ["space.candidates=[none,skip_connect,max_pool_3x3]", "cells=2", "channels=2", "batch_size=16"]
    assert run_verb("search", [*words, f"run_dir={Path('sweep').resolve()}"]) == Exit.FINISHED
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("agreement: ")]
    assert (
        len(said) == 2
        and all("alike" in line for line in said)
        and {"lr=0.1", "lr=0.2"} <= set(" ".join(said).replace("(", "").split())
    )


def test_of_a_single_search_or_of_other_verbs_there_is_none():
    job = {"state": "finished", "folder": "x", "overrides": ["seed=0"]}
    assert agreements("search", [job]) == agreements("retrain", [job, job]) == []
    assert agreements("search", [job, job]) == [], "the folder is gone"
