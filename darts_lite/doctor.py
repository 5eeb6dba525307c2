"""Doctor: what this machine has, whether everything that a run needs is there, and what to do about what is not.

Examples:

    python -m darts_lite.doctor
    python -m darts_lite.doctor dataset=npz dataset.path=my.npz run_dir=/data/runs
"""

import os
import shutil
import sys
from collections.abc import Collection, Iterator
from typing import Any

from darts_lite.errors import Exit, UserError, all_of, out_of_memory
from darts_lite.settings.configs import DoctorConfig
from darts_lite.settings.datasets import DatasetConfig

LEAST = 2**30  # bytes of memory and of disk space below which a run is likely to fail


def doctor(config: DoctorConfig, typed_keys: Collection[str] | None = None, report: Any = None) -> dict[str, Any]:
    """Check everything, report one line a check; returns what was found. Leaves nothing behind.

    Raises UserError (6) if there was a problem.
    """
    from darts_lite.runs.report import Plain
    from darts_lite.settings import schema

    report = report or Plain()
    schema.check(config)
    found: dict[str, list[str]] = {}
    said: set[str] = set()
    for check in (versions, processor, devices, data, disk, steps, proof):
        name = check.__name__
        try:
            for text in check(config):
                report.line(f"ok       {name:<10} {text}")
                found.setdefault(name, []).append(text)
        except Exception as error:
            for problem in map(str, _problem(name, error).problems):
                if problem not in said:  # the last check meets what those before it have met
                    report.line(f"problem  {name:<10} {problem}")
                said.add(problem)
    if said:
        count = "one problem" if len(said) == 1 else f"{len(said)} problems"
        raise UserError("doctor", f"found {count}", "see the lines above", code=Exit.ENVIRONMENT)
    report.line("everything that a run needs is there")
    return found


def versions(config: DoctorConfig) -> Iterator[str]:
    """The packages that results depend on."""
    import torchvision  # noqa: F401  # fails where its build does not fit torch's

    from darts_lite.storage.environment import describe

    known = describe("cpu", None)["versions"]
    yield ", ".join(f"{name} {version}" for name, version in known.items() if version)


def processor(config: DoctorConfig) -> Iterator[str]:
    """Cores, threads, and whether other programs use them."""
    import torch

    from darts_lite.hardware.machine import cores

    count, load = cores(), os.getloadavg()[0]
    threads = torch.get_num_threads()
    busy = "; others use these cores: OMP_NUM_THREADS=1 may be faster" if load > count and threads > 1 else ""
    yield f"threads: {threads} on {count} cores, load {load:.1f}{busy}"


def devices(config: DoctorConfig) -> Iterator[str]:
    """Everything that `device` can name, and the memory that is free on the one that was asked for."""
    import torch

    from darts_lite.hardware.device import GIB, free_memory, resolve_device, total_memory
    from darts_lite.hardware.precision import resolve_precision

    found = [torch.device("cpu")]
    if torch.cuda.is_available():
        found += [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    for device in found:
        name = f" {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
        memory = f"{free_memory(device) / GIB:.1f} of {total_memory(device) / GIB:.1f} GiB free"
        yield f"{device}{name}: {memory}, {resolve_precision('auto', device)}"
    if len(found) == 1 and config.device != "cpu" and shutil.which("nvidia-smi"):
        fix = "install the driver or the torch that fits the other (see pytorch.org), or give device=cpu"
        raise UserError("device", "this machine has a GPU that torch cannot use", fix, code=Exit.ENVIRONMENT)
    device = resolve_device(config.device)
    if free_memory(device) < LEAST:
        fix = "end other programs, or give another device"
        raise UserError("device", f"{device} has less than 1 GiB free", fix, code=Exit.ENVIRONMENT)
    yield f"device={config.device} is {device}"


def data(config: DoctorConfig) -> Iterator[str]:
    """The digits, and the data set that was asked for."""
    from darts_lite.data import load
    from darts_lite.data.dataset import in_words, remarks

    for wanted in (DatasetConfig(), config.dataset):
        if wanted is config.dataset and wanted == DatasetConfig():
            continue
        found = load(wanted)
        yield from (in_words(found), *remarks(found))


def disk(config: DoctorConfig) -> Iterator[str]:
    """Whether a run can be written where it goes, and how much space is left there."""
    import tempfile
    from pathlib import Path

    from darts_lite.hardware.device import GIB
    from darts_lite.storage.files import make_folders, refused, remove_folders

    path = Path(config.run_dir or "outputs")
    made = make_folders(path)
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0" * 4096)
        free = shutil.disk_usage(path).free
    except OSError as error:
        raise refused(path, error) from error
    finally:
        remove_folders(made)
    if free < LEAST:
        fix = "free space, or give another place with run_dir=..."
        raise UserError(path, f"only {free / GIB:.2f} GiB of disk space are free", fix, code=Exit.ENVIRONMENT)
    yield f"{path} can be written, {free / GIB:.1f} GiB free"


def steps(config: DoctorConfig) -> Iterator[str]:
    """Two steps of a small search, in a temporary folder."""
    import time

    from darts_lite.runs.trial import trial
    from darts_lite.search import SearchConfig, search

    start = time.monotonic()
    trial(search, SearchConfig(dataset=config.dataset, device=config.device, cells=3, channels=4, batch_size=2))
    yield f"two steps of a small search in {time.monotonic() - start:.1f} s"


def proof(config: DoctorConfig) -> Iterator[str]:
    """Whether the device computes what a search needs: operations, gradients and steps against float64 on the CPU."""
    from darts_lite.hardware.device import resolve_device
    from darts_lite.proving.proof import prove
    from darts_lite.search import SearchConfig

    proven = prove(SearchConfig(device=config.device), resolve_device(config.device))
    problem = all_of(proven.problems())
    if problem:
        raise problem
    yield proven.line()


def _problem(name: str, error: Exception) -> UserError:
    """One error, with a fix, for whatever a check raised."""
    if isinstance(error, UserError):
        return error
    said = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, ImportError):
        fix = "install the package again, with versions that fit each other"
    elif out_of_memory(error):
        fix = "end other programs, or give another device"
    else:
        fix = "DARTS_LITE_DEBUG=1 python -m darts_lite.search epochs=1 shows where it comes from"
    return UserError(name, said, fix, code=Exit.ENVIRONMENT)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli.run import command

    return command("doctor", argv)


if __name__ == "__main__":
    sys.exit(main())
