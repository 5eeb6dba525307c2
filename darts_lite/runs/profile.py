"""Profile of a step: a trace for chrome://tracing or ui.perfetto.dev in the run folder, and a table of where the time goes."""

import os
import tempfile
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from darts_lite.hardware.device import synchronize
from darts_lite.storage.run_folder import RunFolder

SKIPPED, WARM, MEASURED = 2, 2, 8
STEPS = SKIPPED + WARM + MEASURED
ROWS = ("data", "alphas", "weights")  # the names of the torch.profiler.record_function around the parts of a step
FILE = "profile.json"


class Profile:
    """Watches the first steps of a run."""

    def __init__(self, device: torch.device):
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its notices on stderr are not for users
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        plan = torch.profiler.schedule(wait=SKIPPED, warmup=WARM, active=MEASURED, repeat=1)
        self.profile = torch.profiler.profile(activities=activities, schedule=plan)
        self.profile.start()
        self.device, self.steps, self.began = device, 0, 0.0

    def step(self, run: RunFolder) -> list[str]:
        """Count a step; after the last one that is measured, write the trace and return the lines of the table."""
        self.steps += 1
        if self.steps == STEPS:
            synchronize(self.device)
            seconds = (time.perf_counter() - self.began) / MEASURED
            self.profile.stop()
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / FILE
                self.profile.export_chrome_trace(str(path))
                written = run.write_bytes(FILE, path.read_bytes())
            return [*self._table(seconds), f"trace: {written} (open it in https://ui.perfetto.dev)"]
        if self.steps < STEPS:
            self.profile.step()
        if self.steps == SKIPPED + WARM:
            synchronize(self.device)
            self.began = time.perf_counter()
        return []

    def close(self) -> None:
        """Stop watching, if the run ends before the last step that is measured."""
        if self.steps < STEPS:
            self.profile.stop()

    def _table(self, seconds: float) -> list[str]:
        """Milliseconds of a step: on the CPU, which on a GPU is only the time to launch the work, and of the GPU's kernels.

        `seconds` of a step by the clock; what is in no part is `other`: meters, records, TensorBoard, the profiler, waiting for a GPU.
        """
        events = {event.key: event for event in self.profile.key_averages()}
        rows = [
            (name, events[name].cpu_time_total / 1000 / MEASURED, events[name].device_time_total / 1000 / MEASURED)
            for name in ROWS
            if name in events
        ]
        whole = 1000 * seconds
        rows.append(("other", whole - sum(cpu for _, cpu, _ in rows), 0.0))
        lines = [f"{'part':<8}  CPU ms a step           GPU ms a step"]
        return lines + [f"{name:<8} {cpu:14.3f} ({cpu / whole:6.1%}) {gpu:14.3f}" for name, cpu, gpu in rows]
