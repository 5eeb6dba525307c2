"""The table and the plot of a sweep whose jobs know the true accuracy of what they found: methods side by side, over their seeds."""

import statistics
from collections.abc import Sequence
from typing import Any

from darts_lite.drawing.canvas import to_svg
from darts_lite.drawing.strips import Strip, strips
from darts_lite.runs.report import columns

# What a search has to beat, as the results hold it -> in words.
YARDSTICKS = {"best": "best cell", "heaviest": "most parameters", "random": "random cell, mean"}


def leaderboard(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each combination of settings, seeds aside, and for each yardstick; the best mean first.

    An entry has the number of runs, mean and standard deviation of their true accuracy, each accuracy, and the ranks of the cells.
    """
    same = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(jobs) > 1 else set()
    groups: dict[str, list[dict[str, Any]]] = {}
    yardsticks: dict[str, float] = {}
    for job in jobs:
        if job["benchmark"] is not None:
            words = [word for word in job["overrides"] if word not in same and not word.startswith("seed=")]
            groups.setdefault(" ".join(words) or "-", []).append(job["benchmark"])
            yardsticks |= {YARDSTICKS[name]: job["benchmark"][name] for name in YARDSTICKS if name in job["benchmark"]}
    entries = []
    for settings, members in groups.items():
        values = [one["accuracy"] for one in members]
        mean, std = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None  # n - 1
        ranks = sorted(one["rank"] for one in members)
        entry = {"settings": settings, "runs": len(members), "accuracy": mean, "accuracy_std": std}
        entries.append({**entry, "accuracies": values, "ranks": ranks})
    for settings, value in yardsticks.items():
        entries.append(
            {"settings": settings, "runs": 0, "accuracy": value, "accuracy_std": None, "accuracies": [], "ranks": []}
        )
    return sorted(entries, key=lambda entry: -entry["accuracy"])


def in_words(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of the table; none without an entry."""
    if not entries:
        return []
    rows = [("place", "settings", "runs", "true accuracy", "std", "ranks of the cells")]
    place = 0
    for entry in entries:
        place += bool(entry["runs"])  # a yardstick has no place
        std = "-" if entry["accuracy_std"] is None else f"{entry['accuracy_std']:.2f}"
        ranks = ", ".join(f"{rank:,}" for rank in entry["ranks"]) or "-"
        first = str(place) if entry["runs"] else "-"
        rows.append((first, entry["settings"], str(entry["runs"] or "-"), f"{entry['accuracy']:.2f}", std, ranks))
    return columns(rows)


def plot(entries: Sequence[dict[str, Any]]) -> str:
    """An SVG document: a row of dots for each combination of settings, one a run, a bar at their mean, and a line for each yardstick."""
    rows = [Strip(entry["settings"], entry["accuracies"]) for entry in entries if entry["runs"]]
    lines = {entry["settings"]: entry["accuracy"] for entry in entries if not entry["runs"]}
    return to_svg(strips(rows, lines), "true accuracy of what each search found")
