"""What a step costs a GPU is what `results/gpu_counted.json` says: see counting.py."""

import json

import counting
import pytest


@pytest.mark.parametrize("way", counting.WAYS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "search" else [pytest.mark.slow]) for name in counting.STEPS]
)
def test_what_a_step_costs_a_gpu(name, way, monkeypatch):
    """Operators differ a little from torch to torch; launches of our own and problems for cuDNN do not."""
    if way == "kernels":
        pytest.importorskip("triton")
    counting.without_memory(monkeypatch)
    counting.take_way(monkeypatch, way)
    found = counting.counted(name)
    told = json.loads(counting.RESULTS.read_text("utf-8"))["steps"][name][way]
    for exact in ("launches_of_our_own", "convolutions"):
        assert found.pop(exact) == told.pop(exact)
    assert found == pytest.approx(told, rel=0.05)


def test_kernels_of_our_own_pay():
    """In launches, bytes and trials; and the search holds less than the published target."""
    steps = json.loads(counting.RESULTS.read_text("utf-8"))["steps"]
    for ways in steps.values():
        for number in ("launches", "gigabytes", "peak_gigabytes"):
            assert ways["kernels"][number] < ways["torch"][number] or number == "launches"
        assert sum(ways["kernels"]["convolutions"].values()) < sum(ways["torch"]["convolutions"].values())
    assert steps["search"]["kernels"]["launches"] < steps["search"]["torch"]["launches"] / 2
    assert steps["search"]["kernels"]["peak_gigabytes"] < 1.5
