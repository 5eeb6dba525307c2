"""The table of several networks judged by one part of the data, and what guessing reaches there."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from darts_lite.data.dataset import Dataset
from darts_lite.data.splits import split
from darts_lite.runs.report import columns

Result = dict[str, Any]
Z95 = 1.96  # standard deviations of a normal distribution that 95 % lie within


@dataclass(frozen=True)
class Row:
    """Accuracy and loss of one network, trained several times, or of several networks."""

    name: str
    scores: Sequence[Result]
    parameters: int | None = None
    macs: int | None = None

    def to_plain(self) -> Result:
        """The row as `result.json` holds it."""
        return {"name": self.name, **summary(self.scores), "parameters": self.parameters, "macs": self.macs}


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); of a single value None."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def summary(scores: Sequence[Result]) -> Result:
    """Mean and standard deviation of the accuracies and losses of several runs, and their number."""
    found: Result = {}
    for name in ("accuracy", "loss"):
        found[name], found[f"{name}_std"] = spread([score[name] for score in scores])
    return {**found, "runs": len(scores)}


def in_words(summary: Result) -> str:
    """`accuracy 0.9824 (standard deviation 0.0042), loss 0.0712 (0.0100), n = 3`."""

    def bracket(name: str, before: str = "") -> str:
        deviation = summary[f"{name}_std"]
        return f"{summary[name]:.4f}" + ("" if deviation is None else f" ({before}{deviation:.4f})")

    return f"accuracy {bracket('accuracy', 'standard deviation ')}, loss {bracket('loss')}, n = {summary['runs']}"


def chance(labels: np.ndarray) -> Result:
    """Accuracy of always naming the commonest class, p, and the interval p +- 1.96 sqrt(p (1 - p) / n) that 95 % of guesses at p fall into.

    `labels` (n,) are those that judge. The normal approximation of the binomial distribution, cut to [0, 1].
    """
    share = float(np.bincount(labels).max() / len(labels))
    half = Z95 * math.sqrt(share * (1 - share) / len(labels))
    return {"accuracy": share, "low": max(0.0, share - half), "high": min(1.0, share + half), "samples": len(labels)}


def judging_labels(dataset: Dataset, part: str, train_fraction: float | None, seed: int) -> np.ndarray:
    """Labels (n,) of the part of the data, `test` or `validation`, that judges networks; a validation half is that of `seed`."""
    if part == "test":
        return dataset.y_test
    if dataset.y_val is not None:
        return dataset.y_val
    assert train_fraction is not None  # without one there is no validation half
    return dataset.y_train[split(dataset.y_train, train_fraction, seed)[1]]


def comparison(rows: Sequence[Row], guess: Result) -> list[Result]:
    """The rows of a table as plain data, the last one is `guess`, see `chance`."""
    return [*(row.to_plain() for row in rows), {"name": "chance", **guess}]


def in_lines(table: Sequence[Result], part: str) -> list[str]:
    """The lines of a table that `comparison` made."""
    *rows, guess = table
    body = [
        [
            row["name"],
            str(row["runs"]),
            f"{row['accuracy']:.4f}",
            "" if row["accuracy_std"] is None else f"{row['accuracy_std']:.4f}",
            f"{row['loss']:.4f}",
            *("" if row[cost] is None else f"{row[cost]:,}" for cost in ("parameters", "macs")),
        ]
        for row in rows
    ]
    between = f"{guess['low']:.4f} to {guess['high']:.4f} for 95 %"
    head = ["network", "n", f"{part} accuracy", "std", "loss", "parameters", "MACs"]
    table_lines = columns([head, *body, ["chance", "", f"{guess['accuracy']:.4f}", "", "", "", ""]])
    return [*table_lines[:-1], f"{table_lines[-1]}  ({between})"]
