"""The Triton kernels that a cell launches compile for GPUs, with registers enough; and what a step moves is counted. No GPU is needed."""

import json
import subprocess
import sys

import pytest
import torch
from process import ROOT, environment

pytest.importorskip("triton")

from darts_lite.operations import OPERATIONS
from darts_lite.operations.kernels.triton.launch import counting
from darts_lite.operations.layers import FINAL, FORMS
from darts_lite.spaces.cell import Cell
from darts_lite.spaces.plan import CellPlan
from darts_lite.spaces.table import Mixing

TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int8: "*i8",
    int: "i32",
    float: "fp32",
}
EDGES = ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
SERVED = tuple(name for name in OPERATIONS if name not in ("conv_7x1_1x7", "noise"))
LIVE = tuple((edge, name) for edge in range(len(EDGES)) for name in SERVED)
PLAN = CellPlan(EDGES, SERVED, LIVE, 2, (2, 3), inputs=2)
CASES = {
    "search-bf16": (90, torch.bfloat16, "search", (16, 32)),
    "final-bf16": (90, torch.bfloat16, "final", (36, 144)),
    "search-fp32": (90, torch.float32, "search", (16, 32)),
    "search-bf16-ampere": (80, torch.bfloat16, "search", (16,)),
}


def launched(dtype, form, channels):
    """Every kernel that cells launch, forward and back, once: [module, name, types, constants]."""
    found = {}
    for width in channels:
        for reduction in (False, True):
            with torch.device("meta"):
                cell = Cell(
                    PLAN,
                    (3, 3),
                    width,
                    reduction=reduction,
                    previous_reduces=False,
                    form=FORMS[form],
                    activation=torch.nn.ReLU,
                ).to(dtype)
                images = [torch.empty(2, 3, 8, 8, dtype=dtype) for _ in range(2)]
                search = form == "search"
                mixing = Mixing(torch.empty(len(EDGES), len(SERVED), requires_grad=True)) if search else None
                keep = None if search else torch.empty(2, len(EDGES))
            with counting() as ledger:
                cell(images, mixing, keep).sum().backward()
                if search:
                    with torch.no_grad():
                        cell.eval()(images, mixing, keep)
            for one in ledger.launches:
                kernel = [
                    one.kernel.fn.__module__,
                    one.kernel.fn.__name__,
                    [TYPES[kind] for kind in one.types],
                    one.constants,
                ]
                found[json.dumps(kernel)] = kernel
    return list(found.values())


@pytest.mark.parametrize("batch", [64, 256])
def test_grids_hold_large_images(batch):
    """The second and third side of a grid have room for 65,535 programs, the first for 2^31."""
    with torch.device("meta"):
        cell = Cell(PLAN, (3, 3), 18, reduction=False, previous_reduces=False, form=FINAL, activation=torch.nn.ReLU)
        images = [torch.empty(batch, 3, 224, 224) for _ in range(2)]
    with counting() as ledger:
        cell(images).sum().backward()
    assert len(ledger.launches) > 30
    for one in ledger.launches:
        assert one.grid[0] < 2**31 and all(side < 2**16 for side in one.grid[1:]), one


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name != "search-bf16" else []) for name in CASES]
)
def test_every_kernel_compiles_and_keeps_its_numbers_in_registers(name):
    capability, *what = CASES[name]
    kernels = launched(*what)
    assert {kernel[1] for kernel in kernels} >= {
        "_forward",
        "_input_gradient",
        "_weight_gradient",
        "_gradient",
        "_moments",
    }
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "operations" / "compile_kernels.py", str(capability)],
        input=json.dumps(kernels),
        env=environment(TRITON_INTERPRET="0"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == len(kernels)
    assert [line for line in lines if int(line[3]) > 64] == []
