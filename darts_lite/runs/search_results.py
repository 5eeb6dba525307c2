"""Results of a search: the architecture of every epoch with its diagnosis, and at the end the genotype."""

from typing import Any

import torch

from darts_lite.drawing import cells as drawing
from darts_lite.genotypes.genotype import Genotype
from darts_lite.methods.method import Method, said
from darts_lite.methods.selections.hooks import Training, Validating, rule_of
from darts_lite.methods.views import SelectionView
from darts_lite.runs import alphas
from darts_lite.runs.decision import Evidence, decide, in_short, mean_margin
from darts_lite.runs.diagnosis import diagnose
from darts_lite.runs.finite import check_finite
from darts_lite.runs.gap import discretization_gap
from darts_lite.runs.known_accuracy import KnownAccuracy, in_words
from darts_lite.runs.next_command import next_retraining
from darts_lite.runs.pictures import write_genotype
from darts_lite.runs.steps import Steps
from darts_lite.training.search_state import SearchState


class SearchResults:
    """Writes alphas.jsonl an epoch, and genotype.json, pictures and result.json at the end.

    `commonest`: share of the commonest class in the validation part, which a supernet that has learned nothing may reach.
    """

    def __init__(self, steps: Steps, space: Any, method: Method, commonest: float, known: KnownAccuracy):
        self.steps, self.space, self.selection, self.commonest = steps, space, method.selection, commonest
        self.known = known
        self._validated: tuple[int, dict[str, Any]] | None = None  # steps done and scores, of the last validation
        self.learns = said(method.relaxation, "learns") and said(method.selection, "reads_alphas")

    def start(self, state: SearchState) -> None:
        """Begin, or go on; the architecture before the first step is epoch 0."""
        self.steps.start(state, self.space.tables())
        if state.clock.done == 0:
            values, genotype = self._architecture(state)
            self.steps.record("start", state, values, genotype)

    def epoch(self, state: SearchState) -> None:
        """Record an epoch: its architecture, and what the supernet reaches on the validation half."""
        check_finite(state)
        values, genotype = self._architecture(state)
        margin = mean_margin(values) if self.learns else None
        word = "" if margin is None else f"margin {in_short(margin)}"
        self.steps.end_epoch(state, {"validation": self._score(state)}, values, genotype, word)

    def finish(self, state: SearchState) -> dict[str, Any]:
        """Write the last checkpoint, then the genotype of the last epoch (or of the one that a monitor took) and all that shows it."""
        steps, plan, taken = self.steps, self.steps.plan, state.verdict.take_epoch
        steps.save(state)
        if state.verdict.stop or taken is not None:
            source = "" if taken is None else f"; the genotype is that of epoch {taken}"
            steps.report.line(f"the monitor: epoch {steps.epoch(state)} was the last one{source}")
        record = self._record(state)
        if taken is not None:
            record = next(line for line in steps.run.alphas.read() if line["epoch"] == taken)
        view = self._view(state, record)
        genotype = self.selection(view, state.judge)
        write_genotype(steps.run, genotype)
        with torch.device("meta"):
            costs = self.space.network(genotype, plan.skeleton()).costs()
        score = self._score(state)
        decided = decide(
            Evidence(
                diagnose(view.tables, view.mixing, genotype),
                genotype.cells,
                score["accuracy"],
                score["samples"],
                self.commonest,
                state.clock.done,
                learns=self.learns,
                tested=self._tested(),
            ),
            state.config,
        )
        gap = discretization_gap(state, genotype.cells)
        found = {
            "validation": score,
            "parameters": costs.parameters,
            "macs": costs.macs,
            "alpha_lr": state.config.alpha_lr,
        }
        found |= {"control": plan.config.control, "decided": decided, "gap": gap}
        found |= (known := self.known.finished(state, genotype))
        values = {} if gap is None else {f"architecture/gap_{name}": float(value) for name, value in gap.items()}
        result = steps.finish(state, genotype, found, values)
        path = steps.run.path
        for line in (
            drawing.describe(genotype),
            f"supernet on the validation half: accuracy {score['accuracy']:.4f}, loss {score['loss']:.4f}",
            *in_words(known.get("benchmark", {})),
            *([] if gap is None else [gap_words(gap)]),
            decided["sentence"],
            f"genotype: {path / 'genotype.json'}, pictures: {path / 'cells'}",
        ):
            steps.report.line(line)
        steps.run.log(decided["sentence"])
        if command := next_retraining(plan, path):
            steps.report.line(f"next: {command}")
        return result

    def _score(self, state: SearchState) -> dict[str, Any]:
        """What the supernet reaches on the validation part; at the end it is that of the last epoch, which is not computed again."""
        done = state.clock.done
        if self._validated is None or self._validated[0] != done:
            self._validated = done, state.validate()
        return self._validated[1]

    def _architecture(self, state: SearchState) -> tuple[dict[str, float], Genotype]:
        """Append the epoch's line to alphas.jsonl; returns its diagnosis and the genotype that it leads to."""
        record = self._record(state)
        self.steps.run.alphas.append(record)
        self.steps.board.alphas(record)
        view = self._view(state, record)
        genotype = rule_of(self.selection)(view, None)
        # Without alphas that learn, the genotype of an epoch is that of equal weights: the final one comes from a judge.
        known = self.known.of(genotype) if self.learns else {}
        return diagnose(view.tables, view.mixing, genotype) | known, genotype

    def _tested(self) -> str | None:
        """How the selection tested what it picked, in words; None for a rule."""
        if isinstance(self.selection, Training):
            return "the selection trained on to pick it"
        return "the selection validated its candidates" if isinstance(self.selection, Validating) else None

    def _record(self, state: SearchState) -> dict[str, Any]:
        epoch = self.steps.epoch(state)
        return alphas.to_record(state.architecture, state.clock.progress, epoch=epoch, step=state.clock.done)

    def _view(self, state: SearchState, record: dict[str, Any]) -> SelectionView:
        tables, mixing = alphas.from_record(record, self.space.tables())
        return SelectionView(self.space.name, tables, mixing, state.costs, self.space, state.config.seed)


def gap_words(gap: dict[str, Any]) -> str:
    """The discretization gap in one line."""
    cell = f"{gap['mixture']:.4f} -> {gap['derived']:.4f} projected onto the derived cell"
    return f"supernet with batch statistics: accuracy {cell} ({gap['images']:,} images)"
