"""Discretize: the genotype of any epoch of a search, again.

    python -m darts_lite.discretize run=outputs/search/digits/<run>
    python -m darts_lite.discretize run=outputs/search/digits/<run> epoch=10
"""

import sys
from dataclasses import dataclass
from typing import Any

from darts_lite.options import option


@dataclass
class DiscretizeConfig:
    """All settings of a discretization; `conf/discretize.yaml` spells the same values."""

    run: str | None = option(None)  # folder of a search
    epoch: int | None = option(None, low=0)  # None: the last one
    selection: str | Any = option("darts")
    run_dir: str | None = option(None)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli import run_verb

    return run_verb("discretize", argv)


if __name__ == "__main__":
    sys.exit(main())
