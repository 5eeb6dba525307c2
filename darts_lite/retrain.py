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
from typing import Any

from darts_lite.settings.configs import RetrainConfig


def retrain(
    config: RetrainConfig, typed: Collection[str] | None = None, report: Any = None, dataset: Any = None
) -> dict[str, Any]:
    """Retrain, or go on with a retraining, and return what `result.json` of its run folder holds.

    `typed`: the keys that must agree with a resumed run (None: those that are not at their default). `report`: see `runs.report`.
    `dataset`: images and labels of your own, `darts_lite.data.Arrays`; or the data of the configuration, loaded already.
    Raises UserError, whose `code` is the exit code, and Interrupted after SIGTERM or SIGINT.
    """
    from darts_lite.errors import UserError
    from darts_lite.hardware.device import run_settings, using_threads
    from darts_lite.hardware.graph import GraphedStep
    from darts_lite.runs.fit import check_fit
    from darts_lite.runs.loop import Loop
    from darts_lite.runs.prepare import prepare
    from darts_lite.runs.repeats import every_seed
    from darts_lite.runs.retrain_results import RetrainRecord, choose_genotype
    from darts_lite.runs.warm_start import initialize
    from darts_lite.training.retrain_step import RetrainState, new_network, retrain_step

    if config.seeds is not None and (config.seed != 0 or "seed" in (typed or ())):
        raise UserError("seed", "cannot be given beside seeds", "give one of them", value=config.seed)
    ready = prepare("retrain", config, typed, report, dataset)
    if ready.finished:
        return ready.stored_result()
    threads = ready.environment["threads"]
    if ready.config.seeds is not None:
        with using_threads(threads):
            return every_seed(ready, retrain)
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

    step = GraphedStep(one_step, config, device, ready.report)
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
    from darts_lite.cli.run import command

    return command("retrain", argv)


if __name__ == "__main__":
    sys.exit(main())
