"""Processes that tests start keep the environment that the tests were started in."""

import os
from pathlib import Path

import pytest
from process import ROOT, environment, run_process


@pytest.mark.parametrize(("before", "after"), [(None, []), ("", []), ("/a", ["/a"]), ("/a:/b", ["/a", "/b"])])
def test_what_was_found_before_is_found_after(before, after, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before)
    found = environment(KEY="value")
    assert found.pop("PYTHONPATH").split(os.pathsep) == [str(ROOT), *after]
    assert found.pop("KEY") == "value"
    assert found == {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_a_process_finds_packages_of_the_environment(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("print('found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_process("only_here", [], ROOT).stdout == "found\n"


def test_no_test_makes_an_environment_of_its_own():
    paths = {path for path in Path(__file__).parents[1].rglob("*.py") if "PYTHONPATH" in path.read_text("utf-8")}
    assert {path.name for path in paths} == {"process.py", "test_process.py"}
