"""The table of a sweep whose jobs know the true accuracy of what they found: methods side by side, over their seeds."""

import statistics
from collections.abc import Sequence
from typing import Any

from darts_lite.runs.report import columns


def leaderboard(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each combination of settings, seeds aside, the best mean first: runs, mean, standard deviation, ranks of the cells."""
    same = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(jobs) > 1 else set()
    groups: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        if job["benchmark"] is not None:
            words = [word for word in job["overrides"] if word not in same and not word.startswith("seed=")]
            groups.setdefault(" ".join(words) or "-", []).append(job)
    entries = []
    for settings, members in groups.items():
        values = [job["benchmark"]["accuracy"] for job in members]
        mean, std = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None  # n - 1
        ranks = sorted(job["benchmark"]["rank"] for job in members)
        entries.append(
            {"settings": settings, "runs": len(members), "accuracy": mean, "accuracy_std": std, "ranks": ranks}
        )
    return sorted(entries, key=lambda entry: -entry["accuracy"])


def in_words(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of the table; none without an entry."""
    if not entries:
        return []
    rows = [("place", "settings", "runs", "true accuracy", "std", "ranks of the cells")]
    for place, entry in enumerate(entries, 1):
        std = "-" if entry["accuracy_std"] is None else f"{entry['accuracy_std']:.2f}"
        ranks = ", ".join(f"{rank:,}" for rank in entry["ranks"])
        rows.append((str(place), entry["settings"], str(entry["runs"]), f"{entry['accuracy']:.2f}", std, ranks))
    return columns(rows)
