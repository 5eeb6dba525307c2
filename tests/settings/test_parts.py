"""Parts with options: chosen and set from the shell, from YAML and from Python, checked, stored, compared and listed."""

import dataclasses
import shutil
from dataclasses import dataclass

import pytest
import tiny

from darts_lite.cli import line as words
from darts_lite.cli.run import run_verb
from darts_lite.errors import Exit, UserError
from darts_lite.methods import build
from darts_lite.methods.build import PARTS, build_method, completed
from darts_lite.methods.method import Stateful
from darts_lite.methods.solvers.unrolled import Unrolled
from darts_lite.runs.resume import resolve
from darts_lite.search import SearchConfig
from darts_lite.settings.configs import CONFIGS
from darts_lite.settings.identity import digest, plain_leaves
from darts_lite.settings.options import option
from darts_lite.settings.parts import PartConfig
from darts_lite.settings.schema import from_plain, leaves, part_kinds, to_plain
from darts_lite.storage import checkpoint


@dataclass(frozen=True)
class Weighted:
    """A penalty with options of several types."""

    weight: float = option(1.0, low=0)
    cells: list[str] = option(["normal"])
    squared: bool = option(False)

    def __call__(self, view):
        total = sum((view.logits[cell] ** (2 if self.squared else 1)).sum() for cell in self.cells)
        return self.weight * total


WEIGHTED = """# @package penalties.weighted
# A penalty of the tests.
#
#   python -m darts_lite.search 'penalties=[weighted]'
#
# Costs and reaches: nothing.

name: weighted
weight: 1.0 # of the sum
cells: [normal]
squared: false
"""
METHOD = """# @package _global_
# A method of the tests.
#
#   python -m darts_lite.search method=tested
#
# Costs and reaches: nothing.

defaults:
  - darts_first_order
  - override /solver: unrolled
  - override /penalties: [weighted]

method: tested
solver:
  radius: 0.05
penalties:
  weighted:
    weight: 3
"""


@pytest.fixture
def extended(tmp_path, monkeypatch):
    """One more penalty and one more method, in the tables and in conf/."""
    folder = tmp_path / "conf"
    shutil.copytree(words.conf_folder(), folder)
    (folder / "penalties").mkdir(exist_ok=True)
    (folder / "penalties/weighted.yaml").write_text(WEIGHTED)
    (folder / "method/tested.yaml").write_text(METHOD)
    for module in ("line", "compose", "usage"):
        monkeypatch.setattr(f"darts_lite.cli.{module}.conf_folder", lambda: folder)
    monkeypatch.setitem(build.PENALTIES, "weighted", Weighted)
    return folder


def parts(config):
    return to_plain(config)["solver"], to_plain(config)["penalties"]


SHELL = [
    ([], {"name": "first_order"}, []),
    (["solver=unrolled"], {"name": "unrolled", "radius": 0.01}, []),
    (["solver=unrolled", "solver.radius=1"], {"name": "unrolled", "radius": 1.0}, []),
    (["method=darts_second_order", "solver.radius=0.5"], {"name": "unrolled", "radius": 0.5}, []),
    (["method=darts_second_order", "solver=first_order"], {"name": "first_order"}, []),
    (["method=tested"], {"name": "unrolled", "radius": 0.05}, [{"name": "weighted", "weight": 3.0}]),
    (["method=tested", "penalties=[]", "solver=first_order"], {"name": "first_order"}, []),
    (["penalties=[weighted]"], {"name": "first_order"}, [{"name": "weighted", "weight": 1.0}]),
    (
        ["penalties=weighted", "penalties.weighted.weight=4"],
        {"name": "first_order"},
        [{"name": "weighted", "weight": 4.0}],
    ),
]


@pytest.mark.parametrize(("typed", "solver", "penalties"), SHELL, ids=str)
def test_options_from_the_shell(typed, solver, penalties, extended, calls):
    assert run_verb("search", typed) == 0
    usual = {"cells": ["normal"], "squared": False}
    assert parts(completed(calls[0][0])) == (solver, [penalty | usual for penalty in penalties])


def test_a_sweep_over_an_option(extended, calls):
    words = ["-m", "solver=unrolled", "solver.radius=0.1,0.2", "penalties=[weighted]", "penalties.weighted.weight=1,2"]
    assert run_verb("search", words) == 0
    found = [(config.solver.options["radius"], config.penalties[0].options["weight"]) for config, *_ in calls]
    assert found == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2)]


