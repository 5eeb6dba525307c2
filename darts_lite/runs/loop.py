"""The run around the steps of any training: its folder, what is recorded, when it is saved, how it is interrupted.

`state` in here is that of the training, with `clock`, `health`, `meters`, `state_dict()` and `load_state_dict()`.
"""

import json
import math
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darts_lite.data import arrays
from darts_lite.data.splits import split
from darts_lite.errors import Exit, Interrupted, UserError
from darts_lite.genotypes.genotype import Genotype, to_plain
from darts_lite.hardware.device import peak_memory
from darts_lite.runs.debug import verdict
from darts_lite.runs.forecast import Forecast
from darts_lite.runs.prepare import Prepared
from darts_lite.runs.profile import Profile
from darts_lite.runs.resume import refuse_other_data, relocate
from darts_lite.runs.signals import Signals
from darts_lite.runs.tensorboard import Board
from darts_lite.settings import schema
from darts_lite.settings.datasets import DatasetConfig, preset_config
from darts_lite.settings.identity import essence
from darts_lite.settings.options import USUAL_BATCH, USUAL_FRACTION
from darts_lite.spaces import space_of
from darts_lite.storage import environment
from darts_lite.storage.run_folder import RunFolder
from darts_lite.training.health import not_finite
from darts_lite.training.meters import read


