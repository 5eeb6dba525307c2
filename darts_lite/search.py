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
from dataclasses import dataclass, replace
from typing import Any

from darts_lite.options import (
    USUAL_BATCH,
    USUAL_FRACTION,
    DatasetConfig,
    RunConfig,
    SpaceConfig,
    option,
)


@dataclass
class SearchConfig(RunConfig):
    """All settings of a search; `conf/search.yaml` spells the same values."""

    dataset: DatasetConfig = option(DatasetConfig())
    space: SpaceConfig = option(SpaceConfig())
    method: str = option("darts_first_order")  # the names that chose the values below; kept for the record
    preset: str = option("quick")
    experiment: str | None = option(None)
    restarts: int = option(1, low=1, high=100)  # searches with the seeds seed, seed + 1, ..., of which one is picked
    # preset
    cells: int = option(5, low=1, high=100)
    channels: int = option(8, low=1, high=4096)
    reductions: list[int] | None = option(None, low=0)  # cells that halve the resolution; None: at 1/3 and 2/3
    stem: str = option("auto", choices=("auto", "cifar", "imagenet"))  # auto: imagenet from 96 pixels on
    epochs: int = option(12, low=1)
    batch_size: int = option(USUAL_BATCH, low=1)
    restart_epochs: int = option(10, low=1)  # of the retraining that picks one of several restarts
    # method: the algorithm
    relaxation: str | Any = option("softmax")
    solver: str | Any = option("first_order")
    penalties: list[str | Any] = option([])
    perturbation: str | Any = option("none")
    regularization: str | Any = option("none")
    phases: str | Any = option("one")
    edge_weights: bool = option(False)  # also learn a weight of each edge, normalized over the edges into a node
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
    # Of the training images, for the weights; the rest is for alphas. Not used where the data has a validation part.
    train_fraction: float = option(USUAL_FRACTION, above=0, high=0.99)
    cutout: int = option(0, low=0)  # side of the square, pixels; 0: off

    def __post_init__(self) -> None:
        if isinstance(self.dataset, str):  # as `dataset=<name>` on the command line
            from darts_lite.data import usual

            self.dataset = usual(self.dataset)


def search(
    config: SearchConfig, typed: Collection[str] | None = None, report: Any = None, dataset: Any = None
) -> dict[str, Any]:
    """Run a search, or go on with one, and return what `result.json` of its run folder holds.

    `typed`: the keys that must agree with a resumed run (None: those that are not at their default). `report`: see `engine.report`.
    `dataset`: images and labels of your own, `darts_lite.data.Arrays`; or the data of the configuration, loaded already.
    Raises UserError, whose `code` is the exit code, and Interrupted after SIGTERM or SIGINT.
    """
    from darts_lite.engine.build import build_method, build_space
    from darts_lite.engine.device import run_settings, using_threads
    from darts_lite.engine.fit import check_fit
    from darts_lite.engine.graph import Recorder
    from darts_lite.engine.loop import Loop
    from darts_lite.engine.prepare import prepare
    from darts_lite.engine.search_record import SearchRecord
    from darts_lite.engine.search_state import SearchState
    from darts_lite.engine.search_step import search_step
    from darts_lite.repeats import best_restart

    ready = prepare("search", config, typed, report, dataset)
    if ready.finished:
        return ready.stored_result()
    threads = ready.environment["threads"]
    if ready.config.restarts > 1:
        with using_threads(threads):
            return best_restart(ready)
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
            config, space, changed, method, device, ready.precision, epoch_steps=epoch_steps, number=number, alive=alive
        )

    def one_step(state: SearchState, *, learn_alphas: bool) -> dict[str, Any]:
        batches = [feed.batch(state.clock.generator) for feed in (train, validation)]
        return search_step(state, *batches, learn_alphas=learn_alphas)

    step = Recorder(one_step, config, device, ready.report, method.obstacle())
    epochs = sum(phase.epochs for phase in method.phases)
    with using_threads(threads), run_settings(device, config.deterministic), Loop(ready, epoch_steps, epochs) as loop:
        stored = loop.stored
        loop.refuse_other_data()
        with loop.fitting():
            state = new_state(
                *(0,) if stored is None else (stored["clock"]["phase"], stored["alive"], stored["weights"])
            )
        record = SearchRecord(loop, space, method.selection, validation.part)
        record.start(state)
        for number, phase in enumerate(method.phases):
            if number < state.clock.phase:
                continue
            if number > state.clock.phase:
                after = new_state(number, state.remaining(phase))
                after.carry_over(state)
                state = after  # of the old one nothing is kept
            while not state.clock.finished:
                loop.boundary(state)
                clock = state.clock
                train.load(clock.done)
                validation.load(clock.done)
                metrics = step(state, learn_alphas=clock.phase_step >= phase.warmup_epochs * epoch_steps)
                clock.tick()
                loop.step_done(state, metrics)
                if clock.phase_step % epoch_steps == 0:
                    record.epoch(state)
        return record.finish(state)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli import command

    return command("search", argv)


if __name__ == "__main__":
    sys.exit(main())
