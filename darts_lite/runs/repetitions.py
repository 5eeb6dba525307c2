"""Several runs in one command, `retrain seeds=[0,1,2]` and `search restarts=4`, and what they report: all of them, never the best alone.

outputs/retrain/<dataset>/<time>/    seed_0/ seed_1/ ...                                 result.json: every seed, mean, standard deviation
                                     heaviest_seed_0/ random_0_seed_0/ ...               with a baseline: the same of the networks beside it
outputs/search/<dataset>/<time>/     restart_0/ validation_0/ restart_1/ ...             and genotype.json of the one that was picked
"""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from darts_lite.genotypes.genotype import to_plain
from darts_lite.runs.baseline import baseline_rows, networks_beside
from darts_lite.runs.children import Child, Outcome, run_children
from darts_lite.runs.comparison import Row, chance, comparison, in_lines, in_words, judging_labels, summary
from darts_lite.runs.pick import finish_pick
from darts_lite.runs.prepare import RunPlan
from darts_lite.runs.retrain_results import choose_genotype
from darts_lite.settings.configs import RetrainConfig, RunConfig, SearchConfig
from darts_lite.storage.run_folder import RunFolder


def every_seed(plan: RunPlan[RetrainConfig], retrain: Callable[..., Any]) -> dict[str, Any]:
    """Retrain one genotype (`random`: one for each seed) with each of the seeds; each child is what `seed=<seed>` by itself would be.

    With a `baseline`, other networks are trained with the same recipe, seeds and epochs beside it.
    """

    if plan.config.genotype is None:
        plan, _ = choose_genotype(plan)  # once, and stored in the configuration of them all
    config, report, seeds = plan.config, plan.report, plan.config.seeds or [plan.config.seed]
    whose = "test" if config.train_fraction is None else "validation"
    others = networks_beside(plan, seeds[0]) if config.baseline else []
    trained = [("", {}), *((f"{network.name}_", network.changes()) for network in others)]

    def children(parent: Path, outcomes: dict[str, Outcome]) -> list[Child]:
        one = replace(config, seeds=None, baseline=None)
        return [
            Child(f"{prefix}seed_{seed}", "retrain", replace(one, seed=seed, **changes), retrain)
            for prefix, changes in trained
            for seed in seeds
        ]

    def finish(run: RunFolder, outcomes: dict[str, Outcome]) -> dict[str, Any]:
        def row(name: str, seed: int) -> dict[str, Any]:
            one = outcomes[name]
            score = {whose: one.score(whose)}
            return {"seed": seed, "run": name, **score, **one.numbers("parameters", "macs", "training_seconds")}

        found, *beside = [[row(f"{prefix}seed_{seed}", seed) for seed in seeds] for prefix, _ in trained]
        first, *rest = [to_plain(outcomes[row["run"]].genotype()) for row in found]
        scores = [row[whose] for row in found]
        together = summary(scores)
        if others:
            rows = [
                Row("found", scores, found[0]["parameters"], found[0]["macs"]),
                *baseline_rows(others, beside, whose),
            ]
        else:
            rows = [_row(one["run"], one, whose) for one in found] + [Row("all", scores)]
        judging = judging_labels(plan.dataset, whose, config.train_fraction, seeds[0])
        table = comparison(rows, chance(judging))
        for line in (*in_lines(table, whose), f"{whose}: {in_words(together)}; {run.path / 'result.json'}"):
            report.line(line)
        same = all(genotype == first for genotype in rest)
        networks = [network.to_plain() | {"seeds": rows} for network, rows in zip(others, beside, strict=True)]
        told = {"genotype": first if same else None, whose: together, "seeds": found, "table": table}
        return told | ({"baseline": networks} if others else {})

    return run_children(plan, children, finish)


def best_restart(
    plan: RunPlan[SearchConfig], search: Callable[..., Any], retrain: Callable[..., Any]
) -> dict[str, Any]:
    """Search with the seeds seed, seed + 1, ... and pick by a short retraining, as the DARTS paper did (Liu et al. 2019, section 3.2).

    Each genotype is trained from scratch for `restart_epochs` epochs on the training half of its search, at the search's size, and judged
    by the validation half; the test part is not touched.
    """

    config = plan.config
    epochs = f"{config.restart_epochs} epoch{'' if config.restart_epochs == 1 else 's'}"
    rule = (
        f"highest accuracy on the validation half of its search after {epochs} of training from scratch on the "
        "training half; ties: the lower loss, then the lower seed"
    )
    short = short_training(config, config.restart_epochs)

    def children(parent: Path, outcomes: dict[str, Outcome]) -> list[Child]:
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
        table = comparison(
            [*(_row(row["run"], row, "validation") for row in rows), Row("all", judgements)],
            chance(judging_labels(plan.dataset, "validation", config.train_fraction, config.seed)),
        )
        lines = (
            *in_lines(table, "validation"),
            f"all, after {epochs}: {in_words(together)}",
            f"picked {chosen['run']} (seed {chosen['seed']}): {rule}",
        )
        searches = [outcomes[row["run"]] for row in rows]
        known = finish_pick(plan, run, genotypes[picked], searches, lines)
        picks = {name: chosen[name] for name in ("genotype", "parameters", "macs")} | {"picked": chosen["run"]}
        result = {"seed": config.seed, "validation": together, **picks, **known, "rule": rule}
        return {**result, "restarts": rows, "table": table}

    return run_children(plan, children, finish)


def short_training(config: SearchConfig, epochs: int, **changes: Any) -> RetrainConfig:
    """Training from scratch that judges a genotype: on the halves of a search, at its size but for `changes`; without the test part."""
    size = ("dataset", "cells", "channels", "reductions", "stem", "batch_size", "cutout", "train_fraction")
    # The debug run is that of the parent, which has reduced data and epochs already.
    own = {"seed", "run_dir", "resume", "debug"}
    shared = (*size, *(key.name for key in fields(RunConfig) if key.name not in own))
    return RetrainConfig(recipe="validation", epochs=epochs, **{key: getattr(config, key) for key in shared} | changes)


def _row(name: str, one: dict[str, Any], whose: str) -> Row:
    """The row of a table of one run."""
    return Row(name, [one[whose]], one["parameters"], one["macs"])
