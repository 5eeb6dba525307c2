"""What README.md tells a stranger to type or look at exists: commands compose, files are there, names are known."""

import importlib
import inspect
import json
import re
import shlex
import statistics
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from darts_lite.cli.line import VERBS, conf_folder, config_class, default_options, group_options, read_line
from darts_lite.errors import Exit
from darts_lite.genotypes.text import PUBLISHED
from darts_lite.settings.schema import from_plain

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
if not README.is_file():
    pytest.skip("no README beside the tests", allow_module_level=True)
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)

# Every command of the README and of the headers in conf/ and in the verbs.
PLACES = [README, *conf_folder().rglob("*.yaml"), *(ROOT / "darts_lite" / f"{verb}.py" for verb in VERBS)]
COMMANDS = sorted(
    {
        line.partition("python -m darts_lite.")[2].partition(" #")[0].strip()
        for place in PLACES
        for line in re.findall(r"^[# ]*(?:.*&& \.venv/bin/)?python -m darts_lite\..*$", place.read_text("utf-8"), re.M)
    }
)


def test_the_two_commands_at_the_top():
    assert BLOCKS[0][1] == (
        "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/python -m darts_lite.search\n"
    )
    assert BLOCKS[1][1] == (
        'python3 -m venv .venv && .venv/bin/pip install -e ".[dev]" && .venv/bin/python -m pytest -n auto\n'
    )
    assert TEXT.index(BLOCKS[1][1]) < 400


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command):
    verb, *words = shlex.split(command)
    line = read_line(verb, words)
    assert not line.problems
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        overrides = [f"{key}={value.split(',')[0] if line.sweep else value}" for key, value in line.overrides.items()]
        from_plain(config_class(verb), OmegaConf.to_container(compose(verb, overrides=overrides)))


def test_there_are_commands_of_every_verb():
    assert {command.split()[0] for command in COMMANDS} == set(VERBS)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:darts_lite|conf|tests|results|notebooks)/[^`<*]*)`", TEXT)))
)
def test_files_exist(path):
    assert (ROOT / path).exists()


def test_groups_and_options():
    table = TEXT[TEXT.index("| group | choices |") : TEXT.index("### Something does not work")]
    rows = dict(re.findall(r"^\| `(\w+)`[^|]*\| ([^|]+) \|", table, re.MULTILINE))
    groups = {group for verb in VERBS for group in default_options(verb)}
    assert set(rows) == groups
    for group, named in rows.items():
        options = {option for verb in VERBS if group in default_options(verb) for option in group_options(group, verb)}
        assert set(re.findall(r"`(\w+)`", named)) == options


def test_exit_codes():
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", TEXT, re.MULTILINE) for code in row.split(",")}
    assert told == set(Exit)


def test_published_names():
    assert all(f"`{name}`" in TEXT for name in PUBLISHED)


def test_python_example():
    source = next(body for language, body in BLOCKS if language == "python")
    compile(source, "README.md", "exec")
    for module, names in re.findall(r"^from (\S+) import (.+)$", source, re.MULTILINE):
        for name in names.split(", "):
            assert inspect.getdoc(getattr(importlib.import_module(module), name))


def test_tables_that_are_named():
    from darts_lite import data, operations, spaces
    from darts_lite.methods import penalties, relaxations, selections, solvers

    modules = (data, operations, penalties, relaxations, selections, solvers, spaces)
    for name in re.findall(r"`([A-Z]{5,})`", TEXT):
        assert any(isinstance(getattr(module, name, None), dict) for module in modules), name


def test_ci_runs_the_second_command():
    script = ROOT / ".ci" / "run"
    if not script.is_file():
        pytest.skip("not a checkout")
    last = script.read_text("utf-8").splitlines()[-1]
    assert last.replace(" -q", "") == BLOCKS[1][1].strip()


def row(found):
    """What the README's table says of a benchmark."""
    size, machine, arms = found["settings"], found["environment"], found["arms"].values()
    steps = [f"{arm['seconds']['step']:.3g} s" for arm in arms]
    *theirs, ours = (arm["peak_memory_bytes"] / 1e9 for arm in arms)
    cells = [
        f"{size['mode'].replace('_', ' ')}, C={size['channels']}",
        f"{machine['processor'].replace('(R)', '').removesuffix(' Processor')}, {machine['instructions']}, "
        f"{found['machine']['copy_bytes_per_second'] / 1e9:.0f} GB/s",
        *steps,
        " and ".join(f"{ratio:.1f}" for ratio in found["ratios"].values()) + " times",
        f"{ours:.1f} of {theirs[0]:.1f} GB",
    ]
    return "| " + " | ".join(cells) + " |"


