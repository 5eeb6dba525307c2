"""Text of --help: examples, groups with their options, every key with its default and comment, all from conf/."""

import importlib
import re
import textwrap

from darts_lite.cli.line import VERBS, conf_folder, config_class, default_options, file_keys, group_options, inherited
from darts_lite.settings.schema import leaves, part_kinds

COLUMN = 36  # where the comments of the keys start
WIDTH = 110
HOW = """\
Settings are written key=value; of a key written twice the last one counts.
  -m, --multirun   run every combination of comma-separated values: -m seed=0,1,2; a table of the jobs comes last
                   hydra/launcher=joblib runs them side by side, hydra/launcher=submitit_slurm on a cluster
  --cfg job        print the configuration that would run
  -h, --help       this text
  --version        the version of darts_lite
  -sc install=bash for tab completion: eval "$(darts-lite-search -sc install=bash)\""""


def verbs() -> str:
    """List of the verbs, one line each."""
    lines = [f"  python -m darts_lite.{verb:<12} {_first_line(verb).partition(': ')[2]}" for verb in VERBS]
    return "\n".join(["darts_lite: differentiable architecture search", "", *lines, "", "Each answers --help."])


def usage(verb: str) -> str:
    """Text that `python -m darts_lite.<verb> --help` prints."""
    module = importlib.import_module(f"darts_lite.{verb}")
    return "\n\n".join(part for part in ((module.__doc__ or "").strip(), HOW, _groups(verb), _keys(verb)) if part)


def _first_line(verb: str) -> str:
    return (importlib.import_module(f"darts_lite.{verb}").__doc__ or f"{verb}: ").strip().splitlines()[0]


def _groups(verb: str) -> str:
    rows = [
        (group if place == 0 else "", f"{option} *" if option == default else option, _header(f"{group}/{option}"))
        for group, default in default_options(verb).items()
        for place, option in enumerate(group_options(group, verb))
    ]
    groups = 2 + max((len(group) for group, _, _ in rows), default=0)  # columns of the group's name
    column = 2 + groups + max((len(name) for _, name, _ in rows), default=0)  # where the longest name ends
    lines = [
        line
        for group, name, about in rows
        for line in _wrap(f"{f'  {group:<{groups}}{name}':<{column}}  {about}", column + 2)
    ]
    return (
        "\n".join(["Groups: each chooses a file of settings (* is the default), which single keys then change", *lines])
        if lines
        else ""
    )


def _header(name: str) -> str:
    """First sentence of a YAML file's header."""
    lines = (conf_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return lines[lines[0].startswith("# @package")].removeprefix("# ")


def _keys(verb: str) -> str:
    """List of all settings: of the verb, of the default of each group, and the options of all parts."""
    known, groups, kinds = leaves(config_class(verb)), default_options(verb), part_kinds(config_class(verb))
    files = {verb: ""}
    for group, default in groups.items():
        if group in kinds:
            files |= {
                f"{group}/{part}": f"{group}.{part}." if kinds[group] else f"{group}."
                for part in group_options(group, verb)
                if file_keys(f"{group}/{part}") != ["name"]
            }
        elif default != "null":
            prefix = f"{group}." if any(key.startswith(f"{group}.") for key in known) else ""
            files |= dict.fromkeys((f"{group}/{option}" for option in inherited(group, default)), prefix)
    lines, hidden = ["Keys and their defaults"], {*groups, *(f"{kind}.name" for kind in kinds)}
    for name, prefix in files.items():
        lines += ["", f"  {name}.yaml", *_file_keys(name, prefix, hidden)]
        if not prefix:  # what a file sets, those that it inherits do not
            hidden |= set(file_keys(name))
    return "\n".join(lines)


def _file_keys(name: str, prefix: str, hidden: set[str]) -> list[str]:
    """Settings of one YAML file, with the comments beside and above them."""
    body = (conf_folder() / f"{name}.yaml").read_text(encoding="utf-8").partition("\n\n")[2]
    lines, inside = [], ""  # of a mapping in the file, such as benchmark
    for line in body.splitlines():
        if mapping := re.fullmatch(r"(\w+):", line):
            inside = f"{mapping[1]}."
            continue
        inside = inside if line.startswith("  ") else ""
        match = re.fullmatch(r"(\w+): (.+?)(?: # (.*))?", line.removeprefix("  ") if inside else line)
        if line.startswith("# "):
            lines.append(f"    {line}")
        elif match and prefix + match[1] not in hidden:
            setting = f"    {prefix}{inside}{match[1]}={match[2]}"
            text = f"{setting:<{COLUMN}}  {match[3]}" if match[3] else setting
            lines += _wrap(text, COLUMN + 2)
    return lines


def _wrap(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)
