"""A monitor looks after every epoch: it may stop a search, take an earlier epoch's architecture, and change settings; resumed exactly."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import tiny

from darts_lite.discretize import DiscretizeConfig, discretize
from darts_lite.genotypes.genotype import from_json
from darts_lite.methods.method import Stateful
from darts_lite.methods.monitors import Verdict
from darts_lite.methods.phases import Phase
from darts_lite.methods.selections.darts import darts
from darts_lite.methods.selections.hooks import Training, Validating
from darts_lite.search import search

pytestmark = pytest.mark.usefixtures("tiny_folder")
STEP = "search step"


class Patience(Stateful):
    """Stops in epoch 4 with the genotype of epoch 2; remembers every loss, and changes two settings after the first epoch."""

    def __init__(self):
        self.losses = []

    def epoch(self, state, judge):
        accuracy, loss = judge(state.architecture.expected(state.clock.progress))
        assert 0 <= accuracy <= 1
        self.losses.append(loss)
        if len(self.losses) == 1:
            return Verdict(change={"weight_decay": 0.05, "alpha_lr": 2.0})
        return Verdict(stop=len(self.losses) == 4, take_epoch=2)

    def state_dict(self):
        return {"losses": list(self.losses)}

    def load_state_dict(self, state):
        self.losses = list(state["losses"])


def config(**changes):
    return tiny.search_config(epochs=6, monitor=Patience(), log_every=1, checkpoint_steps=2, **changes)


def run(resume, point):
    tiny.killed_run(config(resume=resume), point)


def derived(epoch):
    """The genotype of an epoch, by `discretize`."""
    discretize(DiscretizeConfig(run="run", epoch=epoch, run_dir=f"epoch_{epoch}"), report=tiny.Report())
    return Path(f"epoch_{epoch}/genotype.json").read_text()


def test_a_monitor_stops_a_run_and_takes_an_earlier_epoch():
    report = tiny.Report()
    result = search(config(alpha_lr=0.02), report=report)
    assert result["steps"] == 12 and json.loads(Path("run/status.json").read_text())["state"] == "finished"
    assert [line["epoch"] for line in tiny.read_lines("run/alphas.jsonl")] == [0, 1, 2, 3, 4]
    assert any("epoch 4 was the last one; the genotype is that of epoch 2" in line for line in report.lines)
    found = Path("run/genotype.json").read_text()
    assert from_json(found) and found == derived(2) != derived(4), "the two epochs differ, or nothing is tested"
    losses = [
        line["values"]["epoch/validation/loss"]
        for line in tiny.read_lines("run/metrics.jsonl")
        if line["kind"] == "epoch"
    ]
    state = tiny.newest("run")
    assert state["parts"]["monitor"]["losses"] == losses, "the judge is the validation of the run"
    assert state["verdict"] == {"stop": True, "take_epoch": 2, "change": {"weight_decay": 0.05, "alpha_lr": 2.0}}
    assert state["config"]["weight_decay"] == 3e-4, "the configuration of the run is what it was"
    steps = [line["values"] for line in tiny.read_lines("run/metrics.jsonl") if line["kind"] == "step"]
    assert [round(values["lr/alphas"], 4) for values in steps] == [0.02] * 3 + [2.0] * 9


def test_what_a_monitor_changes_has_an_effect():
    class Idle:
        def epoch(self, state, judge):
            return Verdict()

    tiny.run(config())
    tiny.run(config(), monitor=Idle(), run_dir="idle")
    first, other = (tiny.read_lines(f"{run}/metrics.jsonl") for run in ("run", "idle"))
    first, other = ([line["values"] for line in lines if line["kind"] == "step"] for lines in (first, other))
    assert first[0] == other[0] and first[5]["train/loss"] != other[5]["train/loss"]


POINTS = {
    "before the change": ("before", STEP, 3),
    "after the change": ("before", STEP, 6),
    "in the last epoch": ("before", STEP, 11),
    "before the last checkpoint": ("before", "genotype"),
    "after the last checkpoint": ("before", "end"),
}


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
def test_it_is_resumed_exactly(point):
    assert tiny.outcome(run, None, ()) == 0, Path("said").read_text()
    whole = tiny.trace("run")
    shutil.rmtree("run")
    assert tiny.outcome(run, None, point) == -signal.SIGKILL, Path("said").read_text()
    assert tiny.outcome(run, "run", ()) == 0, Path("said").read_text()
    tiny.assert_same(tiny.trace("run"), whole)


@pytest.mark.parametrize(
    "given", [{"stop": 1}, {"take_epoch": "2"}, {"change": {"epochs": 3}}, {"change": {"lr": "1"}}]
)
def test_verdicts_that_are_none(given):
    with pytest.raises(ValueError, match=r"a verdict has|is not a number"):
        Verdict(**given)


def test_a_verdict_counts_in_later_phases_too():
    def phases(config):
        return [Phase(2), Phase(4, keeps="all")]

    tiny.run(config(phases=phases))
    state = tiny.newest("run")
    assert state["clock"] == {"phase": 1, "phase_step": 6, "done": 12}
    assert state["verdict"]["change"] == {"weight_decay": 0.05, "alpha_lr": 2.0} and state["verdict"]["stop"]
    steps = [line["values"] for line in tiny.read_lines("run/metrics.jsonl") if line["kind"] == "step"]
    assert steps[-1]["lr/alphas"] == pytest.approx(2.0)


# Selections that ask, and that train


class Best(Validating):
    """The better of two: what the rule finds, and what it finds of the opposite mixing."""

    def __init__(self):
        self.asked = []

    def __call__(self, view, judge):
        turned = {cell: type(one)(1 - one.operations) for cell, one in view.mixing.items()}
        for mixing in (view.mixing, turned):
            self.asked.append(judge(mixing))
        return darts(view)


def test_a_selection_may_ask_the_judge():
    """At the end of the search alone; single epochs, and `discretize`, have the rule that ranks its candidates."""
    selection = Best()
    tiny.run(tiny.search_config(selection=selection))
    assert len(selection.asked) == 2 and selection.asked[0] != selection.asked[1]
    result = json.loads(Path("run/result.json").read_text())["validation"]
    assert selection.asked[0] == pytest.approx((result["accuracy"], result["loss"]), rel=1e-5)


class Trains(Training):
    """Trains on for two epochs with the operations that cost nothing, and takes the strongest of them."""

    def phases(self, config):
        def free(state):
            tables = state.architecture.tables
            return {cell: table.alive & (state.costs[cell].macs == 0) for cell, table in tables.items()}

        return [Phase(2, keeps="weights", alive=free)]

    def __call__(self, view, judge):
        return darts(view)


def test_a_selection_may_add_phases():
    assert tiny.run(tiny.search_config(selection=Trains()))["steps"] == 12
    state = tiny.newest("run")
    assert state["clock"]["phase"] == 1
    genotype = from_json(Path("run/genotype.json").read_text())
    names = {edge.operation for cell in genotype.cells.values() for edge in cell.edges}
    assert "sep_conv_3x3" not in names
