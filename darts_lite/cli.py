"""The command line of every verb: the one wrapper around Hydra, which turns all that happens into lines and a code.

`run_verb` reads the words (config.py), lets Hydra compose the configuration and run the jobs of a sweep, checks it
(settings.py) and calls the verb's function. Hydra makes no folder and no log, and never sees an exception of ours.
"""

import contextlib
import dataclasses
import errno
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from darts_lite.config import VERBS, Line, conf_folder, config_class, read_line
from darts_lite.engine.report import silence, write
from darts_lite.errors import Exit, UserError, all_of, choice
from darts_lite.settings import flat, from_plain

ENVIRONMENT_ERRORS = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.EDQUOT}


class _Stop(BaseException):
    """An interruption on its way out: Hydra catches `Exception` and would go on with the next job of a sweep."""


def run_verb(verb: str, argv: list[str] | None = None) -> int:
    """Run a verb with the words of a command line (default: this process's); returns the exit code and never raises.

    May be called any number of times in one process.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        if "-h" in argv or "--help" in argv:
            from darts_lite.usage import usage

            write(usage(verb))
            return Exit.FINISHED
        if "-sc" in argv or "--shell-completion" in argv:
            return _hydra(verb, argv, lambda config: None)
        return _run(verb, read_line(verb, argv))
    except BrokenPipeError:  # of --help or --cfg, whose reader has seen enough
        silence()
        return Exit.FINISHED
    except BaseException as error:
        return _tell(error)


def run_package(argv: list[str] | None = None) -> int:
    """`python -m darts_lite`: list the verbs, or run the one that is named."""
    from darts_lite.usage import verbs

    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        write(verbs())
        return Exit.FINISHED
    if argv[0] not in VERBS:
        return _tell(choice("verb", argv[0], VERBS))
    return run_verb(argv[0], argv[1:])


def _run(verb: str, line: Line) -> int:
    """Compose and run: one job, or those of a sweep. The code is the first one that is not 0."""
    codes: list[int] = []

    def task(composed: Any) -> None:
        codes.append(_job(verb, line, composed, len(codes)))

    _check_grammar(line)
    if line.problems and (line.sweep or line.flags):
        raise _all(line.problems)
    words = [f"{key}={value}" for key, value in (_own_settings(verb, line) | line.overrides).items()]
    try:
        code = _hydra(verb, [*line.flags, *words], task)
    except UserError as error:
        raise _all([*line.problems, error]) from error
    failed = [str(number) for number, code in enumerate(codes) if code]
    if line.sweep and failed:
        reason = f"{len(failed)} of {len(codes)} jobs failed ({', '.join(failed)})"
        _print_error(UserError("sweep", reason, "see the lines above; resume=auto goes on with the same command"))
    return next((code for code in codes if code), code)


def _own_settings(verb: str, line: Line) -> dict[str, str]:
    """Hydra makes no folder and no log, except for the folder of a sweep, whose jobs make their own inside."""
    stamp = f"outputs/{verb}/sweeps/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    parent = line.overrides.get("run_dir", "null")
    one = line.sweep and parent != "null" and "','" not in parent
    return {
        "hydra/hydra_logging": "none",
        "hydra/job_logging": "none",
        "hydra.output_subdir": "null",
        "hydra.run.dir": ".",
        "hydra.sweep.dir": parent if one else stamp,
        "hydra.sweep.subdir": ".",
    }


def _job(verb: str, line: Line, composed: Any, number: int) -> int:
    """One job: check its settings, call the verb, report; returns the exit code."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from darts_lite import console

    config: Any = None
    report = console.create()
    try:
        config = _checked(verb, line, OmegaConf.to_container(composed, resolve=False))
        if line.sweep:
            hydra = HydraConfig.get()
            report.line(f"job {number}: {' '.join(hydra.overrides.task)}")
            parent = config.run_dir or hydra.sweep.dir
            config = dataclasses.replace(config, run_dir=os.path.join(parent, str(number)))
        function = getattr(importlib.import_module(f"darts_lite.{verb}"), verb)
        function(config, typed=line.typed, report=report)
        return Exit.FINISHED
    except (Exception, SystemExit) as error:  # SystemExit would end a sweep
        report.close()
        if _interruption(error):
            raise _Stop from error
        return _tell(error, config)
    finally:
        report.close()


