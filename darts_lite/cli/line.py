"""Words of a command line: the keys and groups of a verb, and overrides made safe for Hydra's grammar.

Every word is checked here, before Hydra sees it: an unknown key or option is answered with the nearest valid one,
nothing can be instantiated, resolved, added or deleted, and paths are quoted (Hydra's grammar has no unquoted spaces,
umlauts, = or parentheses). Types and ranges are the business of settings/schema.py. Neither torch nor Hydra is imported.
"""

import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

from darts_lite.errors import UserError, choice, did_you_mean
from darts_lite.settings.configs import CONFIGS, AnyConfig
from darts_lite.settings.datasets import unknown_name
from darts_lite.settings.elsewhere import MISSING, OURS, or_words, ours, spelled
from darts_lite.settings.schema import leaves, part_kinds, unknown_key

VERBS = tuple(CONFIGS)
PATHS = {
    "run_dir",
    "resume",
    "run",
    "genotype",
    "init",
    "dataset.path",
    "dataset.root",
    "dataset_path",
    "benchmark.table",
}
# Quoted for Hydra, so never a number: device=0 is a device that is not there (6), not a wrong type (2).
TEXTS = {*PATHS, "device"}
LAUNCHERS = {
    "basic": "",
    "joblib": "joblib",
    "submitit_local": "slurm",
    "submitit_slurm": "slurm",
}  # -> extra to install
LAUNCHER_KEYS = ("n_jobs", "timeout_min", "partition", "gpus_per_node", "cpus_per_task", "mem_gb", "array_parallelism")
SWEEP_FLAGS = ("-m", "--multirun")
VALUE_FLAGS = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
SHORT_FLAGS = {"-c": "--cfg", "-i": "--info"}


class Line(NamedTuple):
    """Command line, read word by word; `overrides` holds the words without a problem."""

    flags: list[str]  # for Hydra
    overrides: dict[str, str]  # key -> value as Hydra's grammar has it; of a key given twice the last value
    sweep: bool
    typed_keys: frozenset[str]  # dotted keys of the settings that were typed; of a group with keys of its own, its name
    problems: list[UserError]


