"""Several runs in one command, `retrain seeds=[0,1,2]` and `search restarts=4`, and what they report: all of them, never the best alone.

outputs/retrain/<dataset>/<time>/    seed_0/ seed_1/ ...                                 result.json: every seed, mean, standard deviation
outputs/search/<dataset>/<time>/     restart_0/ validation_0/ restart_1/ ...             and genotype.json of the one that was picked
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from darts_lite.genotypes.genotype import to_plain
from darts_lite.runs.children import Child, genotype_of, in_words, number, run_children, summary
from darts_lite.runs.next_command import next_retraining
from darts_lite.runs.pictures import write_genotype
from darts_lite.runs.prepare import RunPlan
from darts_lite.runs.retrain_results import choose_genotype
from darts_lite.settings.configs import RetrainConfig, RunConfig, SearchConfig
from darts_lite.storage.run_folder import RunFolder


def every_seed(plan: RunPlan[RetrainConfig], retrain: Callable[..., Any]) -> dict[str, Any]:
    """Retrain one genotype (`random`: one for each seed) with each of the seeds; each child is what `seed=<seed>` by itself would be."""

    if plan.config.genotype is None:
        plan, _ = choose_genotype(plan)  # once, and stored in the configuration of them all
    config, report, seeds = plan.config, plan.report, plan.config.seeds or []
    whose = "test" if config.train_fraction is None else "validation"

    def children(parent: Path) -> list[Child]:
        one = replace(config, seeds=None)
        return [Child(f"seed_{seed}", "retrain", replace(one, seed=seed), retrain) for seed in seeds]

    def finish(run: RunFolder, results: dict[str, Any]) -> dict[str, Any]:
        rows, genotypes = [], []
        for seed, (name, result) in zip(seeds, results.items(), strict=True):
            folder = run.path / name
            score = {key: number(folder, result, whose, key) for key in ("accuracy", "loss")}
            costs = {key: number(folder, result, key) for key in ("parameters", "macs", "training_seconds")}
            rows.append({"seed": seed, "run": name, whose: score, **costs})
            genotypes.append(to_plain(genotype_of(folder, result)))
        together = summary([(row[whose]["accuracy"], row[whose]["loss"]) for row in rows])
        for line in _table(rows, whose):
            report.line(line)
        report.line(f"{whose}: {in_words(together)}; {run.path / 'result.json'}")
        same = all(genotype == genotypes[0] for genotype in genotypes)
        return {"genotype": genotypes[0] if same else None, whose: together, "seeds": rows}

    return run_children(plan, children, finish)


def best_restart(
    plan: RunPlan[SearchConfig], search: Callable[..., Any], retrain: Callable[..., Any]
) -> dict[str, Any]:
    """Search with the seeds seed, seed + 1, ... and pick by a short retraining, as the DARTS paper did (Liu et al. 2019, section 3.2).

    Each genotype is trained from scratch for `restart_epochs` epochs on the training half of its search, at the search's size, and judged
    by the validation half; the test part is not touched.
    """

    config, report = plan.config, plan.report
    epochs = f"{config.restart_epochs} epoch{'' if config.restart_epochs == 1 else 's'}"
    rule = (
        f"highest accuracy on the validation half of its search after {epochs} of training from scratch on the "
        "training half; ties: the lower loss, then the lower seed"
    )
    size = ("dataset", "cells", "channels", "reductions", "stem", "batch_size", "cutout", "train_fraction")
    # The debug run is that of the parent, which has reduced data and epochs already.
    own = {"seed", "run_dir", "resume", "debug"}
    shared = (*size, *(key.name for key in fields(RunConfig) if key.name not in own))
    short = RetrainConfig(
        recipe="validation", epochs=config.restart_epochs, **{key: getattr(config, key) for key in shared}
    )

    def children(parent: Path) -> list[Child]:
        made = []
        for i in range(config.restarts):
            searched = replace(config, restarts=1, seed=config.seed + i)
            validated = replace(short, genotype=str(parent / f"restart_{i}"), seed=config.seed + i)
            made += [
                Child(f"restart_{i}", "search", searched, search),
                Child(f"validation_{i}", "retrain", validated, retrain),
            ]
        return made

    def finish(run: RunFolder, results: dict[str, Any]) -> dict[str, Any]:
        rows, genotypes = [], []
        for i in range(config.restarts):
            row: dict[str, Any] = {"seed": config.seed + i, "run": f"restart_{i}"}
            for part, name in (("validation", f"validation_{i}"), ("supernet", f"restart_{i}")):
                keys = ("accuracy", "loss")
                row[part] = {k: number(run.path / name, results[name], "validation", k) for k in keys}
            for key in ("parameters", "macs"):
                row[key] = number(run.path / row["run"], results[row["run"]], key)
            genotypes.append(genotype_of(run.path / row["run"], results[row["run"]]))
            rows.append({**row, "genotype": to_plain(genotypes[-1])})
        scores = [(row["validation"]["accuracy"], row["validation"]["loss"]) for row in rows]
        picked = max(range(len(rows)), key=lambda i: (scores[i][0], -scores[i][1], -i))
        together, chosen = summary(scores), rows[picked]
        write_genotype(run, genotypes[picked])
        for line in _table(rows, "validation"):
            report.line(line)
        report.line(f"all, after {epochs}: {in_words(together)}")
        report.line(f"picked {chosen['run']} (seed {chosen['seed']}): {rule}")
        if command := next_retraining(plan, run.path):
            report.line(f"next: {command}")
        return {
            "seed": config.seed,
            "genotype": chosen["genotype"],
            "validation": together,
            "parameters": chosen["parameters"],
            "macs": chosen["macs"],
            "picked": chosen["run"],
            "rule": rule,
            "restarts": rows,
        }

    return run_children(plan, children, finish)


def _table(rows: Sequence[dict[str, Any]], whose: str) -> list[str]:
    """A line a run."""
    width = max(4, *(len(str(row["seed"])) for row in rows))
    lines = [f"{'seed':>{width}}  {f'{whose} accuracy':>19}  {'loss':>8}  run"]
    for row in rows:
        score = row[whose]
        lines.append(f"{row['seed']:>{width}}  {score['accuracy']:>19.4f}  {score['loss']:>8.4f}  {row['run']}")
    return lines
