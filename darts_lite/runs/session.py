"""The session of a run: its held folder, the checkpoint that it goes on from, signals, and the end. Serves every verb that runs for long.

with Session(plan) as session:
    session.rewind()                 # of a run that goes on: the folder is taken back to its checkpoint
    ... session.leave_if_asked() ...  # Interrupted after SIGTERM or SIGINT
    session.finish(step, result)
"""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch

from darts_lite.data import arrays
from darts_lite.errors import Exit, UserError
from darts_lite.runs.prepare import RunPlan
from darts_lite.runs.resume import refuse_other_data, relocate
from darts_lite.runs.signals import Signals


class Session:
    """Context that holds the run folder of a plan; `stored` is the checkpoint to go on from, None for a new run."""

    def __init__(self, plan: RunPlan):
        self.plan, self.report = plan, plan.report
        self.run, self.stored = plan.open()
        self.quoted_path = shlex.quote(str(self.run.path))
        words = f"resume={self.quoted_path}{arrays.from_python(plan.config.dataset)}"
        self.advice = f"go on with: python -m darts_lite.{plan.verb} {words}"
        self.signals = Signals(f"darts_lite: stopped at once; {self.advice}\n")
        self.closing = ExitStack()  # what is closed before the folder is released; steps add what they open

    def __enter__(self) -> "Session":
        """Hold the folder. Raises UserError (4) if the stored run learned from other data, before anything that is due to it."""
        with ExitStack() as opened:
            opened.enter_context(self.run)
            opened.enter_context(self.signals)
            opened.enter_context(self.closing)
            if self.stored is not None:
                with self.blaming_checkpoint():
                    refuse_other_data(self.run.path, self.stored, self.plan.environment["data"])
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._opened.__exit__(kind, error, traceback)

    @contextmanager
    def blaming_checkpoint(self) -> Iterator[None]:
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

    def rewind(self) -> None:
        """Take the folder back to the stored checkpoint, which then says where the data lies now."""
        assert self.stored is not None
        with self.blaming_checkpoint():
            relocate(self.stored, self.plan.config)
        self.run.rewind(self.stored)

    def leave_if_asked(self) -> None:
        """Raise Interrupted, with the command that goes on, if a signal has come."""
        self.signals.check(self.advice)

    def finish(self, step: int, result: dict[str, Any]) -> dict[str, Any]:
        """Write result.json, after everything else: with it the run is finished."""
        plan = self.plan
        return self.run.finish(step, {"dataset": plan.dataset.name, **result, "device": plan.environment["device"]})
