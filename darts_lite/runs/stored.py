"""Reading a run folder from another verb: the newest checkpoint of a single run, and parts of its configuration."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from darts_lite.errors import Exit, UserError, did_you_mean, raise_all
from darts_lite.methods.build import completed
from darts_lite.settings.configs import SearchConfig
from darts_lite.settings.schema import from_plain
from darts_lite.storage import checkpoint
from darts_lite.storage.files import is_folder, is_there
from darts_lite.storage.run_folder import silent

FIRST_SEARCH = "restart_0"  # of a parent run, the folder of the first child
# What a search did whose configuration was stored before these keys were there.
ABSENT = {"least_steps": None, "alpha_travel": None}
NOUNS = {"search": "search", "retrain": "retraining"}


def stored_run(run: str | Path | None, verb: str, key: str = "run") -> tuple[Path, dict[str, Any]]:
    """Folder and newest checkpoint of a single run of `verb`. Raises UserError (4), naming `key`, for anything else."""
    folder = existing(run, verb, key)
    state = checkpoint.load_newest(folder / "checkpoints", silent).state
    if state["run"].get("verb") != verb:
        fix = f"give the folder of a {NOUNS[verb]} (python -m darts_lite.{verb})"
        raise UserError(key, f"is not a {NOUNS[verb]}", fix, value=folder, code=Exit.RUN)
    config = state["config"]
    if config.get("seeds") is not None or config.get("baseline") is not None or config.get("restarts", 1) != 1:
        patterns = ("seed_*", "restart_*", "heaviest_*", "random_*")
        names = sorted(path.name for pattern in patterns for path in folder.glob(pattern))
        fix = f"give one of them: {folder}/{', '.join(names)}"
        raise UserError(key, "holds several runs", fix, value=folder, code=Exit.RUN)
    return folder, state


def existing(folder: str | Path | None, verb: str, key: str = "run") -> Path:
    """`folder` as a path if it is a folder, else UserError (4) naming `key` and where a run of `verb` lies."""
    hint = did_you_mean(str(folder), ["auto"]) if key == "resume" else ""
    fix = f"{hint}give the folder of a run, such as outputs/{verb}/digits/<time>"
    if folder is None:
        raise UserError(key, "not given", fix, code=Exit.RUN)
    path = Path(folder)
    if not is_folder(path):
        reason = "is not a folder" if is_there(path) else "no such run folder"
        raise UserError(key, reason, fix, code=Exit.RUN, value=path)
    return path


def stored_part(state: dict[str, Any], name: str, kind: type, folder: str | Path | None) -> Any:
    """The part `name` of the configuration in a checkpoint of `folder`. Raises UserError (4)."""
    return usable(kind, state["config"].get(name), folder)


def usable(kind: type, plain: Any, folder: str | Path | None) -> Any:
    """The configuration of class `kind` in plain data of a checkpoint. Raises UserError (4), also where a part that decides all is lost.

    A single setting that is absent keeps its default: an older version did not have it yet.
    """
    if kind is SearchConfig and isinstance(plain, dict):
        plain = ABSENT | plain
    try:
        if isinstance(plain, dict):
            fix = "bring it back"
            raise_all([UserError(name, "is missing", fix) for name in _whole(kind) if name not in plain])
        return completed(from_plain(kind, plain))
    except UserError as error:
        fix = "use the version that wrote it, or start a new run"
        raise UserError(folder, f"its stored configuration cannot be used: {error}", fix, code=Exit.RUN) from error


def _whole(kind: type) -> list[str]:
    """The settings of a configuration class that every version has stored: without them defaults would be another run's."""
    return [field.name for field in fields(kind) if field.name in ("dataset", "space")]
