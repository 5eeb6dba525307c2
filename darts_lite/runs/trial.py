"""Trial of a verb: a few real steps that leave nothing behind, for the doctor and for the largest batch that fits."""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable
from typing import Any

# What is different in a trial, as far as the configuration has it: it is short, learns all it ever learns, and is its own run.
CHANGES = {
    "epochs": 1,
    "warmup_epochs": 0,
    "log_every": 1,
    "resume": None,
    "debug": None,
    "restarts": 1,
    "seeds": None,
    "baseline": None,
}


class _Enough(Exception):
    """The steps that were asked for are done."""


class _Silent:
    """A reporter that says nothing and ends the run after `steps` steps."""

    def __init__(self, steps: int):
        self.steps = steps

    def line(self, text: str) -> None:
        """Say nothing."""

    warning = line

    def progress(self, done: int, total: int, text: str) -> None:
        """Leave after the last step."""
        if done >= min(self.steps, total):
            raise _Enough

    def close(self) -> None:
        """Do nothing: nothing is held."""


def trial(function: Callable[..., Any], config: Any, *, steps: int = 2, **changes: Any) -> None:
    """The first `steps` steps of a verb's `function` with `config` and `changes`, in a temporary folder; raises what they raise.

    Two steps: only the second one has the gradients of the first beside its own activations.
    """
    names = {field.name for field in dataclasses.fields(config)}
    with tempfile.TemporaryDirectory(prefix="darts_lite_") as folder, contextlib.suppress(_Enough):
        changes = {**CHANGES, "run_dir": os.path.join(folder, "run"), **changes}
        small = dataclasses.replace(config, **{name: changes[name] for name in names & set(changes)})
        function(small, report=_Silent(steps))
