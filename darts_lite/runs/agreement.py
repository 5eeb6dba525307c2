"""Agreement of several searches that differ in the seed: a choice that comes again has evidence, which no margin gives.

equal               share of the picked edges, operation included, that two searches have in common: mean over all pairs
chance              mean of the same over random genotypes of the space, as many at a time
chance_limit        their 97.5 % quantile
rank_correlation    mean over pairs and edges of Spearman's correlation of the candidates' weights in the last epoch; None: no such edge
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from darts_lite.genotypes.genotype import Genotype, from_plain
from darts_lite.methods.build import build_space
from darts_lite.runs.alphas import from_record
from darts_lite.runs.ranks import spearman
from darts_lite.runs.stored import stored_run, usable
from darts_lite.seeds import derive
from darts_lite.settings.configs import SearchConfig
from darts_lite.spaces.table import Mixing, Table
from darts_lite.storage.files import read_json
from darts_lite.storage.json_lines import JsonLines

DRAWS = 200  # of random genotypes, as many as there are searches
Scored = tuple[dict[str, Table], dict[str, Mixing]]


def agreement(space: Any, genotypes: Sequence[Genotype], scores: Sequence[Scored] = ()) -> dict[str, Any]:
    """The values that the head of this file lists, of two or more genotypes of a space, and a sentence that says what they mean."""
    equal, random = equal_share(genotypes), Random(derive(0, "agreement"))
    by_chance = sorted(equal_share([space.random(random) for _ in genotypes]) for _ in range(DRAWS))
    chance, limit, correlation = fmean(by_chance), by_chance[int(0.975 * DRAWS)], rank_correlation(scores)
    words = f"two searches picked {100 * equal:.0f} % of their edges alike (by chance {100 * chance:.0f} %, up to {100 * limit:.0f} %)"
    if correlation is not None:
        words += f", rank correlation of their scores {correlation:.2f}"
    verdict = "the choice comes again" if equal > limit else "no more than chance, whatever the margins say"
    known = {"equal": equal, "chance": chance, "chance_limit": limit, "rank_correlation": correlation}
    return {**known, "runs": len(genotypes), "sentence": f"agreement: {words}: {verdict}"}


def agreement_of_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """Agreement of finished searches of one space. Raises UserError (4) where a folder lacks its configuration or genotype."""
    config = usable(SearchConfig, stored_run(str(folders[0]), "search")[1]["config"], folders[0])
    space = build_space(config.space)
    genotypes = [from_plain(read_json(folder / "result.json").get("genotype")) for folder in folders]
    return agreement(space, genotypes, last_scores(space, folders))


def last_scores(space: Any, folders: Sequence[Path]) -> list[Scored]:
    """Tables and mixing of the last epoch of each search, from its alphas.jsonl; those that cannot be read are left out."""
    found = []
    for folder in folders:
        lines = list(JsonLines(folder / "alphas.jsonl").read())
        try:
            found.append(from_record(lines[-1], space.tables()))
        except (IndexError, ValueError):  # it may come from anywhere
            continue
    return found


def equal_share(genotypes: Sequence[Genotype]) -> float:
    """Mean over pairs of |A and B| / max(|A|, |B|), A and B being the sets of (cell type, source, target, operation)."""
    picked = [{(name, edge) for name, cell in one.cells.items() for edge in cell.edges} for one in genotypes]
    return fmean(len(a & b) / max(len(a), len(b), 1) for a, b in combinations(picked, 2))


def rank_correlation(scores: Sequence[Scored]) -> float | None:
    """Mean of Spearman's correlation over pairs, cell types and edges with two candidates or more that are alive in both."""
    found = []
    for (tables, one), (others, other) in combinations(scores, 2):
        for cell, table in tables.items():
            alive = (table.alive & others[cell].alive).cpu().numpy()
            rows = zip(alive, one[cell].operations.cpu().numpy(), other[cell].operations.cpu().numpy(), strict=True)
            found += [spearman(a[live], b[live]) for live, a, b in rows]
    known = [value for value in found if value is not None]
    return fmean(known) if known else None
