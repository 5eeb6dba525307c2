"""Measuring: arms that alternate in one process, medians, what a process of its own holds at most, what the machine can do.

On a shared machine a time means little and a ratio of medians something: arms take turns, so that what disturbs one disturbs the others.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from darts_lite.engine.device import peak_memory, synchronize
from darts_lite.engine.graph import WARM_STEPS, capture, own_stream

Part = Callable[[], Any]  # the work of a part of a step


@dataclass
class Arm:
    """One way to do the same work."""

    name: str
    parts: dict[str, Part]  # done one after the other; timed apart
    cold: float = 0.0  # seconds of the first step, the recording of a CUDA graph included
    launched: dict[str, Part] = field(default_factory=dict)  # of recorded parts: the same without a graph, to count in
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of each step, by part

    def median(self, part: str | None = None) -> float:
        """Median seconds of a part, or of whole steps."""
        return statistics.median(self.seconds[part] if part else self.totals())

    def totals(self) -> list[float]:
        """Seconds of each whole step."""
        return [sum(times) for times in zip(*self.seconds.values(), strict=True)]


def alternate(
    arms: list[Arm], device: torch.device, *, steps: int, warm_up: int, progress: Callable[[int], None]
) -> None:
    """Let the arms take turns: `warm_up` steps each that do not count, the first one apart, then `steps` that do."""
    for done in range(warm_up + steps):
        for arm in arms:
            times = {name: _seconds(part, device) for name, part in arm.parts.items()}
            if done == 0:
                arm.cold = sum(times.values())
            if done >= warm_up:
                for name, seconds in times.items():
                    arm.seconds.setdefault(name, []).append(seconds)
        progress(done + 1)


class Recorded:
    """A part of an arm that warms up and becomes a CUDA graph when it is first called."""

    def __init__(self, part: Part, device: torch.device, pool: Any):
        self.part, self.device, self.pool = part, device, pool
        self.replay: Part | None = None

    def __call__(self) -> None:
        """Do the work of the part."""
        if self.replay is None:
            with own_stream(self.device) as stream:
                for _ in range(WARM_STEPS):
                    self.part()
                self.replay = capture(self.part, stream, pool=self.pool)
        self.replay()


def recorded(arm: Arm, device: torch.device) -> Arm:
    """On a GPU, the arm with a CUDA graph for each of its parts, in memory that they share; elsewhere as it is."""
    if device.type == "cuda":
        pool = torch.cuda.graph_pool_handle()
        arm.launched, arm.parts = arm.parts, {name: Recorded(part, device, pool) for name, part in arm.parts.items()}
    return arm


def calls(arm: Arm) -> int:
    """Calls of tensor operators in a step, backward passes included."""
    with _Counting() as counting:
        _launch(arm)
    return counting.calls


def launches(arm: Arm, device: torch.device) -> int | None:
    """Kernel launches of a step on a GPU, without a graph, which has one; None elsewhere."""
    if device.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        _launch(arm)
        synchronize(device)
    return sum(event.count for event in profile.key_averages() if "LaunchKernel" in event.key)


def _launch(arm: Arm) -> None:
    for part in (arm.launched or arm.parts).values():
        part()


def peak_of(make: Callable[..., Arm], *arguments: Any) -> int:
    """Bytes that a process of its own holds at most while it makes an arm and does two steps; a function of a module, picklable."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (make, arguments))


def machine(device: torch.device) -> dict[str, float]:
    """What the device reaches: bytes a second of a large copy (read and written), FLOPs a second of a large matrix product."""
    block = torch.ones(1 << 25, device=device)
    target = torch.empty_like(block)
    matrix = torch.ones(2048, 2048, device=device)
    copy = min(_seconds(lambda: target.copy_(block), device) for _ in range(5))
    product = min(_seconds(lambda: matrix @ matrix, device) for _ in range(5))
    return {"copy_bytes_per_second": 2 * 4 * block.numel() / copy, "flops_per_second": 2 * 2048**3 / product}


def _seconds(part: Part, device: torch.device) -> float:
    start = time.perf_counter()
    part()
    synchronize(device)
    return time.perf_counter() - start


def _peak(make: Callable[..., Arm], arguments: tuple) -> int:
    arm = make(*arguments)
    for _ in range(2):
        for part in arm.parts.values():
            part()
    return peak_memory(torch.device("cuda" if torch.cuda.is_initialized() else "cpu"))


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return function(*args, **(kwargs or {}))