class Loop:
    """Context that holds the run folder."""

    def __init__(self, ready: Prepared, epoch_steps: int, epochs: int):
        self.ready, self.config, self.report = ready, ready.config, ready.report
        self.epoch_steps, self.total = epoch_steps, epochs * epoch_steps
        self.facts: dict[str, Any] = {}  # what every checkpoint holds beside the state
        self.text = ""  # the last thing worth saying beside the progress
        self.saved = -1, -math.inf  # step and time of the last checkpoint
        self.forecast = Forecast(self.total, ready.device)
        self.means: dict[str, float] = {}  # of the last epoch
        self.profile = Profile(ready.device) if self.config.debug == "profile" else None
        self._board: Board | None = None
        self.run, self.stored = ready.open()
        self.quoted_path = shlex.quote(str(self.run.path))
        self.command = (
            f"python -m darts_lite.{ready.verb} resume={self.quoted_path}{arrays.from_python(self.config.dataset)}"
        )
        self.signals = Signals(f"darts_lite: stopped at once; go on with: {self.command}\n")

    @property
    def board(self) -> Board:
        """TensorBoard's view, which `start` has made."""
        assert self._board is not None
        return self._board

    def __enter__(self) -> "Loop":
        self.run.__enter__()
        self.signals.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.profile is not None:
            self.profile.close()
        if self._board is not None:
            self._board.close()
        self.signals.__exit__(kind, error, traceback)
        self.run.__exit__(kind, error, traceback)

    def refuse_other_data(self) -> None:
        """Raise UserError (4) if the stored run learned from other data: said before anything that is due to it."""
        if self.stored is None:
            return
        with self.fitting():
            refuse_other_data(self.run.path, self.stored, self.ready.environment["data"])

    def start(self, state: Any, **board: Any) -> None:
        """Go on where the stored run was, or write the first checkpoint; `board` is passed to `Board`."""
        if self.stored is not None:
            with self.fitting():
                relocate(self.stored, self.config)
                state.load_state_dict(self.stored)
            changes = environment.differences(self.stored["env"], self.ready.environment)
            if changes:
                self.report.warning(f"resumed elsewhere, so not bit-identical: {', '.join(changes)}")
            self.run.rewind(self.stored)
            self.saved = state.clock.done, time.monotonic()
            resumed = f"resumed at step {state.clock.done} of {self.total}"
            self.report.line(f"{resumed} in {self.run.path}")
            self.run.log(resumed)  # run.log tells what happened, lost steps included; the other files are taken back
        else:
            self.save(state)
            self.report.line(f"run folder: {self.run.path}")
        self._board = Board(self.run.path / "tensorboard", self.run.metrics, self.run.alphas, **board)

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Inside, what fails is the stored state, if there is one: it has the right form, but comes from somewhere else."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if self.stored is None:
                raise
            reason = f"its checkpoint does not fit its configuration: {error}"
            raise UserError(self.run.path, reason, "start a new run with another run_dir", code=Exit.RUN) from error

    def boundary(self, state: Any) -> None:
        """Before a step: save if it is time to, and leave if a signal came."""
        every = self.config.checkpoint_steps
        late = time.monotonic() - self.saved[1] >= 60 * self.config.checkpoint_minutes
        if late or self.signals.raised is not None or (every and state.clock.done % every == 0):
            self.save(state)
        if self.signals.raised is not None:
            raise Interrupted(self.signals.raised, f"go on with: {self.command}")

    def save(self, state: Any) -> None:
        """Write the checkpoint of this step if there is none, and only while every number is finite."""
        if state.clock.done != self.saved[0]:
            self.check(state)
            self.run.save(state.clock.done, state.state_dict() | self.facts)
        self.saved = state.clock.done, time.monotonic()

    def check(self, state: Any) -> None:
        """End the run with exit 5 if a number of it is not finite. Waits for the device."""
        state.health.raise_if_bad()
        stored = state.state_dict()
        for part, whose, lower in (
            ("weights", "weights", "lr"),
            ("architecture", "alphas", "alpha_lr"),
            ("alpha_optimizer", "alphas", "alpha_lr"),
        ):
            finite = [tensor.isfinite().all() for tensor in _tensors(stored.get(part, {}))]
            if finite and not torch.stack(finite).all():
                raise not_finite(whose, f"a number of the {whose}", state.clock.done, lower)

    def step_done(self, state: Any, metrics: dict[str, Any]) -> None:
        """After a step: average what it measured, and record it every `log_every` steps (which waits for the device)."""
        state.meters.add({name: value for name, value in metrics.items() if not name.startswith("lr/")})
        if state.clock.done % self.config.log_every == 0:
            state.health.raise_if_bad()
            self.record("step", state, read(metrics))
        for line in self.profile.step(self.run) if self.profile else ():
            self.report.line(line)
        if expected := self.forecast.after(state.clock.done):
            self.report.line(expected)
        self.report.progress(state.clock.done, self.total, self.text)

    def record(self, kind: str, state: Any, values: dict[str, float]) -> None:
        """One line of metrics.jsonl, and its view in TensorBoard."""
        step = state.clock.done
        for name, value in values.items():
            # Such as the loss of an evaluation: the training itself is checked by `health`.
            if not math.isfinite(value):
                alphas = name.endswith("/alphas")
                raise not_finite("alphas" if alphas else "weights", name, step, "alpha_lr" if alphas else "lr")
        record = {"step": step, "kind": kind, "epoch": -(-step // self.epoch_steps), "values": values}
        record["time"] = {"wall": time.time(), "seconds": self.run.seconds}
        self.run.metrics.append(record)
        self.board.metrics(record)

    def epoch_done(self, state: Any, values: dict[str, float]) -> None:
        """After the last step of an epoch, once it is checked: the means over it, with `values` measured at its end."""
        means = {f"epoch/{name}": value for name, value in (state.meters.read() | values).items()}
        self.record("epoch", state, means)
        self.means = means
        self.text = epoch_words(state.clock.done // self.epoch_steps, self.total // self.epoch_steps, means)
        line = self.text + "".join(f"  {word} {loss:.4f}" for word, loss in _shown(means, "loss", " loss"))
        self.run.log(line)
        self.report.line(line)

    def finish(self, state: Any, genotype: Genotype, result: dict[str, Any]) -> dict[str, Any]:
        """Write result.json, after everything else: with it the run is finished."""
        result = {
            "dataset": self.ready.dataset.name,
            "seed": self.config.seed,
            "class_names": list(self.ready.dataset.class_names),
            "genotype": to_plain(genotype),
            **result,
            "steps": state.clock.done,
            "device": self.ready.environment["device"],
            "peak_memory_bytes": peak_memory(self.ready.device),
        }
        scores = {
            f"final/{part}_{name}": result[part][name]
            for part in ("validation", "test")
            if part in result
            for name in ("accuracy", "loss")
        }
        self.record("final", state, scores)
        self.board.settings(essence(self.config), list(scores))
        result = self.run.finish(state.clock.done, result)
        if line := verdict(self.config, self.means):
            self.report.line(line)
        return result


def epoch_words(epoch: int, epochs: int, means: dict[str, float]) -> str:
    """`epoch 4/12  train 91.2 %  val 78.6 %`: short enough for 80 columns, beside a bar."""
    return f"epoch {epoch}/{epochs}" + "".join(f"  {word} {100 * value:.1f} %" for word, value in _shown(means))


def _shown(means: dict[str, float], name: str = "accuracy", after: str = "") -> Iterator[tuple[str, float]]:
    """What was measured of each part, with the part's short name."""
    for part, word in (("train", "train"), ("validation", "val"), ("test", "test")):
        if f"epoch/{part}/{name}" in means:
            yield word + after, means[f"epoch/{part}/{name}"]


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for branch in tree.values():
            yield from _tensors(branch)


def draw(run: RunFolder, genotype: Genotype) -> None:
    """A picture of each cell in cells/."""
    for name, cell in genotype.cells.items():
        run.write_text(f"cells/{name}.svg", space_of(genotype).picture(cell, name))


def data_words(config: DatasetConfig) -> str:
    """What has to be typed to get the same data again, with a space before each word."""
    if config.name == arrays.NAME:
        return arrays.from_python(config)
    words = [] if config.name == DatasetConfig().name else [f"dataset={config.name}"]
    given, chosen = schema.to_plain(config), schema.to_plain(preset_config(config.name))
    for key in given:
        if given[key] != chosen[key] and key != "download":  # what is there need not be downloaded again
            text = given[key] if isinstance(given[key], str) else json.dumps(given[key])
            words.append(f"dataset.{key}={shlex.quote(text)}")
    return "".join(f" {word}" for word in words)


def has_next(ready: Prepared) -> bool:
    """Whether a command may follow: not after a debug run, which finds and learns nothing, nor on data that no command line names."""
    return ready.config.debug is None and ready.dataset.name == ready.config.dataset.name


def next_retraining(ready: Prepared, path: Path) -> str | None:
    """The command that retrains what was found in `path`, on all of the data: a part was enough to search."""
    config, dataset = ready.config, ready.dataset
    if not has_next(ready):
        return None
    words = data_words(replace(config.dataset, fraction=1.0))
    images = least_whole(dataset.y_train, config.dataset.fraction)
    return f"python -m darts_lite.retrain genotype={shlex.quote(str(path))}{words}{_batch_words(images)}"


def first_search(ready: Prepared) -> str:
    """The command that searches on the data of a retraining."""
    dataset = ready.dataset
    parts = split(dataset.y_train, USUAL_FRACTION, 0) if dataset.y_val is None else (dataset.y_train, dataset.y_val)
    return f"python -m darts_lite.search{data_words(ready.config.dataset)}{_batch_words(min(map(len, parts)))}"


def least_whole(labels: np.ndarray, fraction: float) -> int:
    """How many images there are at least, where these are the labels of a `dataset.fraction`, see `splits.split`."""
    if fraction == 1:
        return len(labels)
    kept = np.unique(labels, return_counts=True)[1].tolist()
    return sum(max(number, math.ceil((number - 0.5) / fraction)) if number > 1 else 1 for number in kept)


def _batch_words(images: int) -> str:
    """A batch is not larger than its part of the data."""
    return f" batch_size={images}" if images < USUAL_BATCH else ""