def test_typed_options_are_compared(extended, calls):
    run_verb("search", ["solver=unrolled", "solver.radius=0.1", "penalties=[weighted]", "penalties.weighted.weight=2"])
    assert calls[0][1] == {"solver.name", "solver.radius", "penalties"}


REFUSED = [
    (["solver.raduis=1"], ["solver.raduis: unknown key; fix: did you mean 'solver.radius'?"]),
    (
        ["solver.radius=1"],
        ["solver.radius: is an option of solver=unrolled, not of first_order, got 1; fix: leave it out"],
    ),
    (["method=darts_second_order", "solver.radius=0"], ["solver.radius: must be above 0, got 0"]),
    (
        ["solver=unrolled", "solver.radius=[1]"],
        ["solver.radius: must be a number, got [1]; fix: give a number above 0"],
    ),
    (["penalties=[wieghted]"], ["penalties: unknown name, got 'wieghted'; fix: did you mean 'weighted'?"]),
    (["penalties.weighted.weight=3"], ["penalties.weighted: is set, but not chosen", "add penalties=[weighted]"]),
    (
        ["penalties=[weighted]", "penalties.weighted.weight=-1"],
        ["penalties.weighted.weight: must be at least 0, got -1"],
    ),
    (["penalties=[weighted]", "penalties.weighted.cells=[3]"], ["penalties.weighted.cells[0]: must be text, got 3"]),
    (["solver=unrolled,first_order"], ["solver: several values need a sweep"]),
]


