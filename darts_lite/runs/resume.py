"""Which run a command means: `resume=<folder>`, `resume=auto`, and the newest finished search that `retrain` takes.

The stored configuration wins; what the user typed beside `resume=<folder>` may repeat it, or change settings that
cannot change the result, or say where the same data lies now. Nothing here changes a file.
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from darts_lite.errors import Exit, UserError, show
from darts_lite.runs.stored import existing, usable
from darts_lite.settings.configs import RetrainConfig, SearchConfig
from darts_lite.settings.identity import DATA_PLACES, PLACES, digest, plain_leaves, result_settings, without_effect
from darts_lite.settings.pace import typed_wins
from darts_lite.settings.parts import PartConfig
from darts_lite.settings.schema import flat, to_plain
from darts_lite.storage import checkpoint
from darts_lite.storage.files import read_json
from darts_lite.storage.run_folder import RunFolder, silent

OUTPUTS = Path("outputs")


Config = TypeVar("Config", bound=SearchConfig | RetrainConfig)  # of a training


@dataclass(frozen=True)
class Resolution(Generic[Config]):
    """The configuration to run with, and the run folder to go on in; None: a new run."""

    config: Config
    folder: Path | None = None
    finished: bool = False
    notices: list[str] = field(default_factory=list)


def resolve(verb: str, config: Config, typed_keys: Collection[str] | None = None) -> Resolution[Config]:
    """Resolve `config.resume`. `typed_keys`: the dotted keys that were typed; None (Python): those off their default.

    Raises UserError: 4 for a folder that is missing, damaged or of another configuration or verb, 7 for one in use.
    """
    if typed_keys is None:  # a command line has done it
        config = typed_wins(config, given_keys(config, None))
    if config.resume is None:
        return Resolution(config)
    if config.resume == "auto":
        return _newest_equal(verb, config)
    folder = existing(config.resume, verb, "resume")
    stored = _stored_config(verb, folder, type(config))
    given, old, keys = plain_leaves(config), plain_leaves(stored), given_keys(config, typed_keys)
    changed = [key for key in keys if key not in PLACES and given[key] != old.get(key)]
    free = without_effect(type(config))
    # Data that has moved is compared before anything changes in the folder (`refuse_other_data`).
    elsewhere = [key for key in changed if key in DATA_PLACES and given[key] is not None and old.get(key) is not None]
    if refused := [key for key in changed if key not in free and key not in elsewhere]:
        listed = ", ".join(_change(key, old, given) for key in refused)
        fix = "leave these keys out, or start a new run with another run_dir"
        if "init" in given and "epochs" in refused and given["epochs"] > old["epochs"]:  # to train on is what is wanted
            fix += f", where init={show(folder, quote=False)} starts from the weights of this one, once it is finished"
        raise UserError("resume", f"the run has another configuration: {listed}", fix, code=Exit.RUN)
    notices = [
        f"{_change(key, old, given)}: accepted, {'if the data is the same' if key in elsewhere else 'it cannot change the result'}"
        for key in changed
    ]
    if "run_dir" in keys and config.run_dir is not None and Path(config.run_dir).resolve() != folder.resolve():
        notices.append(f"run_dir is not used: the run goes on in {folder}")
    for key in changed:
        _set(stored, key, flat(config)[key])
    lost, finished = _keep_objects(stored, config), _finished(folder)
    if lost and not finished:
        listed = ", ".join(f"{key}={show(value)}" for key, value in lost.items())
        fix = "resume it from Python, with an object of that class"
        raise UserError("resume", f"the run was started from Python with {listed}", fix, code=Exit.RUN)
    return Resolution(stored, folder, finished, notices)


def given_keys(config: SearchConfig | RetrainConfig, typed_keys: Collection[str] | None) -> list[str]:
    """The dotted keys that the user gave: those that were typed; from Python, those that are off their default."""
    if typed_keys is not None:
        return [key for key in plain_leaves(config) if key in typed_keys]
    given, default = plain_leaves(config), plain_leaves(type(config)())
    return [key for key in given if given[key] != default.get(key)]


def find_moved(verb: str, config: Config, data: str) -> Resolution[Config]:
    """The newest run of `resume=auto` on the same `data` (a fingerprint), which lay elsewhere then; asked where `resolve` finds none."""
    found = _newest_equal(verb, config, data)
    notice = "there is no run of this configuration on this data, so a new one begins"
    if found.folder is not None:
        notice = f"the same data lay elsewhere when {found.folder} began"
    return replace(found, notices=[f"resume=auto: {notice}"])


def refuse_other_data(path: Path, stored: dict[str, Any], data: str) -> None:
    """Refuse (4) to go on with other data than a run began with; `stored`: its checkpoint, `data`: the fingerprint."""
    if stored["env"]["data"] != data:
        reason, fix = "began with other data", "bring that data back, or start a new run with another run_dir"
        raise UserError(path, reason, fix, code=Exit.RUN)


def relocate(stored: dict[str, Any], config: SearchConfig | RetrainConfig) -> None:
    """Write into a checkpoint's state where the data lies now, so that a later `resume` or `evaluate` finds it there."""
    was, now = stored["config"]["dataset"], to_plain(config.dataset)
    if any(was.get(name) != now[name] for name in ("path", "root")):
        was |= {name: now[name] for name in ("path", "root")}
        stored["run"]["configuration"] = digest(config)


