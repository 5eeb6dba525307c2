"""Command line of every verb: turns all that happens into lines and an exit code.

`run_verb` reads the words (line.py), lets Hydra compose the configuration and run the jobs of a sweep (compose.py), checks it
(settings/schema.py) and calls the verb's function.
"""

import importlib
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import darts_lite
from darts_lite.cli.compose import (
    as_word,
    check_grammar,
    compose,
    jobs_at_once,
    of_chosen_parts,
    own_settings,
    value_of,
)
from darts_lite.cli.endings import Stop, interruption, print_error, reason, tell
from darts_lite.cli.line import SWEEP_FLAGS, VERBS, Line, config_class, read_line
from darts_lite.cli.sweep import Job, Sweep, failures
from darts_lite.errors import Exit, UserError, choice, out_of_memory, raise_all
from darts_lite.hardware.machine import is_own, own_process, share
from darts_lite.runs.report import silence, write
from darts_lite.settings.configs import AnyConfig
from darts_lite.settings.pace import typed_wins
from darts_lite.settings.schema import from_plain


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
            return compose(verb, argv, lambda config: None)
        return _run(verb, read_line(verb, argv))
    except BrokenPipeError:  # of --help or --cfg, whose reader has seen enough
        silence()
        return Exit.FINISHED
    except BaseException as error:
        return tell(error)


def configuration(verb: str, *words: str) -> AnyConfig:
    """Configuration that the words of a command line make, for programs: `configuration("search", "method=drnas", "epochs=10")`.

    Raises UserError (2), also for flags and sweeps.
    """
    line = read_line(verb, list(words))
    if line.flags:
        raise_all([UserError(flag, "is no setting", "leave it out") for flag in line.flags])
    check_grammar(verb, line)
    composed: list[Any] = []
    _compose(verb, line, own_settings(verb, line, "") | line.overrides, composed.append)
    return _checked(verb, line, composed[0])


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
    check_grammar(verb, line)
    if line.sweep or line.flags:
        raise_all(line.problems)
    stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    settings = own_settings(verb, line, stamp) | line.overrides
    sweep = None
    if line.sweep:
        threads = share(jobs_at_once(line, settings))
        sweep = Sweep(verb, Path(value_of("hydra.sweep.dir", settings)), stamp, threads, is_own())
    codes: list[int] = []

    def task(composed: Any) -> None:  # travels to other processes with some launchers
        codes.append(_job(verb, line, composed, sweep))

    try:
        _compose(verb, line, settings, task)
    finally:
        jobs = sweep.conclude() if sweep else []
    failed = [job["number"] for job in jobs if job["code"] != Exit.FINISHED]
    if failed:
        print_error(failures(len(jobs), failed))
        codes = [Exit.BUG if job["code"] is None else job["code"] for job in jobs]
    return next((code for code in codes if code), Exit.FINISHED)


def _compose(verb: str, line: Line, settings: dict[str, str], task: Callable[[Any], None]) -> None:
    """Call `task` with what Hydra composes of the settings. Raises one UserError with the problems of the words and Hydra's."""
    try:
        compose(verb, [*line.flags, *(as_word(key, value) for key, value in settings.items())], task)
    except UserError as error:
        raise_all([*line.problems, error])


def _say_loading(verb: str) -> None:
    """Print a first line where torch is not loaded yet: for seconds nothing else would be seen."""
    if "torch" not in sys.modules:
        write(f"darts_lite {darts_lite.__version__}, {verb}: loading torch")


def _job(verb: str, line: Line, composed: Any, sweep: Sweep | None) -> int:
    """One job: check its settings, call the verb, report; returns the exit code."""
    from darts_lite.cli import console

    report = console.create()
    job: Job | None = None
    config: AnyConfig | None = None
    try:
        if sweep:
            sweep.settle()
            from hydra.core.hydra_config import HydraConfig

            composing = HydraConfig.get()
            job = sweep.job(composing.job.num, [word.lstrip("+") for word in composing.overrides.task])
        config = _checked(verb, line, composed)
        if not sys.stdout.isatty() and (sweep is None or sweep.here):
            _say_loading(verb)
        if job:
            report.line(f"job {job.number}: {' '.join(job.overrides)}")
            config = job.place(config, line.typed_keys)
        _function(verb)(config, typed_keys=line.typed_keys, report=report)
        if job:
            job.end(Exit.FINISHED)
        return Exit.FINISHED
    except (Exception, SystemExit) as error:  # SystemExit would end a sweep
        report.close()
        stop = interruption(error) if sweep is None or sweep.here else None
        problem: BaseException = error
        if config and out_of_memory(error):
            from darts_lite.runs.out_of_memory import memory_error

            report.line("out of memory: looking for a batch that fits")
            problem = memory_error(error, verb, _function(verb), config)
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


def _checked(verb: str, line: Line, composed: Any) -> AnyConfig:
    """Configuration of a job. Raises one UserError with its problems and those of the words."""
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(composed, resolve=False)
    try:
        config = from_plain(config_class(verb), of_chosen_parts(verb, plain, line.overrides))
    except UserError as error:
        raise_all([*line.problems, error])
    raise_all(line.problems)
    return typed_wins(config, line.typed_keys)
