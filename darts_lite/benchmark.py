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
from typing import Any

from darts_lite.settings.configs import PLAIN_DARTS, BenchmarkConfig


def benchmark(config: BenchmarkConfig, typed_keys: Collection[str] | None = None, report: Any = None) -> dict[str, Any]:
    """Measure, print a table, and return what `result.json` of the run folder holds; times are in seconds.

    Raises UserError, whose `code` is the exit code.
    """
    from darts_lite.benchmarking import modes
    from darts_lite.hardware.device import resolve_device
    from darts_lite.hardware.precision import resolve_precision
    from darts_lite.retrain import RetrainConfig
    from darts_lite.runs.report import Plain
    from darts_lite.search import SearchConfig
    from darts_lite.settings import schema
    from darts_lite.storage import environment
    from darts_lite.storage.run_folder import RunFolder

    report = report or Plain()
    schema.check(config)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    facts = environment.describe(device, None)
    size: dict[str, Any] = {"cells": config.cells, "channels": config.channels, "batch_size": config.batch_size}
    request = modes.Request(
        config, SearchConfig(**PLAIN_DARTS, **size), RetrainConfig(**size), device, precision, report
    )
    with RunFolder.create("benchmark", config.mode, config.run_dir, config, facts, report.warning) as run:
        run.status("running", 0)
        found, lines = modes.MODES[config.mode](request)
        told = {"settings": schema.to_plain(config), "precision": precision}
        result = run.finish(0, {**told, **found, "environment": facts})
    for line in lines:
        report.line(line)
    report.line(f"run folder: {run.path}")
    return result


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli.run import command

    return command("benchmark", argv)


if __name__ == "__main__":
    sys.exit(main())
