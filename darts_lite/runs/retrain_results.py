"""Start and end of a retraining: which genotype is trained, the weights of the last epoch, and what they reach on the test part."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from darts_lite.data.parts import ImageSource
from darts_lite.errors import Exit, UserError
from darts_lite.genotypes.find import genotype_folder
from darts_lite.genotypes.genotype import Genotype, from_plain
from darts_lite.hardware.precision import lowered
from darts_lite.runs.finite import check_finite
from darts_lite.runs.next_command import first_search, has_next
from darts_lite.runs.pictures import draw
from darts_lite.runs.prepare import RunPlan
from darts_lite.runs.resume import newest_finished
from darts_lite.runs.steps import Steps
from darts_lite.runs.trained import describe_model
from darts_lite.settings.configs import RetrainConfig
from darts_lite.spaces import find_genotype
from darts_lite.spaces.network import Skeleton
from darts_lite.storage import checkpoint
from darts_lite.storage.files import read_json
from darts_lite.storage.run_folder import silent
from darts_lite.training.evaluation import at_once, batch_sizes, evaluate, evaluating, latencies
from darts_lite.training.retrain_step import RetrainState


def choose_genotype(plan: RunPlan[RetrainConfig]) -> tuple[RunPlan[RetrainConfig], Genotype]:
    """The genotype of the run which goes on, the one that was asked for, or that of the newest finished search on the same data.

    Also the plan, whose configuration then names the genotype. Raises UserError (2), in the last case with the command to type first.
    """
    if plan.folder is not None:
        state = checkpoint.load_newest(plan.folder / "checkpoints", silent).state
        try:
            return plan, from_plain(state["model"]["genotype"])
        except (LookupError, TypeError, UserError) as error:
            reason, fix = f"its checkpoint holds no genotype: {error}", "start a new run with another run_dir"
            raise UserError(plan.folder, reason, fix, code=Exit.RUN) from error
    name = plan.config.genotype
    if name is None:
        folder = newest_finished("search", plan.dataset.source)
        if folder is None and plan.config.debug:  # only the training matters there
            plan.report.line("no finished search: a random genotype will do")
            name = "random"
        elif folder is None:
            reason = "none given, and no finished search on this data in outputs/"
            raise UserError("genotype", reason, f"first run {first_search(plan)}")
        else:
            plan.report.line(f"genotype of the newest finished search: {folder}")
            name = str(folder)
        plan = replace(plan, config=replace(plan.config, genotype=name))
    return plan, find_genotype(name, seed=plan.config.seed)


class RetrainResults:
    """Writes the curve, if it is asked for, and at the end model.pt and result.json."""

    def __init__(self, steps: Steps, genotype: Genotype, skeleton: Skeleton, judges: Mapping[str, ImageSource]):
        self.steps, self.genotype, self.judges = steps, genotype, judges
        self.scores: dict[str, dict[str, Any]] = {}  # of the weights as they are, where an epoch has just ended
        data = steps.plan.dataset
        steps.facts["model"] = describe_model(genotype, skeleton, data.mean, data.std, data.class_names)

    def start(self, state: RetrainState) -> None:
        """Begin, or go on, and show what is trained."""
        self.steps.start(state)
        self.steps.board.genotype(0, self.genotype)
        draw(self.steps.run, self.genotype)

    def epoch(self, state: RetrainState) -> None:
        """Record an epoch: a validation part, if the data has one; the test part only every `test_every` epochs, and never by default."""
        check_finite(state)
        every, epoch = self.steps.config.test_every, self.steps.epoch(state)
        judges = {
            part: source for part, source in self.judges.items() if part != "test" or (every and epoch % every == 0)
        }
        self.scores = {part: self._evaluate(state, source) for part, source in judges.items()}
        self.steps.end_epoch(state, self.scores)

    def finish(self, state: RetrainState) -> dict[str, Any]:
        """Write the last checkpoint, then the weights of the last epoch and what they reach."""
        steps, config = self.steps, self.steps.config
        steps.save(state)
        weights = {n: t for n, t in state.reported.state_dict().items() if not n.startswith("auxiliary.")}
        model = checkpoint.pack(weights)
        steps.run.write_bytes("model.pt", model)
        costs = state.reported.costs()
        found = {
            **{part: self.scores.get(part) or self._evaluate(state, source) for part, source in self.judges.items()},
            "parameters": costs.parameters,
            "macs": costs.macs,
            "latency_ms": latencies(state.reported, state.device, state.precision, config.batch_size),
            "search_seconds": search_seconds(config.genotype),
            "training_seconds": steps.run.seconds,
            "model_sha256": hashlib.sha256(model).hexdigest(),
        }
        result = steps.finish(state, self.genotype, found)
        part = list(self.judges)[-1]
        score = result[part]
        whose = "averaged weights of the last epoch" if config.ema else "last epoch"
        steps.report.line(
            f"{part} accuracy {score['accuracy']:.4f}, loss {score['loss']:.4f} ({whose}, {score['samples']} images)"
        )
        steps.report.line(f"{costs.parameters:,} parameters, {costs.macs:,} multiply-accumulates an image")
        if part == "test" and has_next(steps.plan):
            steps.report.line(f"next: python -m darts_lite.evaluate run={steps.session.quoted_path}")
        return result

    def _evaluate(self, state: RetrainState, part: ImageSource) -> dict[str, Any]:
        sizes = batch_sizes(part, max(at_once(state.device, self.steps.config.batch_size), 256))
        network = lowered(state.reported, state.precision)
        with evaluating(state.reported):
            return evaluate(network, part, self.steps.plan.dataset.classes, sizes=sizes, precision=state.precision)


def search_seconds(genotype: str | None) -> float | None:
    """Wall-clock seconds of the search behind a genotype, from the folder of the search or of a retraining; None where unknown."""
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
