"""Hydra: composes the configuration from conf/ and the words of a command line, and runs the jobs of a sweep.

It makes no folder and no log, except for the folder of a sweep, and never sees an exception of ours; its own become a UserError.
"""

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

from darts_lite.cli.endings import disk_error
from darts_lite.cli.line import LAUNCHER_KEYS, Line, conf_folder, config_class, file_keys, part_options
from darts_lite.errors import Exit, UserError
from darts_lite.hardware.machine import cores
from darts_lite.settings.schema import describe, leaves, part_kinds, unknown_key


def compose(verb: str, words: list[str], task: Callable[[Any], None]) -> int:
    """Call `task` with the configuration that `words` make, in a sweep with that of each job."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with _surroundings(words):
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=verb)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise _refusal(error) from error
    except BrokenPipeError:
        raise
    except OSError as error:  # only of Hydra's own doing: the folder of a sweep
        raise disk_error(error) from error
    except SystemExit as error:
        if error.code:
            raise UserError("command line", "cannot be read", "see --help") from error
    except Exception as error:  # a worker that was killed, a cluster that does not answer: not ours
        if not any(word.startswith("hydra/launcher=") for word in words):
            raise
        reason = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
        fix = "resume=auto goes on with the same command"
        raise UserError("hydra/launcher", reason, fix, code=Exit.ENVIRONMENT) from error
    return Exit.FINISHED


@contextlib.contextmanager
def _surroundings(words: list[str]) -> Iterator[None]:
    """Put sys.argv and Hydra's global state back afterwards; meanwhile Hydra raises its errors instead of exiting."""
    from hydra.core.global_hydra import GlobalHydra

    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0] if argv else "darts_lite", *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        sys.argv = argv
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full


def _refusal(error: Exception) -> UserError:
    """Error with Hydra's own words, without its advice to add keys."""
    text = str(error).split("\nTo append")[0].split("\nSee ")[0]
    named = re.search(r"override '([^']+)'|merging override ([^=\s]+)|Could not find '([^']+)'", text)
    key = next(filter(None, named.groups())) if named else "command line"
    if key.startswith("hydra.launcher."):
        return unknown_key(key, [f"hydra.launcher.{name}" for name in LAUNCHER_KEYS])
    return UserError(key, f"refused by Hydra: {text.splitlines()[0].strip()}", "see --help for keys and groups")


def own_settings(verb: str, line: Line, stamp: str) -> dict[str, str]:
    """Settings under which Hydra makes no folder and no log, except for the folder of a sweep, whose jobs make their own inside."""
    parent = line.overrides.get("run_dir", "null")
    one = line.sweep and parent != "null" and "','" not in parent
    return {
        "hydra/hydra_logging": "none",
        "hydra/job_logging": "none",
        "hydra.output_subdir": "null",
        "hydra.run.dir": ".",
        "hydra.sweep.dir": parent if one else f"outputs/{verb}/sweeps/{stamp}",
        "hydra.sweep.subdir": ".",
    }


def as_word(key: str, value: str) -> str:
    """Override for Hydra; ++ adds an option that the chosen part lacks, so that it is refused later, with our reason."""
    return f"{'++' if '.' in key and not key.startswith('hydra') else ''}{key}={value}"


def value_of(key: str, settings: dict[str, str]) -> str:
    """Value of a setting without the quotes of Hydra's grammar."""
    return str(_parsed(key, settings[key]).value())


def jobs_at_once(line: Line, settings: dict[str, str]) -> int:
    """Number of jobs of a sweep that this machine runs side by side."""
    from hydra.errors import HydraException

    launcher = line.overrides.get("hydra/launcher")
    if launcher not in ("joblib", "submitit_local"):
        return 1  # one after another, or on other machines
    try:
        typed = [_parsed(key, value) for key, value in settings.items() if not key.startswith("hydra")]
        jobs = math.prod(sum(1 for _ in word.sweep_iterator()) for word in typed if word.is_sweep_override())
        wanted = int(value_of("hydra.launcher.n_jobs", {"hydra.launcher.n_jobs": "-1"} | settings))
    except (HydraException, ValueError):
        return 1  # Hydra refuses it
    if launcher == "submitit_local":
        return jobs
    return min(jobs, wanted if wanted > 0 else max(1, cores() + 1 + wanted))  # joblib: -1 is all cores, -2 all but one


def _parsed(key: str, value: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"{key}={value}")


def check_grammar(verb: str, line: Line) -> None:
    """Parse each override by itself: what Hydra cannot read becomes a problem of the line and is left out."""
    from hydra.errors import HydraException

    for key, value in list(line.overrides.items()):
        try:
            if not _parsed(key, value).is_sweep_override() or line.sweep:
                continue
            fix = "add -m for a sweep, or write [a,b] for a list"
            line.problems.append(UserError(key, "several values need a sweep", fix, value=value))
        except (HydraException, ValueError):
            line.problems.append(UserError(key, "cannot be read", _readable(verb, key, value), value=value))
        del line.overrides[key]


def _readable(verb: str, key: str, value: str) -> str:
    """Advice for a value that Hydra's grammar cannot read."""
    leaf = leaves(config_class(verb)).get(key)
    if value.startswith("="):
        return f"write {key}{value}"
    return f"give {describe(leaf.hint, leaf.limits)}" if leaf else f"""quote the value twice: "{key}='...'\""""


def of_chosen_parts(verb: str, plain: dict[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """Leave out options that files of conf/ give to parts that are not chosen; typed ones stay, and are refused."""
    for key, kind in part_options(verb).items():
        *parents, option = key.split(".")
        part = plain[kind] if len(parents) == 1 else plain[kind].get(parents[1])
        if part and option in part and key not in typed and option not in file_keys(f"{kind}/{part.get('name')}"):
            del part[option]
    several = [kind for kind, listed in part_kinds(config_class(verb)).items() if listed]
    return plain | {kind: {name: part for name, part in plain[kind].items() if part} for kind in several}
