"""The wheel and the sdist hold the package, all of it and nothing else, and what is installed from the wheel runs."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from process import environment

ROOT = Path(__file__).resolve().parent.parent
DATA = {
    "darts_lite/data/digits.npz",
    "darts_lite/data/digits.LICENSE.txt",
    "darts_lite/data/published.json",
    "darts_lite/genotypes/published.json",
}
TOP = {"README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "pyproject.toml"}

if not all((ROOT / name).exists() for name in ("conf", "pyproject.toml")):
    pytest.skip("not a checkout", allow_module_level=True)
NAME = "darts_lite-" + tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def here(folder, pattern):
    """Paths below a folder of this checkout, as a wheel writes them."""
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(pattern)}


def quietly(words, **options):
    """Run `python words...`; returns what it said. Fails with its errors."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tree():
    """Everything in the checkout that a build could leave behind."""
    return {path for folder in (ROOT, ROOT / "darts_lite", ROOT / "conf") for path in folder.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with both; the wheel is built from the unpacked sdist, so that one is complete."""
    folder, before = tmp_path_factory.mktemp("dist"), tree()
    quietly(["-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], cwd=folder)
    assert tree() == before, "nothing is left in the checkout"
    return folder


def test_wheel(built):
    (path,) = built.glob("*.whl")
    assert path.name == f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        found = {name for name in wheel.namelist() if not name.endswith("/")}
        assert len(found) == len(wheel.namelist()), "twice"
    package = here("darts_lite", "*.py") | DATA | {f"darts_lite/{name}" for name in here("conf", "*.yaml")}
    information = {f"{NAME}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    licenses = {f"{NAME}.dist-info/licenses/{name}" for name in ("LICENSE", "darts_lite/data/digits.LICENSE.txt")}
    assert found == package | information | licenses


def test_sdist(built):
    (path,) = built.glob("*.tar.gz")
    assert path.name == f"{NAME}.tar.gz"
    with tarfile.open(path) as sdist:
        members = sdist.getmembers()
    assert all(member.isfile() and member.name.startswith(f"{NAME}/") for member in members)
    found = {member.name.removeprefix(f"{NAME}/") for member in members}
    package = here("darts_lite", "*.py") | DATA | here("conf", "*.yaml")
    notebooks = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    beside = here("tests", "*.py") | notebooks | TOP
    assert found - {".gitignore"} == package | beside | {"PKG-INFO"}


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A folder that holds nothing but what pip takes from the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    offline = ["--no-deps", "--no-index", "--disable-pip-version-check", "--no-compile"]
    quietly(["-m", "pip", "install", "-q", *offline, "--target", str(folder), str(wheel)], cwd=folder)
    return folder


def test_what_is_installed_runs(installed, tmp_path):
    """From a folder without a checkout: --help by the console script, a few steps of a search by `python -m`."""
    options = {"cwd": tmp_path, "env": environment(installed)}
    code = "import darts_lite.search, darts_lite.cli.line; print(darts_lite.search.__file__); print(darts_lite.cli.line.conf_folder())"
    module, conf = quietly(["-c", code], **options).splitlines()
    assert Path(module) == installed / "darts_lite" / "search.py"
    assert Path(conf) == installed / "darts_lite" / "conf"
    for words in (["-m", "darts_lite.search"], [str(installed / "bin" / "darts-lite-search")]):
        assert "python -m darts_lite.search" in quietly([*words, "--help"], **options)
    words = ["epochs=1", "cells=1", "channels=1", "batch_size=512", "device=cpu", "run_dir=run"]
    quietly(["-m", "darts_lite.search", *words], **options)
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"genotype.json", "result.json", "cells"}
