"""What a process asks of the system it runs on, and sets for itself where it is ours alone (no torch here).

Settings of a whole process cannot be taken back: glibc's `mallopt` cannot be read, and OpenMP reads its environment once, when torch is
loaded. So they are made by the command line's way in (`own_process`) and in processes that it starts, never in a program of somebody
else's that calls `search()`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")  # who sets one of these has decided how threads wait
# Turns of the loop in which a thread of OpenMP waits for the others before it sleeps. By default (300,000) it waits for so long that a
# thread without a core of its own is kept from getting one by those that wait for it. Medians of four searches of the digits in turns:
# beside two busy programs on two cores 86 s by default, 40 s with 10,000, 24 s with 1,000; on idle cores 12.8, 10.5 and 13.9 s
# (results/cpu_thread_spinning.json). Earlier, once each: one thread 31 s where 1,000 took 32 s, OMP_WAIT_POLICY=PASSIVE twice the default.
SPINS = "10000"

_own = False


def take_process() -> None:
    """From now on this process is ours: see `own_process`."""
    global _own
    _own = True
    if "torch" not in sys.modules and not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPINS


@contextmanager
def own_process() -> Iterator[None]:
    """Inside, this process is ours: `is_own`, and if torch is not loaded yet, its threads will wait for a short while only."""
    global _own
    before, spins = _own, os.environ.get("GOMP_SPINCOUNT")
    take_process()
    try:
        yield
    finally:
        _own = before
        if spins is None:
            os.environ.pop("GOMP_SPINCOUNT", None)


def is_own() -> bool:
    """Whether settings of the whole process may be made."""
    return _own


def cores() -> int:
    """Cores that this process may use; where the system does not tell (macOS), those that there are."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def threads_are_given() -> bool:
    """Whether the user has said how many threads there shall be."""
    return "OMP_NUM_THREADS" in os.environ


def share(jobs: int) -> int | None:
    """Threads of each of several jobs that run at once; None where that is left alone: a single job, or the user has said it."""
    return None if jobs < 2 or threads_are_given() else max(1, cores() // jobs)


def available_memory() -> int | None:
    """Bytes this process can still take without swapping, or None where that cannot be known."""
    limits = []
    with suppress(OSError, ValueError), open("/proc/meminfo") as file:
        limits += [1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable:")]
    if not limits:
        try:
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (AttributeError, OSError, ValueError):
            return None
    with suppress(OSError, ValueError):  # a container's own limit
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits)
