"""A sweep: where each job lies, what became of it, and the table at the end.

Jobs may run in other processes (`hydra/launcher=joblib`) or on other machines (`hydra/launcher=submitit_slurm`), so each
writes what became of it into a file of the sweep's folder; the process that started them reads these files at the end.
"""

import contextlib
import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darts_lite.cli import leaderboard
from darts_lite.errors import Exit, UserError
from darts_lite.hardware.machine import take_process
from darts_lite.runs.report import columns, duration, write
from darts_lite.settings.configs import AnyConfig, RetrainConfig, SearchConfig
from darts_lite.storage.files import make_folders, read_json, remove_folders, write_atomic

STATES = {Exit.FINISHED: "finished", Exit.SIGINT: "interrupted", Exit.SIGTERM: "interrupted", None: "killed"}


@dataclass(frozen=True)
class Sweep:
    """All jobs of one command line; a job in another process gets a copy."""

    verb: str
    folder: Path  # where Hydra writes multirun.yaml; new jobs lie below it unless run_dir says otherwise
    stamp: str  # tells this sweep's job files from those of an earlier one in the same folder
    threads: int | None = None  # of each job, where several run at once and share the cores
    own: bool = False  # whether the process that started the sweep is ours alone
    process: int = field(default_factory=os.getpid)

    @property
    def here(self) -> bool:
        """Whether this is the process that started the sweep."""
        return os.getpid() == self.process

    def settle(self) -> None:
        """Take a job's share of the cores and the settings of a command, in a process that was started for jobs."""
        if self.here:
            return
        if self.own:
            take_process()
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)

    def job(self, number: int, overrides: list[str]) -> "Job":
        """Begin a job."""
        return Job(self, number, overrides)

    def conclude(self) -> list[dict[str, Any]]:
        """Write sweep.json, print the table, remove the job files; returns the entries of sweep.json."""
        files = list(self.folder.glob(f"job_*_{self.stamp}.json"))
        jobs = sorted((_entry(read_json(file)) for file in files), key=lambda job: job["number"])
        if not jobs:
            return []
        best = leaderboard.leaderboard(jobs)
        content = {"format": 1, "verb": self.verb, "jobs": jobs} | ({"leaderboard": best} if best else {})
        text = json.dumps(content, indent=2)
        write_atomic(self.folder / "sweep.json", text.encode() + b"\n")
        for file in files:
            file.unlink(missing_ok=True)
        words = [*table(jobs), *leaderboard.in_words(best), *agreements(self.verb, jobs)]
        if best:
            write_atomic(self.folder / "leaderboard.svg", leaderboard.plot(best).encode())
            words.append(f"plot: {self.folder / 'leaderboard.svg'}")
        for line in [*words, f"table: {self.folder / 'sweep.json'}"]:
            write(line)
        return jobs


class Job:
    """Job of a sweep, in the process in which it runs."""

    def __init__(self, sweep: Sweep, number: int, overrides: list[str]):
        self.sweep, self.number, self.overrides = sweep, number, overrides
        self.folder: str | None = None
        self.made: list[Path] = []
        self._note()

    def place(self, config: AnyConfig, typed_keys: frozenset[str]) -> AnyConfig:
        """Configuration with the job's folder in it.

        `resume=auto`: the folder of the run with an equal configuration, else a free number, because the numbers of an earlier
        sweep in this folder may belong to other configurations. Raises UserError (4, 6, 7).
        """
        parent, number = Path(config.run_dir or self.sweep.folder), self.number
        found, placed = None, dataclasses.replace(config, run_dir=str(parent / str(number)))
        if isinstance(config, SearchConfig | RetrainConfig) and config.resume == "auto":
            from darts_lite.methods.build import completed
            from darts_lite.runs.resume import resolve

            found = resolve(
                self.sweep.verb, completed(dataclasses.replace(config, run_dir=placed.run_dir)), typed_keys
            ).folder
            if found is not None:
                placed = dataclasses.replace(config, resume=str(found), run_dir=None)
            else:
                while not (made := make_folders(parent / str(number))):  # made by us: no other job has it
                    number += 1
                self.made, placed = made, dataclasses.replace(config, run_dir=str(made[-1]))
        self.folder = str(found) if found else placed.run_dir
        self._note()
        return placed

    def end(self, code: int, reason: str | None = None) -> None:
        """Write down the job's exit code, and remove folders that nothing was written into."""
        remove_folders(self.made)
        with contextlib.suppress(UserError):  # a full disk must not hide what went wrong first
            self._note(code=code, reason=reason)

    def _note(self, **facts: Any) -> None:
        facts |= {"number": self.number, "overrides": self.overrides, "folder": self.folder}
        path = self.sweep.folder / f"job_{self.number}_{self.sweep.stamp}.json"
        write_atomic(path, json.dumps(facts, indent=2).encode() + b"\n")


