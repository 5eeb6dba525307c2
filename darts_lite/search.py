"""Search: train a supernet and its architecture weights together by bilevel optimization (DARTS, Liu et al. 2019).

Examples:

    python -m darts_lite.search                                       # first order, on the bundled digits
    python -m darts_lite.search method=darts_second_order seed=1
    python -m darts_lite.search dataset=npz dataset.path=my.npz dataset.flip=true preset=paper
    python -m darts_lite.search restarts=4                            # four searches; a short retraining picks one
    python -m darts_lite.search resume=outputs/search/digits/<run>    # go on where a run was stopped
"""

import sys
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from darts_lite.settings.configs import SearchConfig


def search(
    config: SearchConfig, typed: Collection[str] | None = None, report: Any = None, dataset: Any = None
) -> dict[str, Any]:
    """Run a search, or go on with one, and return what `result.json` of its run folder holds.

    `typed`: the keys that must agree with a resumed run (None: those that are not at their default). `report`: see `runs.report`.
    `dataset`: images and labels of your own, `darts_lite.data.Arrays`; or the data of the configuration, loaded already.
    Raises UserError, whose `code` is the exit code, and Interrupted after SIGTERM or SIGINT.
    """
    from darts_lite.hardware.device import run_settings, using_threads
    from darts_lite.hardware.graph import GraphedStep
    from darts_lite.methods.build import build_method, build_space
    from darts_lite.retrain import retrain
    from darts_lite.runs.fit import check_fit
    from darts_lite.runs.loop import Loop
    from darts_lite.runs.prepare import prepare
    from darts_lite.runs.repeats import best_restart
    from darts_lite.runs.search_results import SearchRecord
    from darts_lite.training.search_state import SearchState
    from darts_lite.training.search_step import search_step

    ready = prepare("search", config, typed, report, dataset)
    if ready.finished:
        return ready.stored_result()
    threads = ready.environment["threads"]
    if ready.config.restarts > 1:
        with using_threads(threads):
            return best_restart(ready, search, retrain)
    config, device = ready.config, ready.device
    method, space, skeleton = build_method(config), build_space(config.space), ready.skeleton()

    # Disjoint images for weights and alphas; the test part is not touched.
    train, validation = (
        ready.feed(*half, name) for half, name in zip(ready.halves(), ("train", "validation"), strict=True)
    )
    epoch_steps = train.steps_per_epoch

    def new_state(number: int, alive: dict | None = None, stored: dict | None = None) -> SearchState:
        changed = replace(skeleton, **method.phases[number].skeleton)
        if stored is not None:
            check_fit(lambda: space.supernet(changed, space.tables(alive=alive)), changed.cells, stored["network"])
        return SearchState(
            config,
            space,
            changed,
            method,
            device,
            ready.precision,
            epoch_steps=epoch_steps,
            number=number,
            alive=alive,
            validation=validation.part,
        )

    def one_step(state: SearchState, *, learn_alphas: bool) -> dict[str, Any]:
        batches = [feed.batch(state.clock.generator) for feed in (train, validation)]
        return search_step(state, *batches, learn_alphas=learn_alphas)

    step = GraphedStep(one_step, config, device, ready.report, method.obstacle())
    epochs = sum(phase.epochs for phase in method.phases)
    with using_threads(threads), run_settings(device, config.deterministic), Loop(ready, epoch_steps, epochs) as loop:
        stored = loop.stored
        loop.refuse_other_data()
        with loop.fitting():
            state = new_state(
                *(0,) if stored is None else (stored["clock"]["phase"], stored["alive"], stored["weights"])
            )
        record = SearchRecord(loop, space, method.selection)
        record.start(state)
        for number, phase in enumerate(method.phases):
            if number < state.clock.phase or state.verdict.stop:
                continue
            if number > state.clock.phase:
                after = new_state(number, state.remaining(phase))
                after.take_over(state)
                state = after  # of the old one nothing is kept
            while not (state.clock.finished or state.verdict.stop):
                loop.boundary(state)
                clock = state.clock
                train.load(clock.done)
                validation.load(clock.done)
                metrics = step(state, learn_alphas=clock.phase_step >= phase.warmup_epochs * epoch_steps)
                clock.tick()
                loop.step_done(state, metrics)
                if clock.phase_step % epoch_steps == 0:
                    record.epoch(state)
                    verdict = method.monitor.epoch(state, state.judge)
                    state.heed(verdict)
                    if verdict.change:
                        step.forget()
        return record.finish(state)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli.run import command

    return command("search", argv)


if __name__ == "__main__":
    sys.exit(main())
