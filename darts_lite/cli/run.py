"""The command line of every verb: the one wrapper around Hydra, which turns all that happens into lines and a code.

`run_verb` reads the words (config.py), lets Hydra compose the configuration and run the jobs of a sweep, checks it
(settings.py) and calls the verb's function. Hydra makes no folder and no log, and never sees an exception of ours.
"""

import contextlib
import importlib
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import darts_lite
from darts_lite.cli.endings import Stop, disk_error, interruption, print_error, reason, tell
from darts_lite.cli.line import (
    LAUNCHER_KEYS,
    SWEEP_FLAGS,
    VERBS,
    Line,
    conf_folder,
    config_class,
    file_keys,
    part_options,
    read_line,
)
from darts_lite.cli.sweep import Job, Sweep, failures
from darts_lite.errors import Exit, UserError, all_of, choice, out_of_memory
from darts_lite.hardware.machine import cores, is_own, own_process, share
from darts_lite.runs.report import silence, write
from darts_lite.settings.schema import describe, from_plain, leaves, part_kinds, unknown_key


def command(verb: str, argv: list[str] | None = None) -> int:
    """`run_verb` in a process that is ours alone, as that of a command line is: settings of the whole process are made."""
    with own_process():
        return run_verb(verb, argv)


def run_verb(verb: str, argv: list[str] | None = None) -> int:
    """Run a verb with the words of a command line (default: this process's); returns the exit code and never raises.

    May be called any number of times in one process.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        if "-h" in argv or "--help" in argv:
            from darts_lite.cli.usage import usage

            write(usage(verb))
            return Exit.FINISHED
        if "--version" in argv:
            write(f"darts_lite {darts_lite.__version__}")
            return Exit.FINISHED
        if "-sc" in argv or "--shell-completion" in argv:
            return _hydra(verb, argv, lambda config: None)
        return _run(verb, read_line(verb, argv))
    except BrokenPipeError:  # of --help or --cfg, whose reader has seen enough
        silence()
        return Exit.FINISHED
    except BaseException as error:
        return tell(error)


def run_package(argv: list[str] | None = None) -> int:
    """`python -m darts_lite`: list the verbs, or run the one that is named."""
    from darts_lite.cli.usage import verbs

    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        write(verbs())
        return Exit.FINISHED
    if argv[0] == "--version":
        return run_verb(VERBS[0], argv)  # the same for every verb
    if argv[0] not in VERBS:
        return tell(choice("verb", argv[0], VERBS))
    return command(argv[0], argv[1:])


def _run(verb: str, line: Line) -> int:
    """Compose and run: one job, or those of a sweep. The code is the first one that is not 0."""
    if sys.stdout.isatty() and not line.problems and set(line.flags) <= set(SWEEP_FLAGS):
        _say_loading(verb)  # there even before Hydra is loaded; into a file only once nothing is refused
    _check_grammar(verb, line)
    if line.problems and (line.sweep or line.flags):
        raise _all(line.problems)
    stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    settings = _own_settings(verb, line, stamp) | line.overrides
    sweep = None
    if line.sweep:
        threads = share(_at_once(line, settings))
        sweep = Sweep(verb, Path(_value("hydra.sweep.dir", settings)), stamp, threads, is_own())
    codes: list[int] = []

    def task(composed: Any) -> None:  # travels to other processes with some launchers
        codes.append(_job(verb, line, composed, sweep))

    try:
        _hydra(verb, [*line.flags, *(_word(key, value) for key, value in settings.items())], task)
    except UserError as error:
        raise _all([*line.problems, error]) from error
    finally:
        jobs = sweep.tell() if sweep else []
    failed = [job["number"] for job in jobs if job["code"] != Exit.FINISHED]
    if failed:
        print_error(failures(len(jobs), failed))
        codes = [Exit.BUG if job["code"] is None else job["code"] for job in jobs]
    return next((code for code in codes if code), Exit.FINISHED)


def _word(key: str, value: str) -> str:
    """An override; an option is added where the chosen part has none of its name, so that it is refused with our own reason."""
    return f"{'++' if '.' in key and not key.startswith('hydra') else ''}{key}={value}"


def _say_loading(verb: str) -> None:
    """The first line, where torch is not loaded yet: for seconds nothing else would be seen."""
    if "torch" not in sys.modules:
        write(f"darts_lite {darts_lite.__version__}, {verb}: loading torch")


def _value(key: str, settings: dict[str, str]) -> str:
    """A setting as it was meant, without the quotes of Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return str(OverridesParser.create().parse_override(f"{key}={settings[key]}").value())


def _at_once(line: Line, settings: dict[str, str]) -> int:
    """How many jobs of a sweep this machine runs side by side."""
    launcher = line.overrides.get("hydra/launcher")
    if launcher not in ("joblib", "submitit_local"):
        return 1  # one after another, or on other machines
    jobs = math.prod(_jobs(key, value) for key, value in settings.items() if not key.startswith("hydra"))
    if launcher == "submitit_local":
        return jobs
    try:
        wanted = int(_value("hydra.launcher.n_jobs", {"hydra.launcher.n_jobs": "-1"} | settings))
    except ValueError:
        return 1  # Hydra refuses it
    return min(jobs, wanted if wanted > 0 else max(1, cores() + 1 + wanted))  # joblib: -1 is all cores, -2 all but one


