"""Retrain: build the network of a genotype, train it from scratch on the whole training part, evaluate it once on the test part.

Examples:

    python -m darts_lite.retrain                                      # the newest finished search on the same data
    python -m darts_lite.retrain genotype=outputs/search/digits/<run> seed=1
    python -m darts_lite.retrain genotype=darts_v2 recipe=darts dataset=npz dataset.path=cifar10.npz dataset.flip=true
    python -m darts_lite.retrain 'seeds=[0,1,2]'                       # three retrainings, their mean and standard deviation
    python -m darts_lite.retrain 'seeds=[0,1,2]' baseline=random:3     # beside three random genotypes and the heaviest one
    python -m darts_lite.retrain resume=outputs/retrain/digits/<run>
"""

import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from darts_lite.settings.configs import RetrainConfig

if TYPE_CHECKING:
    from darts_lite.data import Arrays
    from darts_lite.data.dataset import Dataset
    from darts_lite.runs.prepare import RunPlan
    from darts_lite.runs.report import Reporter


def retrain(
    config: RetrainConfig,
    typed_keys: Collection[str] | None = None,
    report: "Reporter | None" = None,
    dataset: "Arrays | Dataset | None" = None,
) -> dict[str, Any]:
    """Retrain, or go on with a retraining, and return what `result.json` of its run folder holds.

    `typed_keys`: the keys that must agree with a resumed run (None: those that are not at their default). `report`: see `runs.report`.
    `dataset`: images and labels of your own, `darts_lite.data.Arrays`; or the data of the configuration, loaded already.
    Raises UserError, whose `code` is the exit code, and Interrupted after SIGTERM or SIGINT.
    """
    from darts_lite.errors import UserError
    from darts_lite.runs.prepare import prepare
    from darts_lite.runs.repetitions import every_seed

    if config.seeds is not None and (config.seed != 0 or "seed" in (typed_keys or ())):
        raise UserError("seed", "cannot be given beside seeds", "give one of them", value=config.seed)
    plan = prepare("retrain", config, typed_keys, report, dataset)
    if plan.finished:
        return plan.stored_result()
    with plan.computing():
        several = plan.config.seeds is not None or plan.config.baseline is not None
        return every_seed(plan, retrain) if several else _retrain(plan)


def _retrain(plan: "RunPlan[RetrainConfig]") -> dict[str, Any]:
    """The training of one network, step by step."""
    from darts_lite.hardware.graph import GraphedStep
    from darts_lite.runs.fit import check_fit
    from darts_lite.runs.retrain_results import RetrainResults, choose_genotype
    from darts_lite.runs.session import Session
    from darts_lite.runs.steps import Steps
    from darts_lite.runs.warm_start import initialize
    from darts_lite.training.retrain_step import RetrainState, new_network, retrain_step

    plan, genotype = choose_genotype(plan)
    config, device, skeleton = plan.config, plan.device, plan.skeleton()
    learned, judging = plan.learned_and_judging()
    train = plan.feed(*learned, "train", alternating_flip=config.alternating_flip)
    judges = {name: plan.part(*part, augmented=False) for name, part in judging.items()}
    epoch_steps = train.steps_per_epoch

    def new_state(stored: dict | None) -> RetrainState:
        if stored is not None:
            check_fit(lambda: new_network(genotype, skeleton, config), skeleton.cells, stored["network"])
        network = new_network(genotype, skeleton, config)
        if stored is None:
            initialize(network, config.init, genotype, config.genotype)
        return RetrainState(config, network.to(device), device, plan.precision, steps=config.epochs * epoch_steps)

    def one_step(state: RetrainState) -> dict[str, Any]:
        return retrain_step(state, *train.batch(state.clock.generator))

    step = GraphedStep(one_step, config, device, plan.report)
    fresh = new_state(None) if plan.folder is None else None  # before there is a folder: weights may be refused
    with Session(plan) as session:
        with session.blaming_checkpoint():
            state = fresh or new_state(session.stored and session.stored["weights"])
        steps = Steps(session, epoch_steps, config.epochs)
        results = RetrainResults(steps, genotype, skeleton, judges)
        results.start(state)
        clock = state.clock
        while not clock.finished:
            steps.before_step(state)
            train.load(clock.done)
            metrics = step(state)
            clock.tick()
            steps.after_step(state, metrics)
            if clock.done % epoch_steps == 0:
                results.epoch(state)
        return results.finish(state)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli.run import command

    return command("retrain", argv)


if __name__ == "__main__":
    sys.exit(main())
