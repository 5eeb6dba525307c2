"""Search: train a supernet and its architecture weights together by bilevel optimization (DARTS, Liu et al. 2019).

Examples:

    python -m darts_lite.search                                       # first order, on the bundled digits
    python -m darts_lite.search method=darts_second_order seed=1
    python -m darts_lite.search dataset=npz dataset.path=my.npz dataset.flip=true preset=paper
    python -m darts_lite.search restarts=4                            # four searches; a short retraining picks one
    python -m darts_lite.search selection=validated                   # short trainings of the best candidates pick one
    python -m darts_lite.search resume=outputs/search/digits/<run>    # go on where a run was stopped
"""

import sys
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from darts_lite.settings.configs import SearchConfig, refuse_mere_name

if TYPE_CHECKING:
    from darts_lite.data import Arrays
    from darts_lite.data.dataset import Dataset
    from darts_lite.runs.prepare import RunPlan
    from darts_lite.runs.report import Reporter


def search(
    config: SearchConfig,
    typed_keys: Collection[str] | None = None,
    report: "Reporter | None" = None,
    dataset: "Arrays | Dataset | None" = None,
) -> dict[str, Any]:
    """Run a search, or go on with one, and return what `result.json` of its run folder holds.

    `typed_keys`: the keys that must agree with a resumed run (None: those that are not at their default). `report`: see `runs.report`.
    `dataset`: images and labels of your own, `darts_lite.data.Arrays`; or the data of the configuration, loaded already.
    Raises UserError, whose `code` is the exit code, and Interrupted after SIGTERM or SIGINT.
    """
    from darts_lite.methods.build import build_selection, searched_with
    from darts_lite.methods.selections.hooks import Competing
    from darts_lite.retrain import retrain
    from darts_lite.runs.contest import best_candidate
    from darts_lite.runs.prepare import prepare
    from darts_lite.runs.repetitions import best_restart

    if typed_keys is None:
        refuse_mere_name(config)
    searched_with(config)  # refuses a rule that is none before any data is touched
    plan = prepare("search", config, typed_keys, report, dataset)
    if plan.finished:
        return plan.stored_result()
    with plan.computing():
        if isinstance(build_selection(plan.config), Competing):
            return best_candidate(plan, search, retrain)
        return best_restart(plan, search, retrain) if plan.config.restarts > 1 else _search(plan)


def _search(plan: "RunPlan[SearchConfig]") -> dict[str, Any]:
    """The algorithm: phase by phase, step by step, on disjoint images for weights and alphas; the test part is not touched."""
    from darts_lite.data.splits import commonest
    from darts_lite.hardware.graph import GraphedStep
    from darts_lite.methods.build import build_method, build_space
    from darts_lite.runs.fit import check_fit
    from darts_lite.runs.known_accuracy import KnownAccuracy
    from darts_lite.runs.search_results import SearchResults
    from darts_lite.runs.session import Session
    from darts_lite.runs.steps import Steps
    from darts_lite.settings.pace import settled
    from darts_lite.training.search_state import SearchState
    from darts_lite.training.search_step import search_step

    known, halves = KnownAccuracy(plan.config), plan.halves()
    train, validation = (plan.feed(*half, name) for half, name in zip(halves, ("train", "validation"), strict=True))
    config, device = settled(plan.config, train.steps_per_epoch), plan.device
    method, space, skeleton = build_method(config), build_space(config.space), plan.skeleton()
    epoch_steps, epochs = train.steps_per_epoch, sum(phase.epochs for phase in method.phases)

    def new_state(number: int, alive: dict | None = None, stored: dict | None = None) -> SearchState:
        around = replace(skeleton, **method.phases[number].skeleton)
        if stored is not None:
            check_fit(lambda: space.supernet(around, space.tables(alive=alive)), around.cells, stored["network"])
        make = partial(SearchState, config, space, around, method, device, plan.precision)
        return make(epoch_steps=epoch_steps, number=number, alive=alive, validation=validation.part)

    def one_step(state: SearchState, *, learn_alphas: bool) -> dict[str, Any]:
        batches = [feed.batch(state.clock.generator) for feed in (train, validation)]
        return search_step(state, *batches, learn_alphas=learn_alphas)

    step = GraphedStep(one_step, config, device, plan.report, method.obstacle())
    with Session(plan) as session:
        with session.blaming_checkpoint():
            stored = session.stored
            state = new_state(
                *(0,) if stored is None else (stored["clock"]["phase"], stored["alive"], stored["weights"])
            )
        steps = Steps(session, epoch_steps, epochs)
        results = SearchResults(steps, space, method, commonest(halves[1][1]), known)
        results.start(state)
        for number, phase in enumerate(method.phases):
            if number < state.clock.phase or state.verdict.stop:
                continue
            if number > state.clock.phase:
                after = new_state(number, state.remaining(phase))
                after.take_over(state)
                state = after  # of the old one nothing is kept
            clock = state.clock
            while not (clock.finished or state.verdict.stop):
                steps.before_step(state)
                train.load(clock.done)
                validation.load(clock.done)
                metrics = step(state, learn_alphas=clock.phase_step >= phase.warmup_epochs * epoch_steps)
                clock.tick()
                steps.after_step(state, metrics)
                if clock.phase_step % epoch_steps == 0:
                    results.epoch(state)
                    verdict = method.monitor.epoch(state, state.judge)
                    state.heed(verdict)
                    if verdict.change:
                        step.forget()
        return results.finish(state)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli.run import command

    return command("search", argv)


if __name__ == "__main__":
    sys.exit(main())