def _jobs(key: str, value: str) -> int:
    """How many values a sweep gives this key."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(f"{key}={value}")
        return sum(1 for _ in override.sweep_iterator()) if override.is_sweep_override() else 1
    except (HydraException, ValueError):
        return 1


def _own_settings(verb: str, line: Line, stamp: str) -> dict[str, str]:
    """Hydra makes no folder and no log, except for the folder of a sweep, whose jobs make their own inside."""
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


def _job(verb: str, line: Line, composed: Any, sweep: Sweep | None) -> int:
    """One job: check its settings, call the verb, report; returns the exit code."""
    from omegaconf import OmegaConf

    from darts_lite.cli import console

    report = console.create()
    job: Job | None = None
    config: Any = None
    try:
        if sweep:
            sweep.settle()
            job = _job_of(sweep)
        config = _checked(verb, line, OmegaConf.to_container(composed, resolve=False))
        if not sys.stdout.isatty() and (sweep is None or sweep.here):
            _say_loading(verb)
        if job:
            report.line(f"job {job.number}: {' '.join(job.overrides)}")
            config = job.place(config, line.typed)
        _function(verb)(config, typed=line.typed, report=report)
        if job:
            job.end(Exit.FINISHED)
        return Exit.FINISHED
    except (Exception, SystemExit) as error:  # SystemExit would end a sweep
        report.close()
        stop = interruption(error) if sweep is None or sweep.here else None
        problem = _memory_error(error, verb, config, report) if config and out_of_memory(error) else error
        code = stop or tell(problem)
        if job:
            job.end(code, reason(problem))
        if stop:
            raise Stop from error
        return code
    finally:
        report.close()


def _function(verb: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(f"darts_lite.{verb}"), verb)


def _job_of(sweep: Sweep) -> Job:
    from hydra.core.hydra_config import HydraConfig

    config = HydraConfig.get()
    return sweep.job(config.job.num, [word.lstrip("+") for word in config.overrides.task])


def _memory_error(error: BaseException, verb: str, config: Any, report: Any) -> UserError:
    from darts_lite.runs.out_of_memory import memory_error

    report.line("out of memory: looking for a batch that fits")
    return memory_error(error, verb, _function(verb), config)


def _checked(verb: str, line: Line, plain: Any) -> Any:
    """The configuration; raises what is wrong with it together with what was wrong with the words."""
    try:
        config: Any = from_plain(config_class(verb), _of_chosen_parts(verb, plain, line.overrides))
    except UserError as error:
        raise _all([*line.problems, error]) from None
    if line.problems:
        raise _all(line.problems)
    return config


def _of_chosen_parts(verb: str, plain: dict[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """Leave out options that files of conf/ give to parts that are not chosen; typed ones stay, and are refused."""
    for key, kind in part_options(verb).items():
        *parents, option = key.split(".")
        part = plain[kind] if len(parents) == 1 else plain[kind].get(parents[1])
        if part and option in part and key not in typed and option not in file_keys(f"{kind}/{part.get('name')}"):
            del part[option]
    several = [kind for kind, listed in part_kinds(config_class(verb)).items() if listed]
    return plain | {kind: {name: part for name, part in plain[kind].items() if part} for kind in several}


def _all(problems: list[UserError]) -> UserError:
    error = all_of(problems)
    assert error is not None
    return error


def _check_grammar(verb: str, line: Line) -> None:
    """Parse each override by itself: what Hydra cannot read becomes a problem of the line and is left out."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for key, value in list(line.overrides.items()):
        problem = None
        try:
            several = parser.parse_override(f"{key}={value}").is_sweep_override()
        except (HydraException, ValueError):
            problem = UserError(key, "cannot be read", _readable(verb, key, value), value=value)
        else:
            if several and not line.sweep:
                fix = "add -m for a sweep, or write [a,b] for a list"
                problem = UserError(key, "several values need a sweep", fix, value=value)
        if problem:
            line.problems.append(problem)
            del line.overrides[key]


def _readable(verb: str, key: str, value: str) -> str:
    """What to write in place of a value that Hydra's grammar does not have."""
    leaf = leaves(config_class(verb)).get(key)
    if value.startswith("="):
        return f"write {key}{value}"
    return f"give {describe(leaf.hint, leaf.limits)}" if leaf else f"""quote the value twice: "{key}='...'\""""


def _hydra(verb: str, words: list[str], task: Callable[[Any], None]) -> int:
    """`hydra.main` with `words` as the command line; its own refusals become a UserError."""
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
    """Hydra reads sys.argv and keeps a global; both are put back. Full errors: it raises instead of exiting."""
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
    """Hydra's own words, without its advice to add keys."""
    text = str(error).split("\nTo append")[0].split("\nSee ")[0]
    named = re.search(r"override '([^']+)'|merging override ([^=\s]+)|Could not find '([^']+)'", text)
    key = next(filter(None, named.groups())) if named else "command line"
    if key.startswith("hydra.launcher."):
        return unknown_key(key, [f"hydra.launcher.{name}" for name in LAUNCHER_KEYS])
    return UserError(key, f"refused by Hydra: {text.splitlines()[0].strip()}", "see --help for keys and groups")
