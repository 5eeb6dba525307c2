"""What a retraining starts from and leaves behind: which genotype, the weights of the last epoch, and what they reach on the test part."""

import hashlib
from collections.abc import Mapping
from typing import Any

from darts_lite.data.parts import Source
from darts_lite.errors import Exit, UserError
from darts_lite.genotypes.find import genotype_folder
from darts_lite.genotypes.genotype import Genotype, from_json
from darts_lite.hardware.precision import lowered
from darts_lite.runs.loop import Loop, draw, first_search, has_next
from darts_lite.runs.prepare import Prepared
from darts_lite.runs.resume import newest_finished
from darts_lite.runs.trained import describe_model
from darts_lite.spaces import find_genotype
from darts_lite.spaces.network import Skeleton
from darts_lite.storage import checkpoint
from darts_lite.storage.files import read_json
from darts_lite.storage.run_folder import silent
from darts_lite.training.evaluation import at_once, batch_sizes, evaluate, evaluating, latencies
from darts_lite.training.retrain_step import RetrainState


def choose_genotype(ready: Prepared) -> Genotype:
    """That of the run which goes on, the one that was asked for, or that of the newest finished search on the same data.

    Raises UserError (2), in the last case with the command to type first.
    """
    if ready.folder is not None:
        state = checkpoint.load_newest(ready.folder / "checkpoints", silent).state
        try:
            return from_json(state["model"]["genotype"])
        except (LookupError, TypeError, UserError) as error:
            reason, fix = f"its checkpoint holds no genotype: {error}", "start a new run with another run_dir"
            raise UserError(ready.folder, reason, fix, code=Exit.RUN) from error
    if ready.config.genotype is not None:
        return find_genotype(ready.config.genotype, seed=ready.config.seed)
    folder = newest_finished("search", ready.dataset.source)
    if folder is None and ready.config.debug:  # of which only the training matters
        ready.report.line("no finished search: a random genotype will do")
        ready.config.genotype = "random"  # for each of several seeds too
        return find_genotype("random", seed=ready.config.seed)
    if folder is None:
        reason = "none given, and no finished search on this data in outputs/"
        raise UserError("genotype", reason, f"first run {first_search(ready)}")
    ready.report.line(f"genotype of the newest finished search: {folder}")
    ready.config.genotype = str(folder)
    return find_genotype(str(folder))


class RetrainRecord:
    """Writes the curve, if it is asked for, and at the end model.pt and result.json."""

    def __init__(self, loop: Loop, genotype: Genotype, skeleton: Skeleton, judges: Mapping[str, Source]):
        self.loop, self.genotype, self.judges = loop, genotype, judges
        data = loop.ready.dataset
        loop.facts["model"] = describe_model(genotype, skeleton, data.mean, data.std, data.class_names)

    def start(self, state: RetrainState) -> None:
        """Show what is trained."""
        self.loop.start(state)
        self.loop.board.genotype(0, self.genotype)
        draw(self.loop.run, self.genotype)

    def epoch(self, state: RetrainState) -> None:
        """After an epoch: a validation part, if the data has one; the test part only every `test_every` epochs, and never by default."""
        self.loop.check(state)
        every = self.loop.config.test_every
        epoch = state.clock.done // self.loop.epoch_steps
        scores = {
            part: self._evaluate(state, source)
            for part, source in self.judges.items()
            if part != "test" or (every and epoch % every == 0)
        }
        self.loop.epoch_done(
            state, {f"{part}/{name}": scores[part][name] for part in scores for name in ("loss", "accuracy")}
        )

    def finish(self, state: RetrainState) -> dict[str, Any]:
        """The last checkpoint; then the weights of the last epoch are what is reported."""
        loop, config = self.loop, self.loop.config
        loop.save(state)
        weights = {n: t for n, t in state.reported.state_dict().items() if not n.startswith("auxiliary.")}
        model = checkpoint.pack(weights)
        loop.run.write_bytes("model.pt", model)
        costs = state.reported.costs()
        result = loop.finish(
            state,
            self.genotype,
            {
                **{part: self._evaluate(state, source) for part, source in self.judges.items()},
                "parameters": costs.parameters,
                "macs": costs.macs,
                "latency_ms": latencies(state.reported, state.device, state.precision, config.batch_size),
                "search_seconds": search_seconds(config.genotype),
                "training_seconds": loop.run.seconds,
                "model_sha256": hashlib.sha256(model).hexdigest(),
            },
        )
        part = list(self.judges)[-1]
        score = result[part]
        whose = "averaged weights of the last epoch" if config.ema else "last epoch"
        loop.report.line(
            f"{part} accuracy {score['accuracy']:.4f}, loss {score['loss']:.4f} ({whose}, {score['samples']} images)"
        )
        loop.report.line(f"{costs.parameters:,} parameters, {costs.macs:,} multiply-accumulates an image")
        if part == "test" and has_next(loop.ready):
            loop.report.line(f"next: python -m darts_lite.evaluate run={loop.quoted_path}")
        return result

    def _evaluate(self, state: RetrainState, part: Source) -> dict[str, Any]:
        sizes = batch_sizes(part, max(at_once(state.device, self.loop.config.batch_size), 256))
        classes = self.loop.ready.dataset.classes
        network = lowered(state.reported, state.precision)
        with evaluating(state.reported):
            return evaluate(network, part, classes, sizes=sizes, precision=state.precision)


def search_seconds(genotype: str | None) -> float | None:
    """What the search cost that a genotype came from, if that is known: of a search's folder, or of a retraining's; wall-clock seconds."""
    folder = genotype_folder(genotype)
    if folder is None:
        return None
    result = read_json(folder / "result.json")
    verb, times = result.get("verb"), result.get("time")
    spent = {
        "search": times.get("seconds") if isinstance(times, dict) else None,
        "retrain": result.get("search_seconds"),
    }
    seconds: Any = spent.get(verb) if isinstance(verb, str) else None
    return float(seconds) if type(seconds) in (int, float) else None
