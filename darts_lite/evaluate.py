"""Evaluate: accuracy, loss, parameters, MACs, latency and peak memory of a retrained network on the test part.

    python -m darts_lite.evaluate run=outputs/retrain/digits/<run>
    python -m darts_lite.evaluate run=outputs/retrain/digits/<run> device=cpu batch_size=256
"""

import sys
from dataclasses import dataclass

from darts_lite.options import option


@dataclass
class EvaluateConfig:
    """All settings of an evaluation; `conf/evaluate.yaml` spells the same values."""

    run: str | None = option(None)  # folder of a finished retraining
    dataset_path: str | None = option(None)  # where the data lies now, if it has moved
    batch_size: int = option(256, low=1)
    device: str = option("auto")
    precision: str = option("auto", choices=("auto", "fp32", "bf16"))
    run_dir: str | None = option(None)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli import run_verb

    return run_verb("evaluate", argv)


if __name__ == "__main__":
    sys.exit(main())
