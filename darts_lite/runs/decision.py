"""Whether a search decided, in one sentence at its end and as `decided` in result.json.

    decided           the margin is large enough; which says nothing of whether the choice is right
    hardly decided    it is not: what was picked is near to chance
    collapsed         the derived cell is mostly skips, pools or `none`, or nothing leads through it
    not judged        the relaxation learns nothing, or the selection does not read it, so margins mean nothing

and with each of them whether the supernet's accuracy is at chance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from darts_lite.genotypes.genotype import Cell
from darts_lite.operations import NONE
from darts_lite.runs.diagnosis import KINDS, longest_path, shares
from darts_lite.settings.configs import SearchConfig
from darts_lite.settings.pace import PUBLISHED_TRAVEL

# What a search is judged by, and the runs that the limits were set on.
# Mean over all edges. The digits, preset=quick: 0.0005 with alpha_lr=3e-4 (one run), 0.05 to 0.09 with alpha_travel=5.85 (three).
LEAST_MARGIN = 0.01
# Of the edges of a cell without stride. 9 of 105 DARTS runs in RobustDARTS' S1 (Zela et al. 2020) have 5 to 8 skips on 8 edges; their
# supernets are among the best, so accuracy shows no collapse. Plain DARTS in a reduced NAS-Bench-201: `none` on 3 of 6 edges and no path
# (one run), which the path finds.
LARGEST_SHARE = 0.5
# Above chance, of a binomial distribution: 3 of the 105 supernets are there (9.85 % of 25,000 images right).
DEVIATIONS = 1.96


@dataclass(frozen=True)
class Evidence:
    """What a search ended with."""

    values: dict[str, float]  # of `diagnose`
    cells: dict[str, Cell]  # that were derived
    accuracy: float  # of the supernet on the validation part
    samples: int  # of that part
    commonest: float  # share of its commonest class
    steps: int
    learns: bool = True
    tested: str | None = None  # what else speaks for the choice, in words: how the selection tested it


def decide(found: Evidence, config: SearchConfig) -> dict[str, Any]:
    """`decided` of result.json: verdict, margin, what speaks for it, and the sentence, which names the overrides that help."""
    margin = mean_margin(found.values)
    limit = found.commonest + DEVIATIONS * math.sqrt(found.commonest * (1 - found.commonest) / found.samples)
    at_chance, collapse = found.accuracy <= limit, collapses(found.cells)
    if collapse:
        verdict, words = "collapsed", "; ".join(collapse) + f": {_against(collapse, config)}"
    elif not found.learns:
        verdict, words = (
            "not judged",
            "the genotype is not read from what an architecture learned, so margins mean nothing",
        )
    elif margin is None:
        verdict, words = "decided", "no edge has two candidates"
    elif margin < LEAST_MARGIN:
        lead = f"the strongest operation of an edge leads by {in_short(margin)} on average"
        verdict, words = "hardly decided", f"{lead}; what was picked is near to chance: {_further(found.steps, config)}"
    else:
        verdict, words = "decided", f"the strongest operation of an edge leads by {in_short(margin)} on average"
    if config.control is not None:
        evidence = f"{config.control}: there was no signal, so this is what the method does without one"
    elif found.tested is not None:
        evidence = found.tested
    else:
        shown = "restarts=4 shows whether it comes again, selection=validated whether it holds when trained"
        evidence = f"a margin alone does not say that the choice is right; {shown}"
    sentence = f"{verdict}: {words}" + (
        f"; {evidence}" if verdict == "decided" or config.control or (verdict == "not judged" and found.tested) else ""
    )
    if at_chance:
        chance = f"the supernet's accuracy {found.accuracy:.4f} is at chance (up to {limit:.4f}, n = {found.samples})"
        sentence = f"{chance}, so the genotype says nothing: {_longer(config)}; {sentence}"
    known = {"margin": margin, "at_chance": at_chance, "chance": found.commonest, "chance_limit": limit}
    return {"verdict": verdict, **known, "reasons": collapse, "evidence": found.tested, "sentence": sentence}


def mean_margin(values: dict[str, float]) -> float | None:
    """Mean of the cell types' `margin`; None where no edge has two candidates besides `none`."""
    margins = [value for name, value in values.items() if name.startswith("architecture/margin/")]
    return fmean(margins) if margins else None


def in_short(margin: float) -> str:
    """`0.17`, and below the limit, where it matters, `0.0004`."""
    return f"{margin:.2f}" if margin >= LEAST_MARGIN else f"{margin:.1g}"


def collapses(cells: dict[str, Cell]) -> list[str]:
    """What is wrong with derived cells, in words: paths of every cell, shares of those that keep the resolution."""
    found = []
    for name, cell in cells.items():
        if longest_path(cell) == 0:
            found.append(f"no path leads through the {name} cell")
        if name != "reduce":
            found += [
                f"{number} of {len(cell.edges)} edges of the {name} cell are {kind}" for kind, number in _many(cell)
            ]
    return found


def _many(cell: Cell) -> list[tuple[str, int]]:
    """Kinds of operations that more than `LARGEST_SHARE` of the edges have, with the number of these edges."""
    operations = [edge.operation for edge in cell.edges]
    found = shares(operations, "share")
    return [
        (kind, sum(map(is_it, operations))) for kind, is_it in KINDS.items() if found[f"share_{kind}"] > LARGEST_SHARE
    ]


def _without_none(config: SearchConfig) -> str:
    candidates = [name for name in config.space.candidates if name != NONE]
    return f"leave none out (space.candidates=[{','.join(candidates)}])"


def _earlier(config: SearchConfig) -> str:
    return f"stop the architecture earlier (epochs={max(1, config.epochs // 2)}, or discretize with epoch=), or another seed"


# The end of a reason for a collapse -> what helps.
REMEDIES: dict[str, Callable[[SearchConfig], str]] = {"none": _without_none, "skip": _earlier, "pool": _earlier}


def _against(reasons: list[str], config: SearchConfig) -> str:
    """The overrides against a collapse."""
    kinds = [kind for kind in REMEDIES if any(reason.endswith(f" {kind}") for reason in reasons)] or ["none"]
    return REMEDIES[kinds[0]](config)


def _further(steps: int, config: SearchConfig) -> str:
    """The overrides that move an architecture further: `config` as it ran, with its alpha_lr."""
    faster = max(10 * config.alpha_lr, PUBLISHED_TRAVEL / max(1, steps))
    return f"more steps (epochs={4 * config.epochs}) or a larger alpha_lr (alpha_lr={faster:.2g})"


def _longer(config: SearchConfig) -> str:
    return f"more steps (epochs={4 * config.epochs}), and look at labels and images (debug=overfit)"
