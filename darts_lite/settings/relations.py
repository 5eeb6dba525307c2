"""Relations that must hold between settings; `schema` checks each in every configuration that has all its keys."""

from collections.abc import Callable
from typing import NamedTuple

from darts_lite.settings.baseline import random_networks
from darts_lite.settings.options import LARGEST_SEED
from darts_lite.settings.parts import PartConfig


class Relation(NamedTuple):
    """Condition on the values of several settings, with the words for where it does not hold."""

    keys: tuple[str, ...]  # the first one is blamed
    holds: Callable[..., bool]  # of the values, in the order of `keys`
    reason: str
    fix: str


def _distinct(values: list | None) -> bool:
    """Whether no name or number is there twice."""
    return len(set(values or ())) == len(values or ())


def _distinct_parts(parts: list[PartConfig]) -> bool:
    """Whether no name is there twice. Parts of the user's own may be alike: each has its own options."""
    return _distinct([part.name for part in parts if not part.is_own])


def _equally_long(mean: list | None, std: list | None) -> bool:
    return mean is std or (mean is not None and std is not None and len(mean) == len(std) > 0)


RELATIONS = (
    Relation(("lr_min", "lr"), lambda low, high: low <= high, "must not be above lr", "lower lr_min or raise lr"),
    Relation(
        ("lr_min", "schedule"),
        lambda low, schedule: schedule != "exponential" or low > 0,
        "is never reached by schedule=exponential",
        "give one above 0: the factor of an epoch is (lr_min / lr) ** (1 / epochs)",
    ),
    Relation(
        ("warmup_epochs", "epochs"), lambda part, all: part <= all, "must not be above epochs", "lower warmup_epochs"
    ),
    Relation(
        ("reductions", "cells"),
        lambda places, cells: not places or max(places) < cells,
        "must be numbers of cells, counted from 0",
        "give numbers below cells, or null",
    ),
    Relation(
        ("seeds",), lambda seeds: seeds is None or len(seeds) > 0, "must not be empty", "give e.g. [0,1,2], or null"
    ),
    Relation(("seeds",), _distinct, "must be distinct", "name each seed once"),
    Relation(
        ("baseline",),
        lambda baseline: baseline is None or random_networks(baseline) is not None,
        "must be random:N with N from 1 to 999",
        "give e.g. random:3, or null",
    ),
    Relation(
        ("baseline", "genotype"),
        lambda baseline, genotype: baseline is None or genotype != "random",
        "compares what was found with random genotypes, and genotype=random is one of them",
        "give the folder of a search in genotype",
    ),
    Relation(
        ("baseline", "init"),
        lambda baseline, init: baseline is None or init == "none",
        "would be compared with a network that does not start from scratch",
        "give init=none",
    ),
    Relation(
        ("restarts", "seed"),
        lambda restarts, seed: seed + restarts - 1 <= LARGEST_SEED,
        "need seeds up to seed + restarts - 1, above the largest one",
        "lower seed",
    ),
    Relation(
        ("debug", "resume"),
        lambda debug, resume: debug is None or resume is None,
        "a debug run is short, and starts anew each time",
        "leave resume out",
    ),
    *(
        Relation(
            ("debug", several),
            lambda debug, number: debug in (None, "fast") or number in (None, 1),
            "looks at a single run",
            f"leave {several} out, or give debug=fast",
        )
        for several in ("seeds", "baseline", "restarts")
    ),
    Relation(("reductions",), _distinct, "must be distinct", "name each cell once"),
    Relation(("alpha_betas",), lambda betas: len(betas) == 2, "must be two numbers", "give e.g. [0.5,0.999]"),
    Relation(("penalties",), _distinct_parts, "must be distinct", "name each penalty once"),
    Relation(("space.candidates",), lambda names: len(names) > 0, "must not be empty", "name at least one operation"),
    Relation(("space.candidates",), _distinct, "must be distinct", "name each operation once"),
    Relation(
        ("dataset.mean",),
        lambda mean: mean is None or all(0 <= value <= 1 for value in mean),
        "must lie from 0 to 1",
        "give the means of pixels divided by 255",
    ),
    Relation(
        ("dataset.std", "dataset.mean"),
        lambda std, mean: _equally_long(mean, std),
        "must be given together with dataset.mean, a number a channel each",
        "give both or neither",
    ),
)
