"""A parent run and its children, one after another, as `retrain seeds=[0,1,2]`, `search restarts=4` and `selection=validated` make them.

A child is an ordinary run in a folder of its own inside the parent's, equal to what its configuration does by itself. The parent is a run
folder like any other (lock, configuration, status, a checkpoint), so `resume`, `auto` and refusals need no more rules: its checkpoint says
how many children are finished, and what is missing is seen from their folders. Which children follow may depend on finished ones.
"""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from darts_lite.errors import Exit, Interrupted, UserError
from darts_lite.genotypes.genotype import Genotype, from_plain
from darts_lite.runs.prepare import RunPlan
from darts_lite.runs.resume import Resolution, resolve
from darts_lite.runs.session import Session
from darts_lite.settings.identity import plain_leaves
from darts_lite.storage import checkpoint
from darts_lite.storage.files import read_json, refuse_links
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
        """Keys that must agree with the run that is there: all but the path to a sibling's genotype: the parent may be moved."""
        leaves = plain_leaves(self.config)
        return {key for key in leaves if key != "genotype" or str(leaves[key]).startswith("{")}


@dataclass(frozen=True)
class Outcome:
    """The result of a finished child, which may have been read from its file; what it lacks is a UserError (4)."""

    folder: Path
    result: Result

    def number(self, *keys: str) -> Any:
        """The finite number under nested keys."""
        value: Any = self.result
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if (
            type(value) not in (int, float) or not abs(value) < 1e300
        ):  # nor infinite, nor NaN, nor too large for a float
            raise self._lacks(" ".join(keys))
        return value

    def numbers(self, *keys: str) -> Result:
        """Several numbers, by their names."""
        return {key: self.number(key) for key in keys}

    def score(self, part: str) -> Result:
        """Accuracy and loss on a part of the data."""
        return {key: self.number(part, key) for key in ("accuracy", "loss")}

    def genotype(self) -> Genotype:
        """The genotype that was found or trained."""
        try:
            return from_plain(self.result.get("genotype"))
        except UserError as error:
            raise self._lacks(f"genotype: {error}") from error

    def _lacks(self, what: str) -> UserError:
        fix = "remove this run's folder and go on, which runs it again"
        return UserError(self.folder / "result.json", f"holds no {what}", fix, code=Exit.RUN)


# (folder of the parent, outcomes of the finished children) -> all children known so far, in their order; none is taken back.
Children = Callable[[Path, dict[str, Outcome]], Sequence[Child]]


def run_children(
    plan: RunPlan,
    children: Children,
    finish: Callable[[RunFolder, dict[str, Outcome]], Result],
) -> Result:
    """Run what is missing of the children, then `finish`, which says what the parent's result.json holds beside the common things.

    Raises what a child raises; Interrupted with the command that goes on with the parent.
    """
    # What can be refused is refused before anything changes.
    if plan.folder is not None:
        _refuse_damaged(plan.folder, children)
    elif plan.config.run_dir is not None:
        _refuse_others(Path(plan.config.run_dir), children(Path(plan.config.run_dir), {}))
    outcomes: dict[str, Outcome] = {}
    with Session(plan) as session:
        run, fresh = session.run, session.stored is None
        if fresh:
            run.save(0, {})
        else:
            session.rewind()
        plan.report.line(f"run folder: {run.path}")
        inside = children(run.path, outcomes)
        try:
            while len(outcomes) < len(inside):
                done, child = len(outcomes) + 1, inside[len(outcomes)]
                refuse_links(run.path, (child.name,))
                found = child.resolve(run.path)
                plan.report.line(f"run {done} of {len(inside)}: {child.name}{', finished' if found.finished else ''}")
                folder = run.path / child.name
                if found.finished:
                    result = read_json(folder / "result.json")
                else:
                    result = child.start(found.config, child.compared, plan.report, plan.dataset)
                outcomes[child.name] = Outcome(folder, result)
                if done > run.step:
                    run.save(done, {})
                session.leave_if_asked()
                inside = children(run.path, outcomes)
        except Interrupted:
            session.leave_if_asked()  # the child has said how to go on with the child
            raise
        except BaseException:
            if fresh and not any(checkpoint.files(run.path / one.name / "checkpoints") for one in inside):
                run.forget()
            raise
        together = finish(run, outcomes)
        seconds = sum(outcome.number("time", "seconds") for outcome in outcomes.values())
        return session.finish(len(inside), {**together, "time": {"seconds": seconds}})


def _refuse_damaged(parent: Path, children: Children) -> None:
    """Refuse (4, 7) to go on with a parent one of whose children, as far as they are known, cannot be gone on with."""
    outcomes: dict[str, Outcome] = {}
    while len(there := children(parent, outcomes)) > len(outcomes):
        refuse_links(parent, tuple(child.name for child in there))
        for child in there[len(outcomes) :]:
            folder, found = parent / child.name, child.resolve(parent)
            outcomes[child.name] = Outcome(folder, read_json(folder / "result.json") if found.finished else {})
        if not all(outcome.result for outcome in outcomes.values()):
            return


def _refuse_others(parent: Path, children: Sequence[Child]) -> None:
    """Refuse (4) to make a parent around runs that are there already."""
    for child in children:
        if os.path.lexists(parent / child.name):
            raise UserError(parent / child.name, "is already there", "choose another run_dir", code=Exit.RUN)
