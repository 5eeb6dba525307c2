"""What a step costs a GPU, counted without one: on the meta device a step can be done, but there is nothing to read.

    python tests/counting.py > results/gpu_counted.json     # a minute

`launches`: kernels of our own, and torch's operators that compute something, each of which launches a kernel or more.
`gigabytes`: what they read and write at least, in bf16; small tables that are float32 in every precision count as bf16.
`convolutions`: distinct problems that cuDNN gets to solve, before the first step, by trying algorithms.
`peak_gigabytes`: the most that tensors hold at once, in bf16.
"""

import contextlib
import json
import sys
import weakref
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from darts_lite.benchmarking.arms import ours_retrain, ours_search
from darts_lite.retrain import RetrainConfig
from darts_lite.search import SearchConfig
from darts_lite.spaces import cell
from darts_lite.spaces.table import Table
from darts_lite.storage import environment
from darts_lite.training import clock, search_state
from darts_lite.training import retrain_step as retrain_state

WAYS = ("kernels", "torch")
FINAL = {"cells": 20, "channels": 36, "auxiliary_weight": 0.0, "drop_path": 0.0}
STEPS = {
    "search": (ours_search, SearchConfig(cells=8, channels=16, batch_size=64)),
    "search_second_order": (ours_search, SearchConfig(cells=8, channels=16, batch_size=64, solver="unrolled")),
    "retrain": (ours_retrain, RetrainConfig(**FINAL, batch_size=96)),
    "retrain_512": (ours_retrain, RetrainConfig(**FINAL, batch_size=512)),
}
RESULTS = Path(__file__).resolve().parent.parent / "results" / "gpu_counted.json"


def without_memory(monkeypatch):
    """The meta device, which after this is treated as a GPU is."""
    for module in (search_state, retrain_state):
        monkeypatch.setattr(module, "computing", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(clock, "Generator", lambda device: torch.Generator())
    for optimizer in ("SGD", "Adam"):
        monkeypatch.setattr(torch.optim, optimizer, Standing)
    # To build a supernet, its live candidates are read.
    monkeypatch.setattr(Table, "__post_init__", lambda table: None)
    monkeypatch.setattr(Table, "live", lambda t: [(e, o) for e in range(len(t.edges)) for o in t.operations])
    return torch.device("meta")


def take_way(monkeypatch, way):
    """A cell is computed with kernels of our own, or with torch's operators."""
    monkeypatch.setattr(cell, "on_gpu", lambda x: way == "kernels")


class Standing:
    """In the place of an optimizer, whose kernels know no device without memory."""

    def __init__(self, parameters, lr, **_):
        self.param_groups, self.state = [{"lr": lr, "params": list(parameters)}], defaultdict(dict)

    def zero_grad(self, set_to_none):
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    def step(self):
        pass


class Computing(TorchDispatchMode):
    """Counts the operators that compute something: on a GPU each of them launches a kernel or more."""

    # Allocation, views, notes of the profiler; and the clipping of gradients, which on a GPU is done for all of them together.
    NOTHING = ("empty", "_unsafe_view", "alias", "profiler", "linalg_vector_norm", "mul_.")

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            self.number += sum(args[-1])  # its mask: a kernel for each gradient
        else:
            self.number += not (func.is_view or any(name in str(func) for name in self.NOTHING))
        return func(*args, **(kwargs or {}))


class Moving(TorchDispatchMode):
    """Counts the numbers that operators which compute something read and write."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if not (func.is_view or any(name in str(func) for name in ("empty", "alias", "profiler"))):
            self.numbers += sum(x.numel() for x in tree_leaves((args, kwargs, made)) if isinstance(x, torch.Tensor))
        return made


class Holding(TorchDispatchMode):
    """The most bytes that tensors made inside hold at once."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.held = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for storage in (t.untyped_storage() for t in tree_leaves(made) if isinstance(t, torch.Tensor)):
            if storage._cdata not in self.held:
                self.held[storage._cdata] = weakref.ref(
                    storage, partial(self._let_go, storage._cdata, storage.nbytes())
                )
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
        return made

    def _let_go(self, key, number, _):
        del self.held[key]
        self.now -= number


class Convolutions(TorchDispatchMode):
    """The distinct problems that cuDNN gets to solve, by direction: before the first step it tries algorithms for each (0.28 s, H100)."""

    def __init__(self):
        super().__init__()
        self.forward, self.of_input, self.of_weight = set(), set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            x, weight, _, *how = args
            self.forward.add(repr((x.shape, weight.shape, x.dtype, how)))
        elif func is torch.ops.aten.convolution_backward.default:
            _, x, weight, _, *how, mask = args
            for wanted, found in zip(mask, (self.of_input, self.of_weight), strict=False):
                if wanted:
                    found.add(repr((x.shape, weight.shape, x.dtype, how)))
        return func(*args, **(kwargs or {}))


def launched():
    """What kernels of our own launch inside; without triton nothing does."""
    try:
        from darts_lite.operations.kernels.triton.launch import counting
    except ImportError:
        return contextlib.nullcontext()
    return counting()


def counted(name):
    """What the step costs; see above."""
    make, config = STEPS[name]
    arm = make(config, "meta", "fp32")
    with Convolutions() as convolutions:
        arm.step()  # and makes what stays, such as the momentum
    with tiny.CudaLayouts(), Holding() as holding:
        arm.step()
    with tiny.CudaLayouts(), Moving() as moving, Computing() as computing, launched() as ledger:
        arm.step()
    ours = 0 if ledger is None else len(ledger.launches)
    moved = 0 if ledger is None else ledger.bytes(2)
    return {
        "launches": ours + computing.number,
        "launches_of_our_own": ours,
        "gigabytes": round((moved + 2 * moving.numbers) / 1e9, 2),
        "convolutions": {name: len(found) for name, found in vars(convolutions).items() if isinstance(found, set)},
        "peak_gigabytes": round(holding.most / 2e9, 2),
    }


def main():
    """Print the counts of every step, computed in both ways."""
    found = {}
    for way in WAYS:
        for name in STEPS:
            with pytest.MonkeyPatch.context() as monkeypatch:
                without_memory(monkeypatch)
                take_way(monkeypatch, way)
                found.setdefault(name, {})[way] = counted(name)
    facts = environment.describe("cpu", None)
    told = {"command": "python tests/counting.py", "commit": facts["git_commit"], "torch": torch.__version__}
    json.dump(told | {"steps": found}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