def _checked(verb: str, line: Line, plain: Any) -> Any:
    """The configuration; raises what is wrong with it together with what was wrong with the words."""
    try:
        config: Any = from_plain(config_class(verb), plain)
    except UserError as error:
        raise _all([*line.problems, error]) from None
    if line.problems:
        raise _all(line.problems)
    return config


def _all(problems: list[UserError]) -> UserError:
    error = all_of(problems)
    assert error is not None
    return error


def _check_grammar(line: Line) -> None:
    """Parse each override by itself: what Hydra cannot read becomes a problem of the line and is left out."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for key, value in list(line.overrides.items()):
        problem = None
        try:
            several = parser.parse_override(f"{key}={value}").is_sweep_override()
        except (HydraException, ValueError):
            fix = f"""quote the value twice: "{key}='...'\""""
            problem = UserError(key, "cannot be read", fix, value=value)
        else:
            if several and not line.sweep:
                fix = "add -m for a sweep, or write [a,b] for a list"
                problem = UserError(key, "several values need a sweep", fix, value=value)
        if problem:
            line.problems.append(problem)
            del line.overrides[key]


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
        raise _disk_error(error) from error
    except SystemExit as error:
        if error.code:
            raise UserError("command line", "cannot be read", "see --help") from error
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
    return UserError(key, f"refused by Hydra: {text.splitlines()[0].strip()}", "see --help for keys and groups")


def _disk_error(error: OSError) -> UserError:
    path = error.filename if isinstance(error.filename, (str, os.PathLike)) else "disk"
    reason = (error.strerror or str(error)).lower()
    return UserError(path, reason, "free space, or give another place, e.g. run_dir=...", code=Exit.ENVIRONMENT)


def _interruption(error: BaseException) -> bool:
    from darts_lite.engine.signals import Interrupted

    return isinstance(error, Interrupted)


def _out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    on_device = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return on_device or isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _memory_error(config: Any) -> UserError:
    torch, values = sys.modules.get("torch"), flat(config) if config is not None else {}
    used = torch.cuda.max_memory_allocated() if torch is not None and torch.cuda.is_initialized() else 0
    batch = f" at batch size {values['batch_size']}" if "batch_size" in values and not values.get("resume") else ""
    peak = f" (peak {used / 2**30:.2f} GiB)" if used else ""
    return UserError(
        "batch_size", f"out of memory{batch}{peak}", "lower batch_size, or channels", code=Exit.ENVIRONMENT
    )


def _tell(error: BaseException, config: Any = None) -> int:
    """Say on stderr what went wrong, one line a problem; returns the exit code."""
    cause = error.__cause__ if isinstance(error, _Stop) and error.__cause__ else error
    known = _known(cause, config)
    if known is None or os.environ.get("DARTS_LITE_DEBUG") == "1":
        traceback.print_exception(cause)
    if isinstance(known, str):
        with contextlib.suppress(OSError):
            print(f"darts_lite: {known}", file=sys.stderr, flush=True)
        return getattr(cause, "code", Exit.SIGINT)
    if known is None:
        fix = "this is a bug of darts_lite; please report it with the lines above"
        known = UserError(type(cause).__name__, str(cause) or "no message", fix, code=Exit.BUG)
    for problem in known.problems:
        _print_error(problem)
    return known.code


def _known(error: BaseException, config: Any) -> UserError | str | None:
    """The error as a user's error, as the text of an interruption, or None: a bug of ours."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if _out_of_memory(error):
        return _memory_error(config)
    if isinstance(error, OSError) and error.errno in ENVIRONMENT_ERRORS:
        return _disk_error(error)
    return str(error) if _interruption(error) else None


def _print_error(problem: UserError) -> None:
    with contextlib.suppress(OSError):  # nobody reads stderr any more
        print(f"darts_lite: error: {problem}", file=sys.stderr, flush=True)
