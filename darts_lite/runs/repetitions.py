"""Several runs in one command, `retrain seeds=[0,1,2]` and `search restarts=4`, and what they report: all of them, never the best alone.

outputs/retrain/<dataset>/<time>/    seed_0/ seed_1/ ...                                 result.json: every seed, mean, standard deviation
outputs/search/<dataset>/<time>/     restart_0/ validation_0/ restart_1/ ...             and genotype.json of the one that was picked
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from darts_lite.genotypes.genotype import to_plain
from darts_lite.methods.build import build_space
from darts_lite.runs.agreement import agreement, last_scores
from darts_lite.runs.children import Child, Outcome, in_words, run_children, summary
from darts_lite.runs.next_command import next_retraining
from darts_lite.runs.pictures import write_genotype
from darts_lite.runs.prepare import RunPlan
from darts_lite.runs.report import columns
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

    def finish(run: RunFolder, outcomes: dict[str, Outcome]) -> dict[str, Any]:
        rows = [
            {
                "seed": seed,
                "run": name,
                whose: one.score(whose),
                **one.numbers("parameters", "macs", "training_seconds"),
            }
            for seed, (name, one) in zip(seeds, outcomes.items(), strict=True)
        ]
        first, *others = [to_plain(one.genotype()) for one in outcomes.values()]
        together = summary([row[whose] for row in rows])
        for line in (*_table(rows, whose), f"{whose}: {in_words(together)}; {run.path / 'result.json'}"):
            report.line(line)
        same = all(genotype == first for genotype in others)
        return {"genotype": first if same else None, whose: together, "seeds": rows}

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

    def finish(run: RunFolder, outcomes: dict[str, Outcome]) -> dict[str, Any]:
        rows, genotypes = [], []
        for i in range(config.restarts):
            found, judged = outcomes[f"restart_{i}"], outcomes[f"validation_{i}"]
            scores = {"validation": judged.score("validation"), "supernet": found.score("validation")}
            genotypes.append(found.genotype())
            row = {"seed": config.seed + i, "run": f"restart_{i}", **scores, **found.numbers("parameters", "macs")}
            rows.append({**row, "genotype": to_plain(genotypes[i])})
        judgements = [row["validation"] for row in rows]
        picked = max(range(len(rows)), key=lambda i: (judgements[i]["accuracy"], -judgements[i]["loss"], -i))
        together, chosen = summary(judgements), rows[picked]
        write_genotype(run, genotypes[picked])
        space = build_space(config.space)
        mixings = last_scores(space, [outcomes[row["run"]].folder for row in rows])
        alike = agreement(space, genotypes, mixings)
        for line in (
            *_table(rows, "validation"),
            f"all, after {epochs}: {in_words(together)}",
            alike["sentence"],
            f"picked {chosen['run']} (seed {chosen['seed']}): {rule}",
        ):
            report.line(line)
        if command := next_retraining(plan, run.path):
            report.line(f"next: {command}")
        picks = {name: chosen[name] for name in ("genotype", "parameters", "macs")} | {"picked": chosen["run"]}
        result = {"seed": config.seed, "validation": together, **picks, "rule": rule}
        return {**result, "agreement": alike, "control": config.control, "restarts": rows}

    return run_children(plan, children, finish)


def _table(rows: Sequence[dict[str, Any]], whose: str) -> list[str]:
    """The lines of a table with one row a run."""
    scores = [[f"{row[whose]['accuracy']:.4f}", f"{row[whose]['loss']:.4f}"] for row in rows]
    body = [[str(row["seed"]), *score, row["run"]] for row, score in zip(rows, scores, strict=True)]
    return columns([["seed", f"{whose} accuracy", "loss", "run"], *body])
