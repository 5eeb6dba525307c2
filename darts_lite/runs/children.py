"""A run of several runs, as `retrain seeds=[0,1,2]` and `search restarts=4` make it: the parent, and its children one after another.

A child is an ordinary run in a folder of its own inside the parent's, equal to what its configuration does by itself. The parent is a run
folder like any other (lock, configuration, status, a checkpoint), so `resume`, `auto` and refusals need no more rules: its checkpoint says
how many children are finished, and what is missing is seen from their folders.
"""

import copy
import json
import math
import os
import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from darts_lite.data import arrays
from darts_lite.errors import Exit, Interrupted, UserError
from darts_lite.genotypes.genotype import Genotype, from_json
from darts_lite.runs.prepare import Prepared
from darts_lite.runs.resume import Resolution, refuse_other_data, relocate, resolve
from darts_lite.runs.signals import Signals
from darts_lite.settings.identity import plain_leaves
from darts_lite.storage import checkpoint
from darts_lite.storage.files import read_json, refuse_links, refused
from darts_lite.storage.run_folder import RunFolder

Result = dict[str, Any]


@dataclass(frozen=True)
class Child:
    """One of the runs: its folder's name, its configuration, and the function that runs it."""

    name: str
    verb: str
    config: Any
    start: Callable[..., Result]

    def resolve(self, parent: Path) -> Resolution:
        """Its configuration in the folder of the parent, and whether it goes on or is finished. Raises UserError (4, 7).

        Copied, because an object of the user's own in it may remember what it does.
        """
        folder = parent / self.name
        begun = bool(checkpoint.files(folder / "checkpoints"))
        config = replace(copy.deepcopy(self.config), run_dir=str(folder), resume=str(folder) if begun else None)
        found = resolve(self.verb, config, self.compared)
        return replace(found, config=config)

    @property
    def compared(self) -> set[str]:
        """What must agree with the run that is there. A path to a sibling's genotype does not, after the parent was moved."""
        return set(plain_leaves(self.config)) - {"genotype"}


def run_children(
    ready: Prepared,
    children: Callable[[Path], Sequence[Child]],
    finish: Callable[[RunFolder, dict[str, Result]], Result],
) -> Result:
    """Run what is missing of the children, then `finish`, which says what the parent's result.json holds beside the common things.

    Raises what a child raises; Interrupted with the command that goes on with the parent.
    """
    # What can be refused is refused before anything changes.
    if ready.folder is not None:
        there = children(ready.folder)
        _refuse_links(ready.folder, there)
        for child in there:
            child.resolve(ready.folder)
    elif ready.config.run_dir is not None:
        _refuse_others(Path(ready.config.run_dir), children(Path(ready.config.run_dir)))
    run, stored = ready.open()
    command = f"go on with: python -m darts_lite.{ready.verb} resume={quoted(run.path)}{arrays.from_python(ready.config.dataset)}"
    results: dict[str, Result] = {}
    with run, Signals(f"darts_lite: stopped at once; {command}\n") as signals:
        if stored is None:
            run.save(0, {})
        else:
            try:
                refuse_other_data(run.path, stored, ready.environment["data"])
                relocate(stored, ready.config)
            except (AttributeError, LookupError, TypeError) as error:
                reason = f"its checkpoint does not fit its configuration: {error}"
                raise UserError(run.path, reason, "start a new run with another run_dir", code=Exit.RUN) from error
            run.rewind(stored)
        ready.report.line(f"run folder: {run.path}")
        inside = children(run.path)
        try:
            for done, child in enumerate(inside, 1):
                found = child.resolve(run.path)
                ready.report.line(f"run {done} of {len(inside)}: {child.name}{', finished' if found.finished else ''}")
                if found.finished:
                    results[child.name] = read_json(run.path / child.name / "result.json")
                else:
                    results[child.name] = child.start(found.config, child.compared, ready.report, ready.dataset)
                if done > run.step:
                    run.save(done, {})
                signals.check()
        except Interrupted as error:
            raise Interrupted(error.number, command) from error
        except BaseException:
            if stored is None and not any(checkpoint.files(run.path / one.name / "checkpoints") for one in inside):
                run.forget()
            raise
        result = {"dataset": ready.dataset.name, **finish(run, results), "device": ready.environment["device"]}
        seconds = sum(number(run.path / name, one, "time", "seconds") for name, one in results.items())
        return run.finish(len(inside), {**result, "time": {"seconds": seconds}})


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def number(folder: Path, result: Result, *keys: str) -> Any:
    """A number of a child's result, which may have been read from its file. Raises UserError (4) where it is not there."""
    value: Any = result
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if type(value) not in (int, float) or not math.isfinite(value):
        fix = "remove this run's folder and go on, which runs it again"
        raise UserError(folder / "result.json", f"holds no {' '.join(keys)}", fix, code=Exit.RUN)
    return value


def genotype_of(folder: Path, result: Result) -> Genotype:
    """The genotype of a child's result. Raises UserError (4)."""
    try:
        return from_json(json.dumps(result.get("genotype")))
    except UserError as error:
        reason, fix = f"holds no genotype: {error}", "remove this run's folder and go on, which runs it again"
        raise UserError(folder / "result.json", reason, fix, code=Exit.RUN) from error


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); of a single value None."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def summary(scores: Sequence[tuple[float, float]]) -> Result:
    """What (accuracy, loss) of several runs are together."""
    (accuracy, accuracy_std), (loss, loss_std) = (spread(column) for column in zip(*scores, strict=True))
    return {
        "accuracy": accuracy,
        "accuracy_std": accuracy_std,
        "loss": loss,
        "loss_std": loss_std,
        "runs": len(scores),
    }


def in_words(summary: Result) -> str:
    """`accuracy 0.9824 (standard deviation 0.0042), loss 0.0712 (0.0100), n = 3`."""

    def bracket(name: str, before: str = "") -> str:
        deviation = summary[f"{name}_std"]
        return f"{summary[name]:.4f}" + ("" if deviation is None else f" ({before}{deviation:.4f})")

    return f"accuracy {bracket('accuracy', 'standard deviation ')}, loss {bracket('loss')}, n = {summary['runs']}"


def refuse_several(folder: Path, config: Result, key: str = "run") -> None:
    """Refuse (4) the folder of several runs where that of a single one is needed, and name them; `config`: what is stored there."""
    if config.get("seeds") is not None or config.get("restarts", 1) != 1:
        names = sorted(path.name for pattern in ("seed_*", "restart_*") for path in folder.glob(pattern))
        fix = f"give one of them: {folder}/{', '.join(names)}"
        raise UserError(key, "holds several runs", fix, value=folder, code=Exit.RUN)


def _refuse_others(parent: Path, children: Sequence[Child]) -> None:
    """Refuse (4) to make a parent around runs that are there already."""
    for child in children:
        if os.path.lexists(parent / child.name):
            raise UserError(parent / child.name, "is already there", "choose another run_dir", code=Exit.RUN)


def _refuse_links(parent: Path, children: Sequence[Child]) -> None:
    """Refuse (4) what is no folder, or holds a link, in a child's place."""
    try:
        refuse_links(parent, tuple(child.name for child in children))
    except OSError as error:
        raise refused(parent, error, "cannot be read") from error
