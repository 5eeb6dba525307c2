"""What a process asks of the system it runs on, and sets for itself where it is ours alone (no torch here).

Settings of a whole process cannot be taken back: glibc's `mallopt` cannot be read, and OpenMP reads its environment once, when torch is
loaded. So they are made by the command line's way in (`own_process`) and in processes that it starts, never in a program of somebody
else's that calls `search()`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")  # who sets one of these has decided how threads wait
# Turns of the loop in which a thread of OpenMP waits for the others before it sleeps. By default it waits for so long that a thread
# without a core of its own is kept from getting one by those that wait for it. A search of the digits, two epochs, beside two busy programs
# on two cores (n = 1 each): 109 s by default, 43 s with 10,000, 32 s with 1,000, 31 s with one thread; with idle cores 10,000 is as fast as
# the default, and OMP_WAIT_POLICY=PASSIVE takes twice as long. These were measured one after the other; in turns, 1,000 on idle cores
# included, they are still to be measured.
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
