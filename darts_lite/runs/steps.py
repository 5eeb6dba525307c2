"""The steps of a training inside its session: counted, measured, recorded, and saved at their boundaries.

`state` in here is that of the training, with `clock`, `health`, `meters`, `state_dict()` and `load_state_dict()`.
"""

import math
import time
from collections.abc import Iterator
from typing import Any

from darts_lite.genotypes.genotype import Genotype, to_plain
from darts_lite.hardware.device import peak_memory
from darts_lite.runs.debug import verdict
from darts_lite.runs.finite import check_finite
from darts_lite.runs.forecast import Forecast
from darts_lite.runs.profile import Profile
from darts_lite.runs.session import Session
from darts_lite.runs.tensorboard import Board
from darts_lite.settings.identity import result_settings
from darts_lite.spaces.table import Table
from darts_lite.storage import environment
from darts_lite.training.meters import read

SCORES = ("loss", "accuracy")  # of an evaluation, which a line of metrics holds


class Steps:
    """All steps of a run, earlier sessions' included; `facts` is what every checkpoint holds beside the state."""

    def __init__(self, session: Session, epoch_steps: int, epochs: int, facts: dict[str, Any] | None = None):
        self.session, self.plan, self.config = session, session.plan, session.plan.config
        self.run, self.report = session.run, session.report
        self.epoch_steps, self.total, self.facts = epoch_steps, epochs * epoch_steps, facts or {}
        self.text = ""  # the last thing worth saying beside the progress
        self.saved = -1, -math.inf  # step and time of the last checkpoint
        self.forecast = Forecast(self.total, self.plan.device)
        self.means: dict[str, float] = {}  # of the last epoch
        self.profile = Profile(self.plan.device) if self.config.debug == "profile" else None
        if self.profile is not None:
            session.closing.callback(self.profile.close)

    def start(self, state: Any, tables: dict[str, Table] | None = None) -> None:
        """Load the stored state, or write the first checkpoint; `tables` of a search are for its pictures."""
        session, stored = self.session, self.session.stored
        if stored is None:
            self.save(state)
            self.report.line(f"run folder: {self.run.path}")
        else:
            with session.blaming_checkpoint():
                state.load_state_dict(stored)
            if changes := environment.differences(stored["env"], self.plan.environment):
                self.report.warning(f"resumed elsewhere, so not bit-identical: {', '.join(changes)}")
            session.rewind()
            self.saved = state.clock.done, time.monotonic()
            resumed = f"resumed at step {state.clock.done} of {self.total}"
            self.report.line(f"{resumed} in {self.run.path}")
            self.run.log(resumed)  # run.log tells what happened, lost steps included; the other files are taken back
        self.board = Board(self.run.path / "tensorboard", self.run.metrics, self.run.alphas, tables)
        session.closing.callback(self.board.close)

    def before_step(self, state: Any) -> None:
        """Save if it is time to, and leave if a signal came."""
        every, step = self.config.checkpoint_steps, state.clock.done
        late = time.monotonic() - self.saved[1] >= 60 * self.config.checkpoint_minutes
        if late or self.session.signals.raised is not None or (every and step % every == 0):
            self.save(state)
        self.session.leave_if_asked()

    def save(self, state: Any) -> None:
        """Write the checkpoint of this step if there is none, and only while every number is finite."""
        if state.clock.done != self.saved[0]:
            check_finite(state)
            self.run.save(state.clock.done, state.state_dict() | self.facts)
        self.saved = state.clock.done, time.monotonic()

    def after_step(self, state: Any, metrics: dict[str, Any]) -> None:
        """Average what a step measured, and record it every `log_every` steps (which waits for the device)."""
        state.meters.add({name: value for name, value in metrics.items() if not name.startswith("lr/")})
        if state.clock.done % self.config.log_every == 0:
            self.record("step", state, read(metrics))
        for line in self.profile.step(self.run) if self.profile else ():
            self.report.line(line)
        if expected := self.forecast.after(state.clock.done):
            self.report.line(expected)
        self.report.progress(state.clock.done, self.total, self.text)

    def record(self, kind: str, state: Any, values: dict[str, float], genotype: Genotype | None = None) -> None:
        """Append one line to metrics.jsonl, and show it in TensorBoard; `genotype`: the one derived at this moment."""
        check_finite(state, values)
        record = {"step": state.clock.done, "kind": kind, "epoch": self.epoch(state), "values": values}
        record |= {} if genotype is None else {"genotype": to_plain(genotype)}
        record["time"] = {"wall": time.time(), "seconds": self.run.seconds}
        self.run.metrics.append(record)
        self.board.metrics(record)

    def epoch(self, state: Any) -> int:
        """The epoch that the last step belongs to, counted from 1; 0 before the first step."""
        return -(-state.clock.done // self.epoch_steps)

    def end_epoch(
        self,
        state: Any,
        scores: dict[str, dict[str, Any]],
        more: dict[str, float] | None = None,
        genotype: Genotype | None = None,
        word: str = "",
    ) -> None:
        """Record an epoch: means over its steps, `scores` (part -> evaluation) and `more` values at its end.

        A line says the first two, and `word`.
        """
        means = state.meters.read() | {
            f"{part}/{name}": score[name] for part, score in scores.items() for name in SCORES
        }
        means = {f"epoch/{name}": value for name, value in means.items()}
        self.record("epoch", state, means | (more or {}), genotype)
        self.means = means
        self.text = epoch_words(self.epoch(state), self.total // self.epoch_steps, means)
        self.text += f"  {word}" if word else ""
        line = self.text + "".join(f"  {word} {loss:.4f}" for word, loss in _shown(means, "loss", " loss"))
        if more and "benchmark/accuracy" in more:
            line += f"  true {more['benchmark/accuracy']:.2f} (rank {more['benchmark/rank']:,})"
        self.run.log(line)
        self.report.line(line)

    def finish(
        self, state: Any, genotype: Genotype, result: dict[str, Any], more: dict[str, float] | None = None
    ) -> dict[str, Any]:
        """Record the final scores and `more` values, and write result.json, with which the run is finished."""
        scores = {
            f"final/{part}_{name}": result[part][name]
            for part in ("validation", "test")
            if part in result
            for name in SCORES
        }
        scores |= {
            f"final/benchmark_{name}": value
            for name, value in result.get("benchmark", {}).items()
            if name in ("accuracy", "rank", "regret", "rank_correlation")
        }
        self.record("final", state, scores | (more or {}))
        self.board.settings(result_settings(self.config), list(scores))
        result = {
            "seed": self.config.seed,
            "class_names": list(self.plan.dataset.class_names),
            "genotype": to_plain(genotype),
            **result,
            "steps": state.clock.done,
            "peak_memory_bytes": peak_memory(self.plan.device),
        }
        result = self.session.finish(state.clock.done, result)
        if line := verdict(self.config, self.means):
            self.report.line(line)
        return result


def epoch_words(epoch: int, epochs: int, means: dict[str, float]) -> str:
    """`epoch 4/12  train 91.2 %  val 78.6 %`: short enough for 80 columns, beside a bar."""
    return f"epoch {epoch}/{epochs}" + "".join(f"  {word} {100 * value:.1f} %" for word, value in _shown(means))


def _shown(means: dict[str, float], name: str = "accuracy", after: str = "") -> Iterator[tuple[str, float]]:
    """The measured values called `name`, each with the short name of its part."""
    for part, word in (("train", "train"), ("validation", "val"), ("test", "test")):
        if f"epoch/{part}/{name}" in means:
            yield word + after, means[f"epoch/{part}/{name}"]
