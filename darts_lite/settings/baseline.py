"""Baseline of a retraining: how many random genotypes are trained beside the found one, `baseline=random:3`."""

import re


def random_networks(baseline: str) -> int | None:
    """N of `random:N`, 1 to 999; None for another text."""
    found = re.fullmatch(r"random:([1-9]\d{0,2})", baseline)
    return int(found[1]) if found else None
