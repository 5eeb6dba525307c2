"""Whether two checkouts compute the same numbers: a search, a second-order search and a retraining, each under one seed.

    python tests/same_numbers.py <folder of a checkout> <folder of another>

Compared bit by bit: alphas.jsonl, genotype.json, every tensor of the last checkpoint and of model.pt, and the values of metrics.jsonl
that both have: it gains lines and values from version to version. Each run is made by its checkout's own code, in a process of its own
with one thread. Takes three minutes on one core.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from process import environment

MEASURED = "metrics.jsonl"
PUBLISHED = "alpha_lr=3e-4"  # typed, because what a preset makes of it may change on purpose
RUNS = {
    "search": ["darts_lite.search", "method=darts_first_order", "epochs=2", "cells=4", PUBLISHED],
    "second_order": ["darts_lite.search", "method=darts_second_order", "epochs=1", "cells=3", PUBLISHED],
    "retrain": [
        "darts_lite.retrain",
        "genotype=darts_v2",
        "epochs=2",
        "cells=4",
        "drop_path=0.2",
        "auxiliary_weight=0",
    ],
}


def tensors(tree, name=""):
    """(dotted name, tensor) of everything in nested containers."""
    if isinstance(tree, torch.Tensor):
        yield name, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from tensors(value, f"{name}.{key}")
    elif isinstance(tree, (list, tuple)):
        for place, value in enumerate(tree):
            yield from tensors(value, f"{name}.{place}")


def digest(tensor):
    """Type, shape and bytes of a tensor, as a short text."""
    data = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(data).hexdigest()[:16]}"


def outcome(folder):
    """What is compared of a run folder: name -> text."""
    found = {}
    for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines():
        line = json.loads(line)
        found |= {f"{MEASURED} {line['kind']} {line['step']} {name}": value for name, value in line["values"].items()}
    if (folder / "alphas.jsonl").exists():
        found["alphas.jsonl"] = (folder / "alphas.jsonl").read_text("utf-8")
    if (folder / "genotype.json").exists():
        found["genotype.json"] = (folder / "genotype.json").read_text("utf-8")
    stored = [max((folder / "checkpoints").glob("*.pt")), *folder.glob("model.pt")]
    for path in stored:
        content = path.read_bytes()
        label = path.name.partition(".")[0]  # without the hash, which differs where the form of a stored file does
        state = torch.load(path, map_location="cpu", weights_only=True) if content[:2] == b"PK" else {}
        found |= {f"{label}{name}": digest(tensor) for name, tensor in tensors(state)}
    return found


def run(checkout, words, folder):
    """The outcome of one command, run by the code of `checkout`."""
    command = [sys.executable, "-m", *words, "device=cpu", f"run_dir={folder}"]
    subprocess.run(
        command, cwd=checkout, env=environment(checkout, OMP_NUM_THREADS="1"), check=True, stdout=subprocess.DEVNULL
    )
    return outcome(folder)


def main(checkouts):
    """The exit code: 0 where everything is equal."""
    different = 0
    for name, words in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            first, second = (
                run(Path(path).resolve(), words, Path(folder) / str(i)) for i, path in enumerate(checkouts)
            )
        compared = {key for key in {*first, *second} if not key.startswith(MEASURED)} | (first.keys() & second.keys())
        unequal = sorted(key for key in compared if first.get(key) != second.get(key))
        different += len(unequal)
        sizes = f"{len(first)} and {len(second)} things, {len(compared)} compared"
        print(f"{name}: {sizes}, {len(unequal)} different", *unequal[:10], sep="\n  ")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
