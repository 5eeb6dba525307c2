"""Discretize: the genotype of any epoch of a search, again.

Examples:

    python -m darts_lite.discretize run=outputs/search/digits/<run>
    python -m darts_lite.discretize run=outputs/search/digits/<run> epoch=10
"""

import sys
from collections.abc import Collection
from typing import Any

from darts_lite.settings.configs import DiscretizeConfig, SpaceConfig
from darts_lite.settings.datasets import DatasetConfig


def discretize(config: DiscretizeConfig, typed: Collection[str] | None = None, report: Any = None) -> dict[str, Any]:
    """Derive the genotype of an epoch from the search's alphas.jsonl; returns what `result.json` of the own run folder holds.

    Raises UserError, whose `code` is the exit code.
    """
    from darts_lite.drawing import cells as drawing
    from darts_lite.errors import Exit, UserError
    from darts_lite.genotypes.genotype import to_json, to_plain
    from darts_lite.methods.build import build_selection, build_space
    from darts_lite.methods.selections.hooks import rule_of
    from darts_lite.methods.views import SelectionView, costs_of
    from darts_lite.runs.children import refuse_several
    from darts_lite.runs.loop import draw
    from darts_lite.runs.report import Plain
    from darts_lite.runs.resume import stored_part
    from darts_lite.settings import schema
    from darts_lite.spaces.network import Skeleton
    from darts_lite.storage import checkpoint, environment
    from darts_lite.storage.files import refuse_links
    from darts_lite.storage.records import Records
    from darts_lite.storage.run_folder import WRITTEN, RunFolder, existing, silent
    from darts_lite.training import alphas

    report = report or Plain()
    schema.check(config)
    selection = build_selection(config.selection)
    folder = existing(config.run, "search")
    refuse_links(folder, WRITTEN)
    state = checkpoint.load_newest(folder / "checkpoints", silent).state
    if state["run"].get("verb") != "search":
        raise UserError("run", "is not a search", "give the folder of a search", value=folder, code=Exit.RUN)
    refuse_several(folder, state["config"])
    space = build_space(stored_part(state, "space", SpaceConfig, folder))
    path = folder / "alphas.jsonl"
    records = {record.get("epoch"): record for record in Records(path).read()}
    if not records:
        raise UserError(path, "holds no epoch", "give the folder of a search that has begun", code=Exit.RUN)
    epoch = next(reversed(records)) if config.epoch is None else config.epoch
    if epoch not in records:
        raise UserError("epoch", f"the search has the epochs 0 to {len(records) - 1}", "give one of them", value=epoch)
    try:
        tables, mixing = alphas.from_record(records[epoch], space.tables())
        costs = costs_of(space, tables, Skeleton.described(state["skeleton"]))
        genotype = rule_of(selection)(SelectionView(space.name, tables, mixing, costs), None)
    except ValueError as error:
        raise UserError(path, f"epoch {epoch}: {error}", "restore the file", code=Exit.RUN) from error

    dataset = stored_part(state, "dataset", DatasetConfig, folder).name
    facts = environment.describe("cpu", state["env"].get("data"), state["env"].get("source"))
    with RunFolder.create("discretize", dataset, config.run_dir, config, facts, report.warning) as run:
        run.status("running", 0)
        run.write_text("genotype.json", to_json(genotype))
        draw(run, genotype)
        result = {
            "dataset": dataset,
            "seed": state["config"].get("seed"),
            "genotype": to_plain(genotype),
            "epoch": epoch,
            "run": config.run,
        }
        result = run.finish(0, result)
    report.line(drawing.describe(genotype))
    report.line(f"epoch {epoch}; genotype: {run.path / 'genotype.json'}, pictures: {run.path / 'cells'}")
    return result


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from darts_lite.cli.run import command

    return command("discretize", argv)


if __name__ == "__main__":
    sys.exit(main())
