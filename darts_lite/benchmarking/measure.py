"""Measuring: arms that take turns, each in a process of its own; medians, and what the machine can do.

On a shared machine a time means little and a ratio of medians something: arms take turns, so that what disturbs one disturbs the others.
A turn is a few steps of one arm in a fresh process, and no other arm is there meanwhile: on a CPU the reference holds 10 GB. In one process
they would share a heap and the allocator's setting that only our runs make (`keep_freed_memory`), which in processes of their own does not
make the references faster: ours was 2.7 and 1.9 times as fast as the two there, 3.9 and 2.6 times apart.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from darts_lite.hardware.device import peak_memory, synchronize
from darts_lite.hardware.graph import WARM_STEPS, capture, own_stream
from darts_lite.hardware.machine import take_process

Work = Callable[[], Any]  # what a part of a step does


@dataclass
class Arm:
    """One way to do the same work."""

    name: str
    parts: dict[str, Work]  # done one after the other; timed apart
    device: torch.device
    launched: dict[str, Work] = field(default_factory=dict)  # of recorded parts: the same without a graph, to count in

    def step(self) -> dict[str, float]:
        """Do all parts; the seconds of each."""
        return {name: _seconds(part, self.device) for name, part in self.parts.items()}

    def facts(self) -> dict[str, Any]:
        """The most memory that the process of this arm has held, in bytes, and what one more step calls."""
        peak = peak_memory(self.device)
        return {"peak_memory_bytes": peak, "operator_calls": calls(self), "kernel_launches": launches(self)}


class Hired:
    """The arm that `make(*arguments)` gives, in a process of its own; all of them picklable."""

    def __init__(self, make: Callable[..., Arm], *arguments: Any):
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        try:
            self.name: str = self._do(_begin, torch.get_num_threads(), make, arguments)
        except BaseException:
            self._process.shutdown()
            raise

    def step(self) -> dict[str, float]:
        """Seconds of each part, see Arm."""
        return self._do(_step)

    def facts(self) -> dict[str, Any]:
        """Memory and calls of the process, see Arm."""
        return self._do(_facts)

    def __enter__(self) -> "Hired":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.shutdown()

    def _do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._process.submit(function, *arguments).result()


@dataclass
class Times:
    """Seconds of the steps of an arm."""

    name: str
    cold: float  # seconds of the first step, the recording of a CUDA graph included
    seconds: dict[str, list[float]]  # of each step that counts, by part

    def median(self, part: str | None = None) -> float:
        """Median seconds of a part, or of whole steps."""
        return statistics.median(self.seconds[part] if part else self.totals())

    def totals(self) -> list[float]:
        """Seconds of each whole step."""
        return [sum(times) for times in zip(*self.seconds.values(), strict=True)]

    def __add__(self, later: "Times") -> "Times":
        """Times with the steps of both; `cold` stays the first step of `self`."""
        seconds = {part: [*times, *later.seconds[part]] for part, times in self.seconds.items()}
        return Times(self.name, self.cold, seconds)


def measured(arm: Arm | Hired, *, steps: int, warm_up: int) -> Times:
    """Seconds of `steps` steps of an arm, after `warm_up` steps that do not count; the first of all is the cold one."""
    taken = [arm.step() for _ in range(warm_up + steps)]
    return Times(arm.name, sum(taken[0].values()), {part: [one[part] for one in taken[warm_up:]] for part in taken[0]})


def take_turns(
    hire: Sequence[Callable[[], AbstractContextManager[Any]]],
    *,
    turns: int,
    steps: int,
    warm_up: int,
    progress: Callable[[int, int], None],
) -> list[tuple[Times, dict[str, Any]]]:
    """Times and facts of arms that are hired one after the other, each `turns` times, for `warm_up` steps and `steps` that count."""
    times: list[Any] = [None] * len(hire)
    facts: list[dict[str, Any]] = [{}] * len(hire)
    for turn in range(turns):
        for number, begin in enumerate(hire):
            with begin() as arm:
                taken = measured(arm, steps=steps, warm_up=warm_up)
                if turn == turns - 1:
                    facts[number] = arm.facts()
            times[number] = taken if turn == 0 else times[number] + taken
            progress(turn * len(hire) + number + 1, turns * len(hire))
    return list(zip(times, facts, strict=True))


class Recorded:
    """A part of an arm that warms up and becomes a CUDA graph when it is first called."""

    def __init__(self, part: Work, device: torch.device, pool: Any):
        self.part, self.device, self.pool = part, device, pool
        self.replay: Work | None = None

    def __call__(self) -> None:
        """Do the work of the part."""
        if self.replay is None:
            with own_stream(self.device) as stream:
                for _ in range(WARM_STEPS):
                    self.part()
                self.replay = capture(self.part, stream, pool=self.pool)
        self.replay()


def recorded(arm: Arm) -> Arm:
    """On a GPU, the arm with a CUDA graph for each of its parts, in memory that they share; elsewhere as it is."""
    if arm.device.type == "cuda":
        pool = torch.cuda.graph_pool_handle()
        arm.launched = arm.parts
        arm.parts = {name: Recorded(part, arm.device, pool) for name, part in arm.parts.items()}
    return arm


def calls(arm: Arm) -> int:
    """Calls of tensor operators in a step, backward passes included."""
    with _Counting() as counting:
        _launch(arm)
    return counting.calls


def launches(arm: Arm) -> int | None:
    """Kernel launches of a step on a GPU, without a graph, which has one; None elsewhere."""
    if arm.device.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        _launch(arm)
        synchronize(arm.device)
    return sum(event.count for event in profile.key_averages() if "LaunchKernel" in event.key)


def _launch(arm: Arm) -> None:
    for part in (arm.launched or arm.parts).values():
        part()


def machine(device: torch.device, precision: str) -> dict[str, float]:
    """Bytes a second of a large copy (read and written), FLOPs a second of a large matrix product in `precision`, on the device."""
    large = device.type == "cuda"
    repeats = 10 if large else 1  # a GPU needs 1 ms, or the time to start is seen
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    block = torch.ones(1 << 25, device=device)
    target = torch.empty_like(block)
    side = 8192 if large else 2048
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    product = torch.empty_like(matrix)

    def best(work: Callable[[], Any]) -> float:
        def part() -> None:
            for _ in range(repeats):
                work()

        return min(_seconds(part, device) for _ in range(5)) / repeats

    copy = best(lambda: target.copy_(block))
    multiply = best(lambda: torch.mm(matrix, matrix, out=product))
    return {"copy_bytes_per_second": 2 * 4 * block.numel() / copy, "flops_per_second": 2 * side**3 / multiply}


def _seconds(part: Work, device: torch.device) -> float:
    start = time.perf_counter()
    part()
    synchronize(device)
    return time.perf_counter() - start


_working: list[Arm] = []  # in the process that was hired: its arm


def _begin(threads: int, make: Callable[..., Arm], arguments: tuple) -> str:
    take_process()  # as a run of the command line has it, and to the end of this process
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True  # for all of them, as published
    arm = make(*arguments)
    if arm.device.type == "cuda":
        torch.cuda.set_device(arm.device)  # kernels that are not torch's own are launched on the current one
    _working.append(arm)
    return arm.name


def _step() -> dict[str, float]:
    return _working[0].step()


def _facts() -> dict[str, Any]:
    return _working[0].facts()


class _Counting(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return function(*args, **(kwargs or {}))