def conf_folder() -> Path:
    """Folder of the YAML files: inside an installed package, else beside the package of a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def config_class(verb: str) -> type[AnyConfig]:
    """The dataclass of a verb: `search` -> `SearchConfig`."""
    return CONFIGS[verb]


def default_options(verb: str) -> dict[str, str]:
    """Group -> its default option, in the order of conf/<verb>.yaml; `null` where nothing is chosen."""
    text = (conf_folder() / f"{verb}.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"^  - (\w+): (\S+)", text, re.MULTILINE))


def group_options(group: str, verb: str) -> list[str]:
    """Options of a group. An experiment belongs to the verb that the command in its header names."""
    files = sorted((conf_folder() / group).glob("*.yaml"))
    if group == "experiment":
        files = [file for file in files if f"darts_lite.{verb} " in file.read_text(encoding="utf-8")]
    return [file.stem for file in files]


def file_keys(name: str) -> list[str]:
    """Settings of a YAML file of conf/ at its outermost level; none where there is no such file."""
    file = conf_folder() / f"{name}.yaml"
    text = file.read_text(encoding="utf-8").partition("\n\n")[2] if file.is_file() else ""
    return re.findall(r"^(\w+):", text, re.MULTILINE)


def inherited(group: str, option: str) -> list[str]:
    """The option and those of its group whose files it takes over, nearest first: gaea -> gaea, darts_first_order."""
    text = (conf_folder() / group / f"{option}.yaml").read_text(encoding="utf-8")
    return [option, *(name for one in re.findall(r"^  - (\w+)$", text, re.MULTILINE) for name in inherited(group, one))]


def part_options(verb: str) -> dict[str, str]:
    """Dotted key -> setting that it belongs to, of every option of every part: relaxation.start -> relaxation."""
    return {
        f"{kind}.{part}.{key}" if several else f"{kind}.{key}": kind
        for kind, several in part_kinds(config_class(verb)).items()
        for part in group_options(kind, verb)
        for key in file_keys(f"{kind}/{part}")
        if key != "name"
    }


def read_line(verb: str, argv: list[str]) -> Line:
    """Check the words of a command line."""
    problems: list[UserError] = []
    groups = {group: group_options(group, verb) for group in default_options(verb)}
    known, several = [*leaves(config_class(verb)), *part_options(verb)], part_kinds(config_class(verb))
    flags, words = _flags(argv, [*known, *groups], problems)
    mode = [word.partition("=")[2].upper() for word in words if word.startswith("hydra.mode=")]
    sweep = any(flag in SWEEP_FLAGS for flag in flags) or "MULTIRUN" in mode
    overrides: dict[str, str] = {}
    for word in words:
        try:
            key, value = _override(verb, word, sweep, groups, known)
            overrides[key] = value
        except UserError as problem:
            problems.append(problem)
    settings = [(key, key.partition(".")[0]) for key in overrides if not key.startswith(("hydra.", "hydra/"))]
    typed = (kind if several.get(kind) else key if key in known else f"{key}.name" for key, kind in settings)
    return Line(flags, overrides, sweep, frozenset(typed), problems)


def _flags(argv: list[str], names: list[str], problems: list[UserError]) -> tuple[list[str], list[str]]:
    """Flags for Hydra, and the other words. Hydra's flags that load other files or pickles are not among them."""
    flags, words = [], []
    rest = iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        name = SHORT_FLAGS.get(name, name)
        if not word.startswith("-"):
            words.append(word)
        elif word in SWEEP_FLAGS:
            flags.append(word)
        elif name in VALUE_FLAGS:
            value = value if equals else next(rest, "")
            if value not in VALUE_FLAGS[name]:
                problems.append(choice(name, value, VALUE_FLAGS[name]))
            flags += [name, value]
        elif spelled(name) in MISSING:
            reason, fix = MISSING[spelled(name)]
            problems.append(UserError(word, f"unknown option: {reason}", fix))
        elif close := [key for key in names if key == name.lstrip("-").replace("-", "_")] or ours(name, names):
            setting = " or ".join(f"{key}={value or '<value>'}" for key in close)
            problems.append(UserError(word, "unknown option", f"settings are given as key=value: write {setting}"))
        else:
            hint = did_you_mean(name, [*SWEEP_FLAGS, *VALUE_FLAGS, "--help", "--version"])
            problems.append(UserError(word, "unknown option", f"{hint}settings are given as key=value"))
    return flags, words


def _override(verb: str, word: str, sweep: bool, groups: dict[str, list[str]], known: list[str]) -> tuple[str, str]:
    """Key and value of one word, the value as Hydra's grammar wants it."""
    if not word.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in word):
        raise UserError(word, "is not UTF-8", "rename the file or folder")  # Hydra could not write it down
    key, equals, value = word.partition("=")
    names = [*known, *groups]
    if key.startswith("~"):
        raise UserError(word, "a setting cannot be deleted", "leave it out, or give key=null where null is allowed")
    if key.startswith("+"):
        bare, said = key.lstrip("+"), "settings are given without +"
        raise UserError(key, said, f"write {bare}=...") if bare in names else unknown_key(bare, names)
    if "_target_" in key or ("_target_" in value and key not in PATHS):
        raise UserError(word, "_target_ is not allowed: settings hold names and numbers only", "give a plain value")
    if "${" in word:
        raise UserError(key, "${...} is not allowed: nothing is resolved", "give a plain value", value=value)
    if not equals or not key:
        raise _no_setting(word, names)
    if key.startswith("hydra/"):
        if key != "hydra/launcher":
            raise unknown_key(key, ["hydra/launcher"])
        return key, _launcher(value, sweep)
    if key.startswith("hydra."):
        return key, value
    if key in groups:
        return key, _option(verb, key, value, groups[key], sweep)
    if key not in known:
        raise _not_ours(verb, key, names) or unknown_key(key, names)
    if key in TEXTS:
        return key, ",".join(_quote(piece) for piece in (_split(value) if sweep else [value]))
    return key, value


