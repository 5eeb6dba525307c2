"""Retrain: build the network of a genotype, train it from scratch on the whole training part, evaluate it once on the test part.

Examples:

    python -m darts_lite.retrain                                      # the newest finished search on the same data
    python -m darts_lite.retrain genotype=outputs/search/digits/<run> seed=1
    python -m darts_lite.retrain genotype=darts_v2 recipe=darts dataset=npz dataset.path=cifar10.npz dataset.flip=true
    python -m darts_lite.retrain 'seeds=[0,1,2]'                       # three retrainings, their mean and standard deviation
    python -m darts_lite.retrain resume=outputs/retrain/digits/<run>
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from darts_lite.options import LARGEST_SEED, USUAL_BATCH, DatasetConfig, RunConfig, option


@dataclass
class RetrainConfig(RunConfig):
    """All settings of a retraining; `conf/retrain.yaml` spells the same values."""

    dataset: DatasetConfig = option(DatasetConfig())
    genotype: str | None = option(None)  # file, run folder, text, published name, random; None: newest finished search
    seeds: list[int] | None = option(None, low=0, high=LARGEST_SEED)  # a retraining with each; None: one, with seed
    init: str = option("none")  # where the weights start: none, supernet (of the genotype's search), or a run folder
    recipe: str = option("quick")
    experiment: str | None = option(None)
    # recipe: the network
    cells: int = option(5, low=1, high=100)
    channels: int = option(16, low=1, high=4096)
    reductions: list[int] | None = option(None, low=0)
    stem: str = option("auto", choices=("auto", "cifar", "imagenet"))  # auto: imagenet from 96 pixels on
    # recipe: the training
    epochs: int = option(30, low=1)
    batch_size: int = option(USUAL_BATCH, low=1)
    lr: float = option(0.05, above=0)
    lr_min: float = option(0.0, low=0)
    schedule: str = option("cosine", choices=("cosine", "linear", "exponential"))  # from lr to lr_min
    warmup_epochs: int = option(0, low=0)  # in which lr rises from 0, before that
    momentum: float = option(0.9, low=0, high=0.9999)
    nesterov: bool = option(False)
    weight_decay: float = option(3e-4, low=0)
    gradient_clip: float | None = option(5.0, above=0)
    auxiliary_weight: float = option(0.0, low=0)  # weight of the auxiliary head's loss; 0: no head
    drop_path: float = option(0.0, low=0, high=0.95)  # probability at the end; grows linearly from 0
    alternating_flip: bool = option(False)  # where dataset.flip: in one of every two epochs, not by chance
    cutout: int = option(0, low=0)  # side of the square, pixels; 0: off
    label_smoothing: float = option(0.0, low=0, high=0.99)
    ema: float | None = option(None, above=0, high=0.999999)  # decay of the averaged weights; None: no average
    test_every: int | None = option(None, low=1)  # epochs between two looks at the test part; None: only at the end
    train_fraction: float | None = option(None, above=0, high=0.99)  # None: all; else the rest replaces the test part

    def __post_init__(self) -> None:
        if isinstance(self.dataset, str):  # as `dataset=<name>` on the command line
            from darts_lite.data import usual

            self.dataset = usual(self.dataset)


def retrain(
    config: RetrainConfig, typed: Collection[str] | None = None, report: Any = None, dataset: Any = None
) -> dict[str, Any]:
    """Retrain, or go on with a retraining, and return what `result.json` of its run folder holds.

    `typed`: the keys that must agree with a resumed run (None: those that are not at their default). `report`: see `engine.report`.
    `dataset`: images and labels of your own, `darts_lite.data.Arrays`; or the data of the configuration, loaded already.
    Raises UserError, whose `code` is the exit code, and Interrupted after SIGTERM or SIGINT.
    """
    from darts_lite.engine.device import run_settings, using_threads
    from darts_lite.engine.fit import check_fit
    from darts_lite.engine.graph import Recorder
    from darts_lite.engine.initial import initialize
    from darts_lite.engine.loop import Loop
    from darts_lite.engine.prepare import prepare
    from darts_lite.engine.retrain_record import RetrainRecord, choose_genotype
    from darts_lite.engine.retrain_state import RetrainState, new_network, retrain_step
    from darts_lite.errors import UserError
    from darts_lite.repeats import every_seed

    if config.seeds is not None and (config.seed != 0 or "seed" in (typed or ())):
        raise UserError("seed", "cannot be given beside seeds", "give one of them", value=config.seed)
    ready = prepare("retrain", config, typed, report, dataset)
    if ready.finished:
        return ready.stored_result()
    threads = ready.environment["threads"]
    if ready.config.seeds is not None:
        with using_threads(threads):
            return every_seed(ready)
    config, device = ready.config, ready.device
    genotype, skeleton = choose_genotype(ready), ready.skeleton()

    learned, judging = ready.learned_and_judging()
    train = ready.feed(*learned, "train", alternating_flip=config.alternating_flip)
    judges = {name: ready.part(*part, augmented=False) for name, part in judging.items()}

    def new_state(stored: dict | None) -> RetrainState:
        if stored is not None:
            check_fit(lambda: new_network(genotype, skeleton, config), skeleton.cells, stored["network"])
        network = new_network(genotype, skeleton, config)
        if stored is None:
            initialize(network, config.init, genotype, config.genotype)
        steps = config.epochs * train.steps_per_epoch
        return RetrainState(config, network.to(device), device, ready.precision, steps=steps)

    def one_step(state: RetrainState) -> dict[str, Any]:
        return retrain_step(state, *train.batch(state.clock.generator))

    step = Recorder(one_step, config, device, ready.report)
    fresh = new_state(None) if ready.folder is None else None  # before there is a folder: weights may be refused
    with (
        using_threads(threads),
        run_settings(device, config.deterministic),
        Loop(ready, train.steps_per_epoch, config.epochs) as loop,
    ):
        loop.refuse_other_data()
        with loop.fitting():
            state = fresh or new_state(loop.stored and loop.stored["weights"])
        record = RetrainRecord(loop, genotype, skeleton, judges)
        record.start(state)
        while not state.clock.finished:
            loop.boundary(state)
            train.load(state.clock.done)
            metrics = step(state)
            state.clock.tick()
            loop.step_done(state, metrics)
            if state.clock.done % train.steps_per_epoch == 0:
                record.epoch(state)
        return record.finish(state)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli import command

    return command("retrain", argv)


if __name__ == "__main__":
    sys.exit(main())
