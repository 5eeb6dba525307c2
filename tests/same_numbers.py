"""Whether two checkouts compute the same numbers: a search, a second-order search and a retraining, each under one seed.

    python tests/same_numbers.py <folder of a checkout> <folder of another>

Compared bit by bit: every line of metrics.jsonl and alphas.jsonl but for times, genotype.json, every tensor of the last checkpoint and of
model.pt. Each run is made by its checkout's own code, in a process of its own with one thread. Takes three minutes on one core.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from process import environment

RUNS = {
    "search": ["darts_lite.search", "epochs=2", "cells=4"],
    "second_order": ["darts_lite.search", "method=darts_second_order", "epochs=1", "cells=3"],
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
    for name in ("metrics.jsonl", "alphas.jsonl"):
        if (folder / name).exists():
            for number, line in enumerate((folder / name).read_text("utf-8").splitlines()):
                found[f"{name} {number}"] = {key: value for key, value in json.loads(line).items() if key != "time"}
    if (folder / "genotype.json").exists():
        found["genotype.json"] = (folder / "genotype.json").read_text("utf-8")
    stored = [max((folder / "checkpoints").glob("*.pt")), *folder.glob("model.pt")]
    for path in stored:
        content = path.read_bytes()
        state = torch.load(path, map_location="cpu", weights_only=True) if content[:2] == b"PK" else {}
        kind = path.name.partition(".")[0]  # without a hash of all that is stored, of which a part is the time
        found |= {f"{kind}{name}": digest(tensor) for name, tensor in tensors(state)}
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
        unequal = sorted(key for key in {*first, *second} if first.get(key) != second.get(key))
        different += len(unequal)
        print(f"{name}: {len(first)} and {len(second)} things, {len(unequal)} different", *unequal[:10], sep="\n  ")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