def newest_finished(verb: str, source: str, base: Path = OUTPUTS) -> Path | None:
    """The newest finished run of `verb` on the data with this `Dataset.source`, or a fraction of it; or None."""
    for folder in _newest_first(runs_below(base / verb)):
        known = read_json(folder / "status.json")
        if known.get("state") != "finished" or known.get("debug") or known.get("control"):
            continue
        if read_json(folder / "env.json").get("source") == source:
            return folder
    return None


def runs_below(base: Path) -> Iterator[Path]:
    """Every run folder below `base`, once, also behind links: outputs may lie on another disk. Does not look into run folders."""
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(base, followlinks=True):
        try:
            here = os.stat(root)
        except OSError:  # gone meanwhile
            folders.clear()
            continue
        if (here.st_dev, here.st_ino) in seen:  # a link back to a folder above, or a second one to a run
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        if "status.json" in names or "checkpoints" in folders:
            folders.clear()
            yield Path(root)
        folders.sort(
            key=lambda name: os.path.islink(os.path.join(root, name))
        )  # a run by its own name, not as `latest`


def _newest_equal(verb: str, config: Config, data: str | None = None) -> Resolution[Config]:
    """The newest run of this configuration; with `data`, a fingerprint: on that data, wherever it lay."""
    completed = cache(lambda source: _completed(config, source))
    ignored, digested = ((), "configuration") if data is None else (DATA_PLACES, "apart_from_places")
    for folder in _newest_first(_places(verb, config.run_dir)):
        known = read_json(folder / "status.json")
        wanted = completed(str(read_json(folder / "env.json").get("source")))
        name = digest(wanted, ignored)
        if known.get("verb", verb) != verb or known.get(digested, name) != name:
            continue
        if data is not None and read_json(folder / "env.json").get("data") != data:
            continue
        if not checkpoint.files(folder / "checkpoints"):
            continue  # killed before its first checkpoint: nothing to go on from
        try:
            stored = _stored_config(verb, folder, type(config))
        except UserError as error:
            if known or error.code not in (Exit.RUN, Exit.IN_USE):  # in use, and no status yet: it has only just begun
                raise  # this one is meant, and starting another instead would be silent
            continue
        if result_settings(stored, ignored) == result_settings(wanted, ignored):
            return Resolution(wanted, folder, _finished(folder))
    return Resolution(config)


def _completed(config: Config, source: str) -> Config:
    """The configuration with the genotype that a retraining without one means: the newest finished search on data of this `source`."""
    if isinstance(config, SearchConfig) or config.genotype is not None:
        return config
    newest = newest_finished("search", source)
    return config if newest is None else replace(config, genotype=str(newest))


def _places(verb: str, run_dir: str | None) -> Iterator[Path]:
    """Folders where `auto` looks: below outputs/<verb>, or where the command line says that the run lies."""
    base = OUTPUTS / verb
    if run_dir is None or base.resolve() in Path(run_dir).resolve().parents:
        return runs_below(base)
    # The jobs of a sweep have numbers below the folder that was given, and the numbers depend on the command line.
    return runs_below(Path(run_dir).parent if Path(run_dir).name.isdigit() else Path(run_dir))


def _newest_first(folders: Iterator[Path]) -> list[Path]:
    def created(folder: Path) -> float:
        times = read_json(folder / "status.json").get("time")
        value: Any = times.get("created") if isinstance(times, dict) else None
        return float(value) if type(value) in (int, float) else folder.stat().st_mtime

    return sorted(folders, key=created, reverse=True)


def _stored_config(verb: str, folder: Path, kind: type[Config]) -> Config:
    with RunFolder.reopen(folder) as run:
        state = run.load(silent)  # the run itself loads it again under its lock, and warns then
    if state["run"].get("verb") != verb:
        fix = f"give the folder of a {verb}"
        raise UserError("resume", f"{show(folder)} holds a run of another verb", fix, code=Exit.RUN)
    return usable(kind, state["config"], folder)


def _finished(folder: Path) -> bool:
    return read_json(folder / "status.json").get("state") == "finished"


def _change(key: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    return f"{key} {show(old.get(key))} -> {show(new[key])}"


def _keep_objects(stored: Any, given: Any) -> dict[str, Any]:
    """Put back the parts that were given from Python as objects, and stored by the names of their classes.

    Returns the settings for which none was given, with these names.
    """
    lost = {}
    for key, old in list(vars(stored).items()):
        new = getattr(given, key)
        names = [
            part.name
            for part in (old if isinstance(old, list) else [old])
            if isinstance(part, PartConfig) and part.is_own
        ]
        if old == new:
            setattr(stored, key, new)
        elif names:
            lost[key] = names if isinstance(old, list) else names[0]
    return lost


def _set(config: Any, key: str, value: Any) -> None:
    *parents, name = key.split(".")
    for parent in parents:
        config = getattr(config, parent)
    setattr(config, name, value)
