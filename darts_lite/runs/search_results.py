"""What a search leaves behind: the architecture of every epoch, and at the end its genotype."""

from typing import Any

import torch

from darts_lite.drawing import cells as drawing
from darts_lite.genotypes.genotype import Genotype, to_json
from darts_lite.methods.selections.hooks import Selection, rule_of
from darts_lite.methods.views import SelectionView
from darts_lite.runs.loop import Loop, draw, next_retraining
from darts_lite.training import alphas
from darts_lite.training.search_state import SearchState


class SearchRecord:
    """Writes alphas.jsonl an epoch, and genotype.json, pictures and result.json at the end."""

    def __init__(self, loop: Loop, space: Any, selection: Selection):
        self.loop, self.space, self.selection = loop, space, selection

    def start(self, state: SearchState) -> None:
        """The architecture before the first step is epoch 0."""
        tables, self.costs = state.architecture.tables, state.costs
        self.loop.start(
            state,
            edges={cell: table.edges for cell, table in tables.items()},
            operations={cell: table.operations for cell, table in tables.items()},
            discretize=self.genotype,
        )
        if state.clock.done == 0:
            self._append(state)

    def epoch(self, state: SearchState) -> None:
        """After an epoch: its architecture, and what the supernet reaches on the validation half."""
        self.loop.check(state)
        self.costs = state.costs  # of this phase
        self._append(state)
        score = self._validate(state)
        self.loop.epoch_done(state, {"validation/loss": score["loss"], "validation/accuracy": score["accuracy"]})

    def finish(self, state: SearchState) -> dict[str, Any]:
        """The last checkpoint, then the genotype of the last epoch, or of the one that a monitor took, and everything that shows it."""
        loop, taken = self.loop, state.verdict.take_epoch
        loop.save(state)
        if state.verdict.stop or taken is not None:
            last = state.clock.done // loop.epoch_steps
            source = "" if taken is None else f"; the genotype is that of epoch {taken}"
            loop.report.line(f"the monitor: epoch {last} was the last one{source}")
        record = alphas.to_record(state.architecture, state.clock.progress, epoch=0, step=0)
        if taken is not None:
            record = next(line for line in loop.run.alphas.read() if line["epoch"] == taken)
        genotype = self.selection(self._view(record), state.judge)
        loop.run.write_text("genotype.json", to_json(genotype))
        draw(loop.run, genotype)
        with torch.device("meta"):
            costs = self.space.network(genotype, loop.ready.skeleton()).costs()
        score = self._validate(state)
        result = loop.finish(state, genotype, {"validation": score, "parameters": costs.parameters, "macs": costs.macs})
        loop.report.line(drawing.describe(genotype))
        path = loop.run.path
        loop.report.line(f"supernet on the validation half: accuracy {score['accuracy']:.4f}, loss {score['loss']:.4f}")
        loop.report.line(f"genotype: {path / 'genotype.json'}, pictures: {path / 'cells'}")
        if command := next_retraining(loop.ready, path):
            loop.report.line(f"next: {command}")
        return result

    def genotype(self, record: dict[str, Any]) -> Genotype:
        """What the selection, or the rule that ranks its candidates, makes of a line of alphas.jsonl."""
        return rule_of(self.selection)(self._view(record), None)

    def _view(self, record: dict[str, Any]) -> SelectionView:
        return SelectionView(self.space.name, *alphas.from_record(record, self.space.tables()), self.costs)

    def _append(self, state: SearchState) -> None:
        step = state.clock.done
        epoch = step // self.loop.epoch_steps
        record = alphas.to_record(state.architecture, state.clock.progress, epoch=epoch, step=step)
        self.loop.run.alphas.append(record)
        self.loop.board.alphas(record)

    def _validate(self, state: SearchState) -> dict[str, Any]:
        with torch.no_grad():
            mixing = state.architecture.expected(state.clock.progress)
        return state.scores(mixing)
