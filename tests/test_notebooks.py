"""The notebooks run from the first cell to the last, at small sizes, and what is committed of them is clean.

`python tests/test_notebooks.py` runs them as they are and stores their outputs in the files, which is what GitHub shows.
"""

import ast
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from process import environment

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = {
    "quickstart": """
SEARCH = {"epochs": 1, "cells": 1, "channels": 1, "batch_size": 512}
RETRAIN = {"epochs": 1, "cells": 1, "channels": 1, "batch_size": 512}
""",
    "hypergradients": """
WEIGHTS, MIXTURES = 8, 3
STEPS = [1e-4, 1e-2, 1.0]
RADII = [0.001, 0.01, 0.1]
IMAGES, CHANNELS = 8, 2
""",
}
MACHINE_PATH = re.compile(r"(?<![\w.])(?:/(?:home|root|tmp|work|usr|opt|mnt|Users|private|var)/|[A-Z]:\\)")


def execute(notebook, folder):
    """Run all cells in `folder`, with this interpreter and this checkout."""
    kernels = KernelSpecManager(kernel_dirs=[])  # none but ipykernel's own: a python3 of the user may be another Python
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=kernels)
    client = NotebookClient(notebook, km=manager, timeout=600, record_timing=False, coalesce_streams=True)
    client.execute(cwd=str(folder), env=environment(IPYTHONDIR=str(folder / ".ipython")))


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def pictures(notebook):
    return [output.data["image/svg+xml"] for output in outputs(notebook) if "image/svg+xml" in output.get("data", {})]


def text(notebook):
    return "".join(output.text for output in outputs(notebook) if output.output_type == "stream")


def names(source):
    """What the assignments of a cell define."""
    targets = (target for node in ast.parse(source).body for target in node.targets)
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def run_small(name, folder, *facts):
    """A notebook after its run at small sizes, and the values of the expressions `facts` at its end."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    sizes = code(notebook)[0]
    assert names(sizes.source) == names(SMALL[name])
    sizes.source = SMALL[name]
    last = f"import json, sys\nprint(json.dumps([{', '.join(('sys.executable', *facts))}]))"
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    execute(notebook, folder)
    executable, *values = json.loads(notebook.cells.pop().outputs[0].text)
    assert executable == sys.executable
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    return notebook, *values


def test_quickstart(tmp_path):
    notebook, probabilities, shape = run_small("quickstart", tmp_path, "probabilities.tolist()", "image.size")
    assert len(pictures(notebook)) == 2
    assert shape == [8, 8] and len(probabilities) == 1 and sum(probabilities[0]) == pytest.approx(1)
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert "looks like" in text(notebook) and "test accuracy" in text(notebook)
    (runs,) = (tmp_path / "outputs" / "quickstart").iterdir()
    assert {path.name for path in runs.iterdir()} == {"search", "retrain"}
    assert {path.name for path in tmp_path.iterdir()} <= {"outputs", ".ipython"}


def test_hypergradients(tmp_path):
    notebook, errors, slope, network, kinks = run_small(
        "hypergradients", tmp_path, "errors", "slope", "network_errors", "kinks"
    )
    assert len(pictures(notebook)) == 3
    assert max(errors["unrolled_exact"]) < 1e-13
    assert max(errors["unrolled"]) < 1e-10
    small, middle, _ = errors["first_order"]
    assert middle / small == pytest.approx(100, rel=0.1)  # xi is 100 times larger
    assert slope == pytest.approx(2, abs=0.1)
    assert 50 < network["SiLU"]["0.01"] / network["SiLU"]["0.001"] < 200
    assert network["ReLU"]["0.01"] > 10 * network["SiLU"]["0.01"]
    assert kinks["0.1"] > kinks["0.001"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_committed(path):
    """Run in order, without a fault, and nothing of the machine in it."""
    raw = path.read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stem in SMALL
    assert len(raw.encode()) < 150_000
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert not [
        output for output in outputs(notebook) if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert pictures(notebook)
    assert not MACHINE_PATH.findall(json.dumps(notebook, ensure_ascii=False).replace("\\n", "\n"))
    for cell in notebook.cells:
        assert "execution" not in cell.metadata, "times of the machine"


def test_every_notebook_is_run():
    if not PATHS:
        pytest.skip("no notebooks beside the tests")
    assert {path.stem for path in PATHS} == set(SMALL)


def main():
    """Run the notebooks at their own sizes and store the outputs, without the lines about progress."""
    import tempfile

    for path in PATHS:
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        for output in outputs(notebook):
            if output.output_type == "stream":
                output.text = re.sub(r"^(?:\[ *\d+%\]|about \d).*\n", "", output.text, flags=re.MULTILINE)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
