"""Retrain: build the network of a genotype, train it from scratch on the whole training part, evaluate it once on the test part.

    python -m darts_lite.retrain                                      # the newest finished search on the same data
    python -m darts_lite.retrain genotype=outputs/search/digits/<run> seed=1
    python -m darts_lite.retrain genotype=darts_v2 recipe=darts dataset=npz dataset.path=cifar10.npz dataset.flip=true
    python -m darts_lite.retrain resume=outputs/retrain/digits/<run>
"""

import sys
from dataclasses import dataclass

from darts_lite.options import DatasetConfig, RunConfig, option


@dataclass
class RetrainConfig(RunConfig):
    """All settings of a retraining; `conf/retrain.yaml` spells the same values."""

    dataset: DatasetConfig = option(DatasetConfig())
    genotype: str | None = option(None)  # file, run folder, text, published name, random; None: newest finished search
    recipe: str = option("quick")
    experiment: str | None = option(None)
    # recipe: the network
    cells: int = option(5, low=1, high=100)
    channels: int = option(16, low=1, high=4096)
    reductions: list[int] | None = option(None, low=0)
    # recipe: the training
    epochs: int = option(40, low=1)
    batch_size: int = option(64, low=1)
    lr: float = option(0.05, above=0)
    lr_min: float = option(0.0, low=0)
    momentum: float = option(0.9, low=0, high=0.9999)
    nesterov: bool = option(False)
    weight_decay: float = option(3e-4, low=0)
    gradient_clip: float | None = option(5.0, above=0)
    auxiliary_weight: float = option(0.0, low=0)  # weight of the auxiliary head's loss; 0: no head
    drop_path: float = option(0.0, low=0, high=0.95)  # probability at the end; grows linearly from 0
    cutout: int = option(0, low=0)  # side of the square, pixels; 0: off
    label_smoothing: float = option(0.0, low=0, high=0.99)
    test_every: int | None = option(None, low=1)  # epochs between two looks at the test part; None: only at the end


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli import run_verb

    return run_verb("retrain", argv)


if __name__ == "__main__":
    sys.exit(main())
