"""The run folder: everything a run leaves behind, held by a lock, and enough to go on from after any kind of end.

The checkpoint is the run: the first one is written before anything else, and all that `resume` needs is in it. So a
process that is killed at any moment leaves either a run that can be resumed or a folder that can be used again.
"""

import contextlib
import datetime
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from darts_lite.errors import Exit, Interrupted, UserError
from darts_lite.settings.configs import RunConfig, SearchConfig
from darts_lite.settings.identity import DATA_PLACES, digest
from darts_lite.settings.schema import to_plain
from darts_lite.storage import checkpoint
from darts_lite.storage.files import (
    append_line,
    is_folder,
    make_folders,
    read_json,
    refuse_links,
    refusing,
    remove_folders,
    write_atomic,
)
from darts_lite.storage.json_lines import JsonLines
from darts_lite.storage.lock import FolderLock
from darts_lite.storage.yaml import to_yaml

WRITTEN = (
    *("config.yaml", "env.json", "status.json", "metrics.jsonl", "alphas.jsonl", "genotype.json", "model.pt"),
    *("result.json", "run.log", "profile.json", "checkpoints", "tensorboard", "cells"),
)
_BEFORE_FIRST_STEP = (Exit.CONFIGURATION, Exit.DATA, Exit.RUN, Exit.ENVIRONMENT)
Warn = Callable[[str], None]


def silent(message: str) -> None:
    """A `warn` that says nothing."""


