"""Where a run computes, and what it has there."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from darts_lite.data.files import available_memory
from darts_lite.errors import Exit, UserError, did_you_mean

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


@contextmanager
def determinism(device: torch.device, deterministic: bool) -> Iterator[None]:
    """Inside, CUDA uses deterministic kernels, or the fastest for each new shape; a CPU is deterministic anyway."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    # Read once in a process, when cuBLAS makes its first handle: a later run of it may be deterministic, so all have it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if deterministic:
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def keep_freed_memory(device: torch.device) -> None:
    """Where a CPU computes, let glibc keep the memory that a step frees for the next one; elsewhere nothing is done.

    It would return it, and the system clears every page that comes back: a fifth of a step on a CPU (C=16, 8 cells, batch 64).
    """
    if device.type == "cpu" and sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


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
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") if free is None else free