def _no_setting(word: str, names: list[str]) -> UserError:
    """Error for a word without key or `=`, which says what it may have been meant to be."""
    key, colon, value = word.partition(":")
    fix = "see --help"
    if word in names:
        fix = f"write {word}=<value>"
    elif colon and key.strip() in names:
        fix = f"write {key.strip()}={value.strip() or '<value>'}"
    elif word in ("help", *VERBS):
        fix = "write --help" if word == "help" else f"leave it out, or run python -m darts_lite.{word}"
    elif word.startswith("="):
        fix = "write key=value, without blanks around ="
    return UserError(word, "is no key=value", fix)


def _not_ours(verb: str, key: str, names: list[str]) -> UserError | None:
    """Error for a key that other verbs have, under this name or another program's; None where no verb has it."""
    if ours(key, names) or spelled(key) in MISSING:
        return None
    close = [name for name in names if key in name or name in key]  # epoch, epochs; but not recipe, precision
    for meant in (key, *OURS.get(spelled(key), ())):
        others = [other for other in VERBS if meant in (*leaves(config_class(other)), *default_options(other))]
        if others:
            hint = did_you_mean(key, close) if meant == key else or_words([meant])
            fix = f"{hint}it is a key of {' and '.join(others)}; --help lists those of {verb}"
            return UserError(key, "unknown key", fix)
    return None


def _launcher(name: str, sweep: bool) -> str:
    """Name of the launcher of a sweep, once its package is known to be installed."""
    if name not in LAUNCHERS:
        raise choice("hydra/launcher", name, LAUNCHERS)
    if not sweep:
        raise UserError("hydra/launcher", "runs the jobs of a sweep", "add -m, or leave it out", value=name)
    extra, plugin = LAUNCHERS[name], f"hydra_plugins.hydra_{name.partition('_')[0]}_launcher"
    try:
        found = not extra or importlib.util.find_spec(plugin) is not None
    except ModuleNotFoundError:  # not even hydra_plugins
        found = False
    if not found:
        fix = f"pip install 'darts_lite[{extra}]'"
        raise UserError("hydra/launcher", f"{name} needs a package that is not installed", fix)
    return name


def _option(verb: str, group: str, value: str, options: list[str], sweep: bool) -> str:
    """Value of a group, once each option in it is known to exist."""
    listed = part_kinds(config_class(verb)).get(group, False)
    if "," in value and not sweep and not listed:
        raise UserError(group, "several values need a sweep", "add -m, or give one value", value=value)
    allowed = [*options, "null"] if default_options(verb)[group] == "null" else options
    names = re.findall(r"[^\s,\[\]]+", value) if listed else value.split(",") if sweep else [value]
    for name in names:
        if name.strip() not in allowed:
            raise unknown_name(group, name, allowed) if group == "dataset" else choice(group, name, allowed)
    return value


def _split(value: str) -> list[str]:
    """Paths of a sweep: split at commas, except inside a piece that starts and ends with a quote."""
    return re.findall(r"""(?:^|,)('[^']*'(?=,|$)|"[^"]*"(?=,|$)|[^,]*)""", value)


def _quote(path: str) -> str:
    """Path as a quoted string of Hydra, with ~ expanded; null stays null, quotes around the whole are dropped first."""
    if path == "null":
        return path
    inner = path[1:-1]
    if len(path) >= 2 and path[0] == path[-1] and path[0] in "'\"" and path[0] not in inner:
        path = inner
    path = os.path.expanduser(path)
    # In Hydra's strings backslashes count only before a quote, and there they are doubled.
    path = re.sub(r"(\\*)'", lambda match: match.group(1) * 2 + "\\'", path)
    path = re.sub(r"(\\+)$", lambda match: match.group(1) * 2, path)
    return f"'{path}'"