def failures(jobs: int, failed: list[int]) -> UserError:
    """Error that ends a sweep of which jobs failed."""
    listed = ", ".join(map(str, failed))
    fix = "see the lines above; resume=auto goes on with the same command"
    return UserError("sweep", f"{len(failed)} of {jobs} jobs failed ({listed})", fix)


def _entry(noted: dict[str, Any]) -> dict[str, Any]:
    """Entry of sweep.json: what the job noted, and what its result says."""
    folder = noted["folder"] if noted.get("folder") and os.path.isdir(noted["folder"]) else None
    result = read_json(Path(folder) / "result.json") if folder and noted.get("code") == Exit.FINISHED else {}
    part = next((part for part in ("test", "validation") if isinstance(result.get(part), dict)), None)
    times = result.get("time")
    return {
        "number": noted.get("number", -1),
        "state": STATES.get(noted.get("code"), "failed"),
        "code": noted.get("code"),
        "reason": noted.get("reason"),
        "overrides": noted.get("overrides", []),
        "folder": folder,
        "part": part,
        "accuracy": result[part].get("accuracy") if part else None,
        "loss": result[part].get("loss") if part else None,
        "parameters": result.get("parameters"),
        "benchmark": _known(result.get("benchmark")),
        "seconds": times.get("seconds") if isinstance(times, dict) else None,
    }


def _known(benchmark: Any) -> dict[str, Any] | None:
    """True accuracy and rank that a result holds, and its yardsticks; None where it has none: it may come from anywhere."""
    names = ("accuracy", "rank", *leaderboard.YARDSTICKS)
    held = benchmark if isinstance(benchmark, dict) else {}
    found = {name: held[name] for name in names if type(held.get(name)) in (int, float)}
    return found if {"accuracy", "rank"} <= found.keys() else None


def table(jobs: list[dict[str, Any]]) -> list[str]:
    """Lines of the table; of the overrides only those in which the jobs differ."""
    same = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(jobs) > 1 else set()
    part = next((job["part"] for job in jobs if job["part"]), None)
    rows = [("job", "state", f"{part} accuracy" if part else "accuracy", "parameters", "time", "settings", "folder")]
    rows += [
        (
            str(job["number"]),
            job["state"],
            "-" if job["accuracy"] is None else f"{job['accuracy']:.4f}",
            "-" if job["parameters"] is None else f"{job['parameters']:,}",
            "-" if job["seconds"] is None else duration(job["seconds"]),
            " ".join(word for word in job["overrides"] if word not in same) or "-",
            job["folder"] or "-",
        )
        for job in jobs
    ]
    return columns(rows)


def agreements(verb: str, jobs: list[dict[str, Any]]) -> list[str]:
    """How far finished searches that differ in the seed alone agree: a line for each group of them."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for job in jobs:
        if verb == "search" and job["state"] == "finished" and job["folder"]:
            others = tuple(word for word in job["overrides"] if not word.startswith("seed="))
            groups.setdefault(others, []).append(Path(job["folder"]))
    lines = []
    for words, folders in groups.items():
        if len(folders) > 1:
            from darts_lite.runs.agreement import (
                agreement_of_runs,  # torch, which a sweep of other processes has not loaded
            )

            with contextlib.suppress(UserError):  # a folder that is gone or of another version; the table stands
                lines.append(f"{agreement_of_runs(folders)['sentence']} ({' '.join(words) or 'no other settings'})")
    return lines
