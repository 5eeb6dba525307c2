"""Discretize: the genotype of any epoch of a search, again.

Examples:

    python -m darts_lite.discretize run=outputs/search/digits/<run>
    python -m darts_lite.discretize run=outputs/search/digits/<run> epoch=10
"""

import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from darts_lite.settings.configs import DiscretizeConfig, SearchConfig

if TYPE_CHECKING:
    from darts_lite.runs.report import Reporter


def discretize(
    config: DiscretizeConfig, typed_keys: Collection[str] | None = None, report: "Reporter | None" = None
) -> dict[str, Any]:
    """Derive the genotype of an epoch from the search's alphas.jsonl; returns what `result.json` of the own run folder holds.

    Raises UserError, whose `code` is the exit code.
    """
    from darts_lite.drawing import cells as drawing
    from darts_lite.errors import Exit, UserError
    from darts_lite.genotypes.genotype import to_plain
    from darts_lite.methods.build import build_selection, build_space, completed
    from darts_lite.methods.method import said
    from darts_lite.methods.relaxations import RELAXATIONS
    from darts_lite.methods.selections.hooks import rule_of
    from darts_lite.methods.views import SelectionView, costs_of
    from darts_lite.runs import alphas
    from darts_lite.runs.pictures import write_genotype
    from darts_lite.runs.report import Plain
    from darts_lite.runs.stored import stored_run, usable
    from darts_lite.spaces.network import Skeleton
    from darts_lite.storage import environment
    from darts_lite.storage.files import refuse_links
    from darts_lite.storage.json_lines import JsonLines
    from darts_lite.storage.run_folder import WRITTEN, RunFolder

    report = report or Plain()
    config = completed(config)
    folder, state = stored_run(config.run, "search")
    refuse_links(folder, WRITTEN)
    searched = usable(SearchConfig, state["config"], folder)
    if config.selection is None and searched.selection.is_own:
        reason, fix = "the search has another rule than those with a name", "give one, such as selection=darts"
        raise UserError("selection", reason, fix, value=searched.selection.name)
    relaxation = searched.relaxation.name
    if relaxation in RELAXATIONS and not said(RELAXATIONS[relaxation], "learns"):
        reason = (
            f"a search with relaxation={relaxation} learns nothing that a genotype could be made of without its weights"
        )
        raise UserError("run", reason, f"its genotype is in {folder / 'genotype.json'}", value=folder)
    selection = build_selection(searched if config.selection is None else config)
    rule = rule_of(selection)
    if rule is not selection:
        report.line(
            "the selection validates or trains, which cannot be done here: the rule that ranked its candidates is used"
        )
    space = build_space(searched.space)
    path = folder / "alphas.jsonl"
    lines = {line.get("epoch"): line for line in JsonLines(path).read()}
    if not lines:
        raise UserError(path, "holds no epoch", "give the folder of a search that has begun", code=Exit.RUN)
    epoch = next(reversed(lines)) if config.epoch is None else config.epoch
    if epoch not in lines:
        raise UserError("epoch", f"the search has the epochs 0 to {len(lines) - 1}", "give one of them", value=epoch)
    try:
        tables, mixing = alphas.from_record(lines[epoch], space.tables())
        costs = costs_of(space, tables, Skeleton.described(state["skeleton"]))
        genotype = rule(SelectionView(space.name, tables, mixing, costs), None)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(path, f"epoch {epoch}: {error}", "restore the file", code=Exit.RUN) from error

    dataset = searched.dataset.name
    facts = environment.describe("cpu", state["env"].get("data"), state["env"].get("source"))
    with RunFolder.create("discretize", dataset, config.run_dir, config, facts, report.warning) as run:
        run.status("running", 0)
        write_genotype(run, genotype)
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
