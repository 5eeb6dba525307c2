"""The end of a run that picked one genotype by short trainings: its file, and what is known of it and of the searches before."""

from collections.abc import Iterable, Sequence
from typing import Any

from darts_lite.genotypes.genotype import Genotype
from darts_lite.methods.build import build_space
from darts_lite.runs.agreement import agreement, last_scores
from darts_lite.runs.children import Outcome
from darts_lite.runs.known_accuracy import KnownAccuracy, in_words
from darts_lite.runs.next_command import next_retraining
from darts_lite.runs.pictures import write_genotype
from darts_lite.runs.prepare import RunPlan
from darts_lite.settings.configs import SearchConfig
from darts_lite.storage.run_folder import RunFolder


def finish_pick(
    plan: RunPlan[SearchConfig], run: RunFolder, genotype: Genotype, searches: Sequence[Outcome], lines: Iterable[str]
) -> dict[str, Any]:
    """Write the genotype; say `lines`, then how far two or more searches agree, the true accuracy where a table has it, and what is next.

    Returns what result.json holds of that: `control`, `agreement` and `benchmark`, the latter two where there are any.
    """
    config, report = plan.config, plan.report
    found: dict[str, Any] = {"control": config.control, **KnownAccuracy(config).looked_up(genotype)}
    lines = list(lines)
    if len(searches) > 1:
        space = build_space(config.space)
        genotypes, folders = [one.genotype() for one in searches], [one.folder for one in searches]
        found["agreement"] = agreement(space, genotypes, last_scores(space, folders))
        lines.append(found["agreement"]["sentence"])
    if config.control is not None:
        lines.append(f"{config.control}: in the searches; the short trainings were judged by the true labels")
    write_genotype(run, genotype)
    for line in (*lines, *in_words(found.get("benchmark", {}))):
        report.line(line)
    if command := next_retraining(plan, run.path):
        report.line(f"next: {command}")
    return found