class RunFolder:
    """A held run folder; as a context it releases the lock, and writes how the run ended if it did not end well."""

    def __init__(self, path: Path, held: FolderLock, made: list[Path]):
        self.path = path
        self.metrics = JsonLines(path / "metrics.jsonl")
        self.alphas = JsonLines(path / "alphas.jsonl")
        self.checkpoints = path / "checkpoints"
        self.step = 0  # of the last checkpoint
        self._lock = held
        self._made = made  # folders that did not exist before, for a run that ends before it begins
        self._facts: dict[str, Any] = {}  # run, config, env: what every checkpoint repeats
        self._created = time.time()
        self._begun = False  # something was written that a reader takes for a run
        self._saved = False  # a checkpoint exists
        self._damaged: tuple[Path, ...] = ()
        self._seconds = 0.0
        self._clock = time.monotonic()

    @classmethod
    def create(
        cls,
        verb: str,
        dataset_name: str,
        run_dir: str | None,
        config: Any,
        environment: dict[str, Any],
        warn: Warn = silent,
    ) -> "RunFolder":
        """Make and hold a new folder; nothing but the lock is in it until the first `save` or `status`.

        `config`: a dataclass. Raises UserError, leaving everything as it was: 7 when a run goes on there, 4 when it
        holds a run or a file that this one would overwrite, 6 when it cannot be made.
        """
        stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        path = Path(run_dir) if run_dir is not None else Path("outputs", verb, dataset_name, stamp)
        made = make_folders(path)
        held = FolderLock(path)
        try:
            if not os.path.lexists(held.path):
                _refuse_used(path)
            held.acquire(warn)
            _refuse_used(path)
            _clear(path)
            held.sign()
        except BaseException:
            held.release()
            remove_folders(made)
            raise
        run = cls(path, held, made)
        facts = {"verb": verb, "configuration": digest(config), "apart_from_places": digest(config, DATA_PLACES)}
        if isinstance(config, RunConfig) and config.debug:
            facts["debug"] = config.debug  # so that nobody takes its result for one
        if isinstance(config, SearchConfig) and config.control:
            facts["control"] = config.control  # nor this one
        run._facts = {"run": facts, "config": to_plain(config), "env": environment}
        return run

    @classmethod
    def reopen(cls, path: Path, warn: Warn = silent) -> "RunFolder":
        """Hold the folder of an earlier run; changes nothing. Raises UserError: 4 (missing, links), 6, 7 (in use)."""
        if not is_folder(path):
            raise UserError(path, "is not a folder", "give the folder of a run", code=Exit.RUN)
        if not checkpoint.files(path / "checkpoints"):
            fix = "start a new run; one that was stopped before its first checkpoint has nothing to go on from"
            raise UserError(path, "holds no checkpoint", fix, code=Exit.RUN)
        held = FolderLock(path)
        held.acquire(warn)
        try:
            refuse_links(path, WRITTEN)
        except BaseException:
            held.release()
            raise
        return cls(path, held, [])

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this run, earlier sessions included."""
        return self._seconds + time.monotonic() - self._clock

    # Checkpoints

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write a checkpoint of `state` after `step` steps, with configuration, environment, file offsets and times."""
        for records in (self.metrics, self.alphas):
            records.sync()
        times = {"created": self._created, "saved": time.time(), "seconds": self.seconds}
        offsets = {records.path.name: records.size for records in (self.metrics, self.alphas)}
        reserved = {**self._facts, "files": offsets, "time": {**state.get("time", {}), **times}}
        if overlap := set(state) & (set(reserved) - {"time"}):
            raise ValueError(f"names of the run folder's own: {sorted(overlap)}")
        path = checkpoint.save(self.checkpoints, step, {**state, **reserved})
        self._saved = True
        self.status("running", step)
        return path

    def load(self, warn: Warn = silent) -> dict[str, Any]:
        """The newest good checkpoint; changes nothing. Raises UserError (4) when there is none."""
        loaded = checkpoint.load_newest(self.checkpoints, warn)
        self._damaged = loaded.damaged
        return loaded.state

    def rewind(self, state: dict[str, Any]) -> None:
        """Take the folder back to the checkpoint that `load` returned: from here on this process writes in it.

        First checks everything (4: offsets outside the files, lines that are not JSON), then changes.
        """
        offsets = state["files"]
        for records in (self.metrics, self.alphas):
            records.check(offsets.get(records.path.name))
        self._facts = {name: state.get(name) for name in ("run", "config", "env")}
        times = state["time"]
        self._created = _number(times.get("created"), self._created)
        self._seconds, self._clock = _number(times.get("seconds"), 0.0), time.monotonic()
        self._saved = True
        self._lock.sign()
        checkpoint.set_aside(self._damaged)
        for records in (self.metrics, self.alphas):
            records.truncate(offsets[records.path.name])
        self.status("running", state["step"])

    # Everything else in the folder

    def status(self, state: str, step: int, reason: str | None = None) -> None:
        """Write status.json: `running`, `finished`, `interrupted` or `failed`, after `step` steps, and why."""
        if not self._begun:
            self.write_text("config.yaml", to_yaml(self._facts["config"]))
            self.write_json("env.json", self._facts["env"])
            self._begun = True
        self.step = step
        value = {
            "state": state,
            "step": step,
            "reason": reason,
            **self._facts["run"],
            "time": {"created": self._created, "updated": time.time(), "seconds": self.seconds},
        }
        self.write_json("status.json", value)

    def write_json(self, name: str, value: Any) -> Path:
        """Write `value` as JSON in one rename; ValueError for numbers that are not finite."""
        return self.write_text(name, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> Path:
        """Write UTF-8 text in one rename; `name` is one of the names a run folder has, or lies below one."""
        return self.write_bytes(name, text.encode("utf-8", "surrogateescape"))

    def write_bytes(self, name: str, data: bytes | memoryview) -> Path:
        """Write bytes in one rename."""
        if Path(name).parts[0] not in WRITTEN or len(Path(name).parts) > 2:
            raise ValueError(f"{name!r} is not in the list of what a run writes")
        path = self.path / name
        make_folders(path.parent)
        write_atomic(path, data)
        return path

    def finish(self, step: int, result: dict[str, Any]) -> dict[str, Any]:
        """Write result.json, after everything else, and with it the run is finished; returns all that it holds.

        Every verb's has `format`, `verb` and `time`; these seconds are the run's own unless `result` has others.
        """
        common = {"format": 1, "verb": self._facts["run"]["verb"]}
        result = {**common, **result, "time": result.get("time", {"seconds": self.seconds})}
        self.write_json("result.json", result)
        self.status("finished", step)
        return result

    def log(self, text: str) -> None:
        """Append a line to run.log."""
        append_line(self.path / "run.log", text.rstrip("\n"))

    # The end

    def forget(self) -> None:
        """Treat the run as not begun, so that an error now removes its folder."""
        self._saved = self._begun = False

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            refusal = isinstance(error, UserError) and error.code in _BEFORE_FIRST_STEP
            created = bool(self._facts) and not self._saved
            if created and (refusal or not self._begun):
                self._discard()
            elif error is not None and self._begun:
                stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
                with contextlib.suppress(UserError):  # a full disk must not hide what went wrong first
                    self.status("interrupted" if stopped else "failed", self.step, _reason(error))
        finally:
            self._lock.release()

    def _discard(self) -> None:
        """Leave nothing of a run that was refused before its first step."""
        with contextlib.suppress(OSError, UserError):
            _clear(self.path)
            self._lock.path.unlink(missing_ok=True)
        remove_folders(self._made)


def _refuse_used(path: Path) -> None:
    """Refuse (4) a folder that holds a run, or a file that a run would overwrite."""
    found = [name for name in WRITTEN if os.path.lexists(path / name)]
    if not found:
        return
    fix = f"choose another run_dir, or go on there with resume={path}"
    state = read_json(path / "status.json").get("state")
    if checkpoint.files(path / "checkpoints") or state in ("finished", "interrupted", "failed"):
        raise UserError(path, "already holds a run", fix, code=Exit.RUN)
    refuse_links(path, WRITTEN)
    if state == "running" and JsonLines(path / "metrics.jsonl").size == 0:
        return  # killed before it had anything to keep
    if strange := [name for name in found if name != "checkpoints" or any((path / name).glob("[!.]*"))]:
        raise UserError(path, f"already holds {strange[0]}", "choose another run_dir", code=Exit.RUN)


def _clear(path: Path) -> None:
    """Remove what a run writes, the lock excepted; only after `_refuse_used`, or for a run of our own."""
    for name in WRITTEN:
        target = path / name
        with refusing(target, "cannot be removed"):
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, (UserError, Interrupted)) else f"{type(error).__name__}: {error}"[:400]


def _number(value: Any, default: float) -> float:
    return float(value) if type(value) in (int, float) else default
