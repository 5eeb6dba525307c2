"""Benchmark: how fast a step is beside the reference at the same work, what it costs, and whether it learns the same.

Examples:

    python -m darts_lite.benchmark                                    # a first-order search step, C=16, 8 cells, batch 64
    python -m darts_lite.benchmark mode=search_second_order steps=3
    python -m darts_lite.benchmark mode=retrain
    python -m darts_lite.benchmark mode=gate                          # the same losses, the same genotype?
    python -m darts_lite.benchmark device=cuda steps=100 warm_up=30
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from darts_lite.options import option

MODES = ("search", "search_second_order", "retrain", "data", "growth", "gate")


@dataclass
class BenchmarkConfig:
    """All settings of a benchmark; `conf/benchmark.yaml` spells the same values."""

    mode: str = option("search", choices=MODES)
    cells: int = option(8, low=1, high=100)
    channels: int = option(16, low=1, high=4096)
    batch_size: int = option(64, low=2)
    turns: int = option(2, low=1)  # of each arm, in a process of its own
    steps: int = option(3, low=1)  # of a turn, that count
    warm_up: int = option(1, low=0)  # steps before them
    gate_steps: int = option(200, low=4)  # mode=gate: of each curve
    device: str = option("auto")
    precision: str = option("auto", choices=("auto", "fp32", "bf16"))
    run_dir: str | None = option(None)


def benchmark(config: BenchmarkConfig, typed: Collection[str] | None = None, report: Any = None) -> dict[str, Any]:
    """Measure, print a table, and return what `result.json` of the run folder holds; times are in seconds.

    Raises UserError, whose `code` is the exit code.
    """
    from darts_lite import settings
    from darts_lite.engine import environment, modes
    from darts_lite.engine.device import resolve_device
    from darts_lite.engine.folder import RunFolder
    from darts_lite.engine.precision import resolve_precision
    from darts_lite.engine.report import Plain
    from darts_lite.retrain import RetrainConfig
    from darts_lite.search import SearchConfig

    report = report or Plain()
    settings.check(config)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    facts = environment.describe(device, None)
    size: dict[str, Any] = {"cells": config.cells, "channels": config.channels, "batch_size": config.batch_size}
    request = modes.Request(config, SearchConfig(**size), RetrainConfig(**size), device, precision, report)
    with RunFolder.create("benchmark", config.mode, config.run_dir, config, facts, report.warning) as run:
        run.status("running", 0)
        found, lines = modes.MODES[config.mode](request)
        told = {"settings": settings.to_plain(config), "precision": precision}
        result = run.finish(0, {**told, **found, "environment": facts})
    for line in lines:
        report.line(line)
    report.line(f"run folder: {run.path}")
    return result


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli import command

    return command("benchmark", argv)


if __name__ == "__main__":
    sys.exit(main())