def test_the_table_of_benchmarks_is_that_of_the_results():
    found = [json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "results").glob("benchmark_*.json"))]
    rows = [row(one) for one in found if len(one.get("arms", ())) == 3]
    assert len(rows) >= 6
    assert [one for one in rows if one not in TEXT] == []


def test_the_table_of_counts_is_that_of_the_results():
    """The last two columns of each row: launches, gigabytes, trials, peak; with kernels of our own, and with torch's operators."""
    steps = json.loads((ROOT / "results" / "gpu_counted.json").read_text("utf-8"))["steps"].values()
    told = re.findall(
        r"([\d,]+)(?: launches)?, ([\d.]+) GB, (\d+)(?: trials)?, (?:peak )?([\d.]+) GB",
        TEXT[TEXT.index("### On a GPU") :],
    )
    found = [
        (
            f"{one['launches']:,}",
            f"{one['gigabytes']:.1f}",
            str(sum(one["convolutions"].values())),
            f"{one['peak_gigabytes']:.2f}",
        )
        for step in steps
        for one in (step["kernels"], step["torch"])
    ]
    assert told == found


def in_percent(row, values):
    """A row of a result whose `values`, mean and deviation are shares, as `told` takes it."""
    std = None if row["std"] is None else 100 * row["std"]
    return {"values": [100 * value for value in values], "mean": 100 * row["mean"], "std": std, "n": row["n"]}


def told(row):
    """The cell of a table for values in percent, with their mean and standard deviation checked."""
    assert row["mean"] == pytest.approx(statistics.fmean(row["values"]), abs=1e-3) and row["n"] == len(row["values"])
    if row["n"] == 1:
        return f"{row['mean']:.2f}"
    assert row["std"] == pytest.approx(statistics.stdev(row["values"]), abs=1e-3)
    return f"{row['mean']:.2f} ({row['std']:.2f})"


def test_what_the_default_finds_is_that_of_the_results():
    """Mean, standard deviation and number of the rows that were run, in the table below the two commands."""
    found = json.loads((ROOT / "results" / "nasbench201_reduced.json").read_text("utf-8"))
    table = TEXT[: TEXT.index("## The main job")]
    (draws,) = (rows for rows in found["yardsticks"].values() if isinstance(rows, list))
    for row in draws[::2]:  # of 17 and of 34 cells
        assert re.search(rf"of {row['k']} .*\| {row['mean']:.2f} \({row['std']:.2f}\) \| {row['draws']:,} \|", table)
    for row in (found["validated"], found["one_search"]):
        assert f"| {told(row)} | {row['n']} |" in table.replace("**", "")
    pool = found["random_by_short_trainings"]["best_of_17_of_the_pool"]
    assert (
        f"the same short trainings, at equal cost | {pool['mean']:.2f} ({pool['std']:.2f}) | {pool['cells']} cells |"
        in table
    )
    assert all(f"| {found['yardsticks'][name]:.2f} |" in table for name in list(found["yardsticks"])[:3])


def test_the_table_of_methods_is_that_of_the_results():
    found = json.loads((ROOT / "results" / "nasbench201_methods.json").read_text("utf-8"))
    rows = {"gaea": found["gaea"], **found["methods"]}
    assert set(rows) == set(group_options("method", "search")) - {"darts_second_order"}
    for method, row in rows.items():
        assert f"| `{method}` | {row['steps']:,} | {told(row)} | {row['n']} |" in TEXT


def test_the_table_of_the_darts_space_is_that_of_the_results():
    arms = json.loads((ROOT / "results" / "darts_space_16x16.json").read_text("utf-8"))["arms"]
    assert len(arms) == 5
    for name, arm in arms.items():
        assert f"| {name} | {told(in_percent(arm, arm['values']))} | {arm['n']} |" in TEXT, name


def test_the_table_of_the_digits_is_that_of_the_results():
    found = json.loads((ROOT / "results" / "digits_quick.json").read_text("utf-8"))
    spread = found["spread"]
    rows = {
        "retrained with seeds 0 to 2": found["retrain"],
        "three searches (seeds 0 to 2), each retrained with seed 0": found["retrain_three_searches"],
        "random genotypes, each retrained with seed 0": spread["random"],
    }
    for name, row in rows.items():
        assert f"{name} | {told(in_percent(row, row['test_accuracy']))} | {row['n']} |" in TEXT, name
    assert spread["random"]["best"] == max(spread["random"]["test_accuracy"])
    single = {
        "the best of these 20, chosen by the test": spread["random"]["best"],
        "most parameters, channels set to the nearest MACs": spread["most_parameters"]["test_accuracy"],
    }
    for name, accuracy in single.items():
        assert f"| {name} | {100 * accuracy:.2f} | 1 |" in TEXT, name
