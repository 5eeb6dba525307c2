"""Run a module of this checkout in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment(root=ROOT, **added):
    """That of this process, in which the package of `root` is found first, and all else that was found before; with `added`."""
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **added}


def run_process(module, words, folder, **added):
    """`python -m module words...` in `folder`, with `added` to the environment; returns a CompletedProcess of text."""
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env=environment(**added),
        capture_output=True,
        text=True,
        timeout=120,
    )
