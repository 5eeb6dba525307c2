"""Where a run computes, and what it has there."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from darts_lite.errors import Exit, UserError, did_you_mean
from darts_lite.hardware.machine import available_memory, is_own

GIB = 2**30  # bytes


def resolve_device(name: str) -> torch.device:
    """`auto`, `cuda`, `cuda:N` or `cpu` -> a device that works here."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    have = ["cpu", *(f"cuda:{i}" for i in range(found))]
    if name == "auto":
        name = "cuda" if found else "cpu"
    if name == "cuda" and found:
        return torch.device("cuda", torch.cuda.current_device())
    if name not in have:
        hint = did_you_mean("cuda" if name.lower().startswith("gpu") else name, ["auto", "cuda", *have])
        hint = "there is no GPU here; " if "cuda" in hint and not found else hint
        fix = f"{hint}one of: auto, {', '.join(have)}"
        raise UserError("device", "not usable here", fix, value=name, code=Exit.ENVIRONMENT)
    return torch.device(name)


def current(device: torch.device) -> AbstractContextManager:
    """Inside, a GPU is the current one: kernels that are not torch's own are launched there, wherever their tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def using_threads(number: int) -> Iterator[None]:
    """Inside, a CPU computes with this number of threads, of which roundings depend; afterwards it is as it was."""
    before = torch.get_num_threads()
    if number != before:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number != before:
            torch.set_num_threads(before)


@contextmanager
def run_settings(device: torch.device, deterministic: bool) -> Iterator[None]:
    """Settings of torch while a run computes; afterwards they are as they were. A CPU needs none: there everything is deterministic.

    On CUDA: this device is the current one; kernels are deterministic, or the fastest of a few for each new shape; sums are in float32.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    filling: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tried, filled = (cudnn.benchmark, cudnn.benchmark_limit), filling.fill_uninitialized_memory
    reduced = torch._C._get_cublas_allow_bf16_reduced_precision_reduction()
    # Read once in a process, when cuBLAS makes its first handle: a later run of it may be deterministic, so all have it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with current(device), _trials_keep_memory():
        try:
            if deterministic:
                torch.use_deterministic_algorithms(True)
            # Else determinism would write each new tensor once more, with NaN.
            filling.fill_uninitialized_memory = False
            cudnn.benchmark = not deterministic
            # Trials of a shape with 10 algorithms, which is the default, took 0.28 s on an H100, and a search begins with 236 shapes.
            cudnn.benchmark_limit = 3
            # A product that is cut along the summed dimension would add its pieces in bf16: the gradient of alpha is a sum over
            # 65,536 pixels (batch 64).
            matmul.allow_bf16_reduced_precision_reduction = False
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            cudnn.benchmark, cudnn.benchmark_limit = tried
            filling.fill_uninitialized_memory = filled
            matmul.allow_bf16_reduced_precision_reduction = reduced  # type: ignore[assignment]  # one bool, or in newer versions two


@contextmanager
def _trials_keep_memory() -> Iterator[None]:
    """Inside, cuDNN's trials of a shape do not give all unused memory back to the device first, which allocates it anew each time.

    The two functions are private (torch 1.13 to 2.14); builds for a CPU have only one of them, or none.
    """
    read = getattr(torch._C, "_cuda_get_conv_benchmark_empty_cache", None)
    write = getattr(torch._C, "_cudnn_set_conv_benchmark_empty_cache", None)
    if read is None or write is None:
        yield
        return
    before = read()
    write(False)
    try:
        yield
    finally:
        write(before)


@contextmanager
def without_trials() -> Iterator[None]:
    """Inside, cuDNN takes for a new shape the algorithm that it expects to be the fastest, and tries none."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def keep_freed_memory(device: torch.device) -> None:
    """Where a CPU computes in a process of ours, let glibc keep the memory that a step frees for the next one; else nothing is done.

    It would return it, and the system clears every page that comes back: a fifth of a step on a CPU (C=16, 8 cells, batch 64).
    """
    if device.type != "cpu" or not is_own() or sys.platform != "linux":
        return
    if hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never
        library.mallopt(-4, 0)  # M_MMAP_MAX: no block of its own mapping
        library.mallopt(-2, 1 << 28)  # M_TOP_PAD, bytes: grow in large pieces


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, as before a look at the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on a GPU, or the most that this process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # macOS counts in bytes, others in KiB


def total_memory(device: torch.device) -> int:
    """Bytes that the device has, free or not."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory(device: torch.device) -> int:
    """Bytes that nobody uses; of a CPU what this process could still take, where that is known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = available_memory()
    return total_memory(device) if free is None else free
