"""Search: train a supernet and its architecture weights together by bilevel optimization (DARTS, Liu et al. 2019).

    python -m darts_lite.search                                       # first order, on the bundled digits
    python -m darts_lite.search method=darts_second_order seed=1
    python -m darts_lite.search dataset=npz dataset.path=my.npz dataset.flip=true preset=paper
    python -m darts_lite.search resume=outputs/search/digits/<run>    # go on where a run was stopped
"""

import sys
from dataclasses import dataclass
from typing import Any

from darts_lite.options import DatasetConfig, RunConfig, SpaceConfig, option


@dataclass
class SearchConfig(RunConfig):
    """All settings of a search; `conf/search.yaml` spells the same values."""

    dataset: DatasetConfig = option(DatasetConfig())
    space: SpaceConfig = option(SpaceConfig())
    method: str = option("darts_first_order")  # the names that chose the values below; kept for the record
    preset: str = option("quick")
    experiment: str | None = option(None)
    # preset
    cells: int = option(5, low=1, high=100)
    channels: int = option(8, low=1, high=4096)
    reductions: list[int] | None = option(None, low=0)  # cells that halve the resolution; None: at 1/3 and 2/3
    epochs: int = option(20, low=1)
    batch_size: int = option(32, low=1)
    # method: the algorithm
    relaxation: str | Any = option("softmax")
    solver: str | Any = option("first_order")
    penalties: list[str] = option([])
    perturbation: str | Any = option("none")
    regularization: str | Any = option("none")
    selection: str | Any = option("darts")
    warmup_epochs: int = option(0, low=0)  # epochs with frozen alphas
    # method: SGD on the weights, Adam on the alphas
    lr: float = option(0.025, above=0)
    lr_min: float = option(0.001, low=0)
    momentum: float = option(0.9, low=0, high=0.9999)
    nesterov: bool = option(False)
    weight_decay: float = option(3e-4, low=0)
    gradient_clip: float | None = option(5.0, above=0)
    alpha_lr: float = option(3e-4, above=0)
    alpha_betas: list[float] = option([0.5, 0.999], low=0, high=0.9999)
    alpha_weight_decay: float = option(1e-3, low=0)
    alpha_init_std: float = option(1e-3, low=0)
    # data
    train_fraction: float = option(0.5, above=0, high=0.99)  # of the training part: for the weights; the rest is for the alphas
    cutout: int = option(0, low=0)  # side of the square, pixels; 0: off


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli import run_verb

    return run_verb("search", argv)


if __name__ == "__main__":
    sys.exit(main())
