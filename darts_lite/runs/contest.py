"""Candidates, of searches or random ones, compete in short trainings, `search selection=validated`; all are reported, and their cost.

outputs/search/<dataset>/<time>/     restart_0/ ...    candidate_0_rung_0/ candidate_1_rung_0/ ... candidate_3_rung_1/ ...
                                     and genotype.json of the one that was picked
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from darts_lite.errors import Exit, UserError
from darts_lite.genotypes.genotype import to_plain
from darts_lite.methods.build import build_rule, build_selection, build_space, searched_with
from darts_lite.methods.selections.candidates import Candidate, Finished, Origin, survivors
from darts_lite.methods.selections.hooks import Competing
from darts_lite.methods.views import SelectionView, costs_of
from darts_lite.runs import alphas
from darts_lite.runs.baseline import as_text
from darts_lite.runs.children import Child, Outcome, run_children
from darts_lite.runs.comparison import chance, judging_labels, summary
from darts_lite.runs.known_accuracy import KnownAccuracy
from darts_lite.runs.pick import finish_pick
from darts_lite.runs.prepare import RunPlan
from darts_lite.runs.repetitions import short_training
from darts_lite.runs.report import columns, duration
from darts_lite.seeds import derive
from darts_lite.settings import schema
from darts_lite.settings.configs import SearchConfig
from darts_lite.spaces.network import Skeleton
from darts_lite.storage import checkpoint
from darts_lite.storage.json_lines import JsonLines
from darts_lite.storage.run_folder import RunFolder, silent

Result = dict[str, Any]


def best_candidate(plan: RunPlan[SearchConfig], search: Callable[..., Any], retrain: Callable[..., Any]) -> Result:
    """Search with the seeds seed, seed + 1, ..., then pick one of their candidates by short trainings with `seed`, on its halves."""
    contest = Contest(plan, search, retrain)
    return run_children(plan, contest.children, contest.finish)


class Contest:
    """The searches of a parent run, their candidates, and the rungs of short trainings."""

    def __init__(self, plan: RunPlan[SearchConfig], search: Callable[..., Any], retrain: Callable[..., Any]):
        self.plan, self.config = plan, plan.config
        if self.config.debug not in (None, "fast"):
            fix = "choose another selection, or give debug=fast"
            raise UserError("debug", "looks at a single run", fix, value=self.config.debug)
        self.selection: Competing = build_selection(self.config)
        if self.config.restarts > 1 and not self.selection.needs_searches:
            fix = "leave it out, or add a source to selection.of"
            raise UserError("restarts", "random candidates need no search", fix, value=self.config.restarts)
        self.searched = searched_with(replace(self.config, restarts=1))
        self.search, self.retrain = search, retrain
        self.searches: list[str] = []
        if self.selection.needs_searches:
            self.searches = [f"restart_{i}" for i in range(self.config.restarts)]
        self.known = KnownAccuracy(self.config)
        self.entrants: list[Candidate] | None = None

    def children(self, parent: Path, outcomes: dict[str, Outcome]) -> list[Child]:
        """All runs known so far: the searches; once they are finished a rung; once that is finished the next one."""
        searches = [
            Child(name, "search", replace(self.searched, seed=self.config.seed + i), self.search)
            for i, name in enumerate(self.searches)
        ]
        if any(child.name not in outcomes for child in searches):
            return searches
        rungs, _ = self.course(outcomes)
        return searches + [self.training(number, rung) for rung, left in enumerate(rungs) for number in left]

    def training(self, number: int, rung: int) -> Child:
        """The short training of a candidate in a rung."""
        assert self.entrants is not None
        epochs = 1 if self.config.debug else self.selection.rung_epochs(rung)
        config = short_training(self.config, epochs, **self.selection.trained_with())
        config = replace(config, genotype=as_text(self.entrants[number].genotype), seed=self.config.seed)
        return Child(run_name(number, rung), "retrain", config, self.retrain)

    def course(self, outcomes: dict[str, Outcome]) -> tuple[list[list[int]], int | None]:
        """Numbers of the candidates that train in each rung, as far as it is known, and the one that is left after all."""
        rungs = [list(range(len(self.find_entrants(outcomes))))]
        while True:
            names = {number: run_name(number, len(rungs) - 1) for number in rungs[-1]}
            if any(name not in outcomes for name in names.values()):
                return rungs, None
            scores = {number: outcomes[name].score("validation") for number, name in names.items()}
            left = survivors(
                {number: (score["accuracy"], score["loss"]) for number, score in scores.items()},
                self.selection.left_after(len(rungs) - 1, len(scores)),
            )
            if len(left) == 1:
                return rungs, left[0]
            rungs.append(left)

    def find_entrants(self, outcomes: dict[str, Outcome]) -> list[Candidate]:
        """The candidates, found once, of the finished searches."""
        if self.entrants is None:
            space, random = build_space(self.config.space), Random(derive(self.config.seed, "candidates"))
            searches = [finished(outcomes[name], space) for name in self.searches]
            origin = Origin(searches, build_rule(self.config), partial(space.random, random))
            self.entrants = self.selection.candidates(origin)
        return self.entrants

    def finish(self, run: RunFolder, outcomes: dict[str, Outcome]) -> Result:
        """Write the genotype that is left, and report every search, every candidate with its scores, and what they cost."""
        rungs, winner = self.course(outcomes)
        assert winner is not None and self.entrants is not None
        config = self.config
        rows = [self.row(number, rungs, outcomes) for number in range(len(self.entrants))]
        chosen = rows[winner]
        score, trained = chosen["rungs"][-1], chosen["rungs"][-1]["epochs"]
        rule = (
            f"successive halving of {len(rows)} candidates, by accuracy on the validation half of seed {config.seed} after "
            f"training from scratch on its training half, the last time {trained} epoch{'' if trained == 1 else 's'}; ties: the lower "
            "loss, then the earlier candidate"
        )
        short = [outcomes[score["run"]] for row in rows for score in row["rungs"]]
        seconds = sum(one.number("time", "seconds") for one in short)
        steps = sum(one.number("steps") for one in short)
        guess = chance(judging_labels(self.plan.dataset, "validation", config.train_fraction, config.seed))
        lines = (
            *in_lines(rows, self.known.metric),
            f"chance {guess['accuracy']:.4f} ({guess['low']:.4f} to {guess['high']:.4f} for 95 %)",
            f"the selection took {duration(seconds)} and {steps} steps in {len(short)} short trainings",
            f"picked candidate {winner} ({origin_of(chosen)}): {rule}",
        )
        searches = [outcomes[name] for name in self.searches]
        known = finish_pick(self.plan, run, self.entrants[winner].genotype, searches, lines)
        evidence = {
            "rule": rule,
            "ranked_by": schema.to_plain(self.searched.selection),
            "picked": winner,
            "runs": len(short),
            "steps": steps,
            "seconds": seconds,
            "chance": guess,
            "candidates": rows,
        }
        return {
            "seed": config.seed,
            "validation": summary([score]),
            **{name: chosen[name] for name in ("genotype", "parameters", "macs")},
            "picked": chosen["run"],
            **known,
            "rule": rule,
            "restarts": [self.search_row(i, outcomes) for i in range(len(self.searches))],
            "selection": evidence,
        }

    def row(self, number: int, rungs: list[list[int]], outcomes: dict[str, Outcome]) -> Result:
        """One candidate: where it comes from, what it costs, and its score in each rung that it reached."""
        assert self.entrants is not None
        one = self.entrants[number]
        names = [run_name(number, rung) for rung, left in enumerate(rungs) if number in left]
        scores = [
            {"run": name, "epochs": self.training(number, rung).config.epochs, **outcomes[name].score("validation")}
            for rung, name in enumerate(names)
        ]
        costs = outcomes[names[0]].numbers("parameters", "macs")
        return {
            "candidate": number,
            "run": one.run,
            "source": one.source,
            **costs,
            **self.known.of(one.genotype),
            "genotype": to_plain(one.genotype),
            "rungs": scores,
        }

    def search_row(self, number: int, outcomes: dict[str, Outcome]) -> Result:
        """One search: its seed, its folder, and what it found by itself."""
        found = outcomes[f"restart_{number}"]
        row = {"seed": self.config.seed + number, "run": f"restart_{number}", "supernet": found.score("validation")}
        return {**row, **found.numbers("parameters", "macs"), "genotype": to_plain(found.genotype())}


def run_name(number: int, rung: int) -> str:
    """Folder of the short training of a candidate in a rung."""
    return f"candidate_{number}_rung_{rung}"


def origin_of(row: Result) -> str:
    """Where a candidate comes from, in words."""
    return row["source"] if row["run"] is None else f"{row['source']} of {row['run']}"


def in_lines(rows: list[Result], metric: str | None) -> list[str]:
    """The lines of a table with one row a candidate, its accuracy after each rung, and its true accuracy where a table has that."""
    most = max((row["rungs"] for row in rows), key=len)
    heads = [f"{rung['epochs']} epoch{'' if rung['epochs'] == 1 else 's'}" for rung in most]
    body = []
    for row in rows:
        scores = [f"{rung['accuracy']:.4f}" for rung in row["rungs"]]
        costs = [f"{row[cost]:,}" for cost in ("parameters", "macs")]
        true = [f"{row['benchmark/accuracy']:.2f}" if "benchmark/accuracy" in row else "-"] if metric else []
        body.append([str(row["candidate"]), origin_of(row), *scores, *[""] * (len(most) - len(scores)), *true, *costs])
    return columns([["candidate", "from", *heads, *([metric] if metric else []), "parameters", "MACs"], *body])


def finished(outcome: Outcome, space: Any) -> Finished:
    """What candidates are drawn from, of a finished search. Raises UserError (4) where its files do not hold that."""
    folder, genotype = outcome.folder, outcome.genotype()
    state, path = checkpoint.load_newest(folder / "checkpoints", silent).state, folder / "alphas.jsonl"
    try:
        costs = costs_of(space, space.tables(), Skeleton.described(state["skeleton"]))
        views = {
            line["epoch"]: SelectionView(space.name, *alphas.from_record(line, space.tables()), costs)
            for line in JsonLines(path).read()
        }
        taken = state["verdict"]["take_epoch"]
        epoch = max(views) if taken is None else taken
        if epoch not in views:
            raise LookupError(f"it lacks epoch {epoch}")
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(path, f"cannot be used: {error}", "restore the file", code=Exit.RUN) from error
    return Finished(folder.name, genotype, epoch, views)