@pytest.mark.parametrize(("typed", "said"), REFUSED, ids=str)
def test_wrong_options(typed, said, extended, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert run_verb("search", [*typed, "dataset=npz", "dataset.path=missing.npz"]) == Exit.CONFIGURATION, (
        "before any data"
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert all(text in line for text in said)
    assert sorted(tmp_path.iterdir()) == before


def test_every_problem_of_the_parts_is_found_at_once():
    config = SearchConfig(
        epochs=0,
        relaxation="sofmax",
        solver=PartConfig("unrolled", {"radius": "x", "rad": 1}),
        phases=PartConfig("one", {"number": 3}),
        penalties=["nothing"],
    )
    with pytest.raises(UserError) as caught:
        build_method(config)
    found = {problem.key for problem in caught.value.problems}
    assert found == {"epochs", "relaxation", "solver.radius", "solver.rad", "phases.number", "penalties"}


def test_a_part_of_the_tables_may_be_given_as_an_object(extended):
    config = completed(SearchConfig(solver=Unrolled(radius=0.02), penalties=[Weighted(weight=2)]))
    named = SearchConfig(
        solver=PartConfig("unrolled", {"radius": 0.02}), penalties=[PartConfig("weighted", {"weight": 2})]
    )
    assert config == completed(named) and digest(config) == digest(completed(named))
    assert completed(config) == config == from_plain(SearchConfig, to_plain(config))
    method = build_method(config)
    assert method.solver == Unrolled(0.02) and method.penalties == [Weighted(2.0)]
    assert completed(SearchConfig(solver=Unrolled)) == completed(SearchConfig(solver="unrolled"))
    with pytest.raises(UserError, match=r"solver.radius: must be above 0"):
        completed(SearchConfig(solver=Unrolled(radius=0)))
    with pytest.raises(UserError, match="penalties: must be distinct"):
        completed(SearchConfig(penalties=[Weighted(weight=2), "weighted"]))


@dataclass
class Own:
    """A plain dataclass, neither frozen nor hashable, with a list."""

    numbers: list

    def __call__(self, problem):
        return problem


def test_an_object_of_the_users_own_is_taken_as_it_is():
    mine, function = Own([1]), lambda mixing, *rest: mixing
    config = completed(SearchConfig(solver=mine, perturbation=function, penalties=[mine, Own([2])]))
    method = build_method(dataclasses.replace(config))
    assert method.solver is mine and method.perturbation is function and method.penalties[0] is mine
    stored = from_plain(SearchConfig, to_plain(config))
    assert completed(stored) == config, "its options are not asked of what was stored"
    with pytest.raises(UserError, match="solver: unknown name, got '<"):
        build_method(stored)


class Counted(Stateful):
    """A perturbation that counts its calls."""

    calls = 0

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def test_only_a_part_that_says_so_has_a_state():
    class Unsaid:
        def state_dict(self):
            raise AssertionError

    mine = Counted()
    method = build_method(SearchConfig(perturbation=mine, relaxation=Unsaid(), penalties=[Counted(), len]))
    assert method.stateful_parts() == {"perturbation": mine, "penalty_0": method.penalties[0]}


def test_options_are_stored_and_compared_on_resume(tiny_folder, capsys):
    config = tiny.search_config(solver=Unrolled(radius=0.02), epochs=1)
    tiny.run(config)
    assert tiny.newest("run")["config"]["solver"] == {"name": "unrolled", "radius": 0.02}
    assert "radius: 0.02" in (tiny.Path("run/config.yaml")).read_text()

    def resumed(radius, typed_keys=None):
        return resolve(
            "search", completed(dataclasses.replace(config, solver=Unrolled(radius), resume="run")), typed_keys
        )

    assert resumed(0.02).finished and resumed(0.05, {"resume", "solver.name"}).config.solver.options == {"radius": 0.02}
    with pytest.raises(UserError, match=r"solver.radius 0.02 -> 0.05") as caught:
        resumed(0.05, {"solver.radius"})
    assert caught.value.code == Exit.RUN
    assert run_verb("search", ["resume=run", "solver=unrolled", "solver.radius=0.03"]) == Exit.RUN
    assert "solver.radius 0.02 -> 0.03" in capsys.readouterr().err
    auto = dataclasses.replace(config, resume="auto", run_dir="run", solver=PartConfig("unrolled", {"radius": 0.02}))
    assert resolve("search", completed(auto)).folder is not None
    assert resolve("search", completed(dataclasses.replace(auto, solver="unrolled"))).folder is None

    state = tiny.newest("run")
    state["config"]["solver"] = {"name": "unrolled", "radius": -1}
    tiny.rewrite("run", state)
    with pytest.raises(
        UserError, match=r"its stored configuration cannot be used: solver.radius: must be above 0"
    ) as caught:
        resumed(0.02)
    assert caught.value.code == Exit.RUN


def test_runs_of_an_older_form_are_refused_in_one_line(tiny_folder, capsys):
    tiny.run(tiny.search_config(epochs=1))
    state = tiny.newest("run")
    state["format_version"] = checkpoint.FORMAT_VERSION - 1
    tiny.rewrite("run", state)
    assert run_verb("search", ["resume=run"]) == Exit.RUN
    (line,) = capsys.readouterr().err.splitlines()
    assert f"has format {checkpoint.FORMAT_VERSION - 1}" in line and "fix: use the version" in line


EVERY_PART = [(kind, name) for kind, table in PARTS.items() for name in table]


@pytest.mark.parametrize(("kind", "name"), EVERY_PART)
def test_the_file_of_a_part_says_what_its_class_says(kind, name, composed):
    """Name, options and their defaults; a part without a file cannot be chosen from the shell."""
    several = part_kinds(SearchConfig)[kind]
    config = composed("search", [f"{kind}=[{name}]" if several else f"{kind}={name}"])
    part = getattr(config, kind)[0] if several else getattr(config, kind)
    file = f"{kind}/{name}"
    assert part.name == name and set(words.file_keys(file)) == {"name", *part.options}
    assert getattr(completed(config), kind) == ([part] if several else part), "the defaults are the same"


def test_every_kind_of_part_is_a_setting_with_a_table_and_a_group():
    for verb, kind in CONFIGS.items():
        assert set(part_kinds(kind)) <= set(PARTS) and set(part_kinds(kind)) <= set(words.default_options(verb))
    assert set(part_kinds(SearchConfig)) == set(PARTS)
    for kind, table in PARTS.items():
        assert set(words.group_options(kind, "search")) == set(table)


def test_help_lists_the_options_of_parts(extended, capsys):
    assert run_verb("search", ["--help"]) == 0
    text = capsys.readouterr().out
    assert "  solver.radius=0.01 " in text and "of the two probes around the weights" in text
    assert "  penalties.weighted.weight=1.0 " in text and "weighted" in text


def test_every_option_has_a_dotted_key(extended):
    config = completed(SearchConfig(solver="unrolled", penalties=["weighted"]))
    keys = plain_leaves(config)
    assert keys["solver.name"] == "unrolled" and keys["solver.radius"] == 0.01
    assert keys["penalties"] == [{"name": "weighted", "weight": 1.0, "cells": ["normal"], "squared": False}]
    assert set(leaves(SearchConfig)) <= set(keys)


def test_the_composed_configuration_shows_what_is_inherited(capsys):
    assert run_verb("search", ["--cfg", "job", "method=darts_second_order", "dataset=cifar10"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for line in ("method: darts_second_order", "name: unrolled", "radius: 0.01", "alpha_lr: 0.0003", "name: cifar10"):
        assert line in lines
    assert "crop_padding: 4" in lines and "color_jitter: 0.0" in lines
