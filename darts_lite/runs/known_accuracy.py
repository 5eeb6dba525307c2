"""What a search found against the truth, where a table of a benchmark knows the accuracy of every cell.

For an epoch, and at the end, of the derived cell:

    benchmark/accuracy            its true value, in the unit of the table
    benchmark/rank                1 and the number of cells of the table that are better
    benchmark/regret              the best value less this one

At the end, over a random sample of cells, `rank_correlation`: Spearman's, between the accuracy of the supernet at the one-hot mixing of a
cell, on a few images of the validation part, and its true value. It is missing where all estimates are equal.
"""

from random import Random
from typing import Any

import torch

from darts_lite.data.benchmark_table import BenchmarkTable, read_table
from darts_lite.errors import UserError
from darts_lite.genotypes.arch_string import SPACE, arch_operations, parse_arch, to_arch
from darts_lite.genotypes.genotype import Genotype
from darts_lite.methods.build import build_space
from darts_lite.runs.ranks import spearman
from darts_lite.seeds import derive
from darts_lite.settings.configs import SearchConfig
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.table import Table, mixing_of
from darts_lite.training.search_state import SearchState


class KnownAccuracy:
    """Values of derived cells in the table of a configuration; without a table there are none."""

    def __init__(self, config: SearchConfig):
        """Read the table. Raises UserError: 2 for another space, 3 for a file that is none."""
        self.config, path = config, config.benchmark.table
        if path is not None and config.space.name != SPACE:
            reason = f"a table is of the cells of {SPACE}, and the space is {config.space.name}"
            raise UserError("benchmark.table", reason, f"give space={SPACE}, or leave it out", value=path)
        self.table: BenchmarkTable | None = None if path is None else read_table(path, config.benchmark.metric)

    @property
    def metric(self) -> str | None:
        """Name of the table's column that is the truth; None without a table."""
        return None if self.table is None else self.table.metric

    def of(self, genotype: Genotype) -> dict[str, float]:
        """`benchmark/...` of one cell, none where the table lacks it."""
        value = None if self.table is None else self.table.value(genotype)
        if self.table is None or value is None:
            return {}
        return {
            "benchmark/accuracy": value,
            "benchmark/rank": self.table.rank(value),
            "benchmark/regret": self.table.best - value,
        }

    def looked_up(self, genotype: Genotype) -> dict[str, Any]:
        """What result.json holds under `benchmark`, as far as the table alone knows it."""
        if self.table is None:
            return {}
        found = {name.removeprefix("benchmark/"): value for name, value in self.of(genotype).items()}
        facts = {"arch": to_arch(genotype), "metric": self.table.metric, "cells": len(self.table.values)}
        return {"benchmark": {**found, **facts, **self._yardsticks()}}

    def _yardsticks(self) -> dict[str, float]:
        """The best value, that of a random cell on average, and that of the cell with most parameters, where the table has it."""
        assert self.table is not None
        # Which cell has most parameters does not depend on these.
        skeleton = Skeleton(self.config.cells, self.config.channels, classes=10)
        heaviest, _ = build_space(self.config.space).heaviest(skeleton, 0)
        value = self.table.value(heaviest)
        return {"best": self.table.best, "random": self.table.mean} | ({} if value is None else {"heaviest": value})

    def finished(self, state: SearchState, genotype: Genotype) -> dict[str, Any]:
        """What result.json holds under `benchmark`."""
        if self.table is None:
            return {}
        sample = self._sample(state.architecture.tables)
        estimates = [self._estimate(state, arch) for arch in sample]
        correlation = spearman(estimates, [self.table.values[arch] for arch in sample])
        found = {"sample": len(sample)} | ({} if correlation is None else {"rank_correlation": correlation})
        return {"benchmark": self.looked_up(genotype)["benchmark"] | found}

    def _sample(self, tables: dict[str, Table]) -> list[str]:
        """Distinct cells of the table that the supernet has the operations of, drawn from the seed."""
        assert self.table is not None
        live = set(tables["cell"].live())
        archs = [arch for arch in sorted(self.table.values) if live.issuperset(enumerate(arch_operations(arch)))]
        rng = Random(derive(self.config.seed, "benchmark"))
        return rng.sample(archs, min(self.config.benchmark.sample, len(archs)))

    def _estimate(self, state: SearchState, arch: str) -> float:
        """Accuracy of the supernet as the network of one cell, of which alone it computes the operations."""
        mixing = mixing_of(parse_arch(arch), state.architecture.tables)
        with torch.no_grad():
            return state.judge(mixing, self.config.benchmark.images)[0]


def in_words(found: dict[str, Any]) -> list[str]:
    """Lines of the end of a search, of what its result holds under `benchmark`."""
    if not found:
        return []
    if "accuracy" not in found:
        return [f"{found['arch']} is not in the table"]
    place = f"rank {found['rank']:,} of {found['cells']:,}"
    lines = [
        f"{found['metric']} of {found['arch']}: {found['accuracy']:.2f}, {place}, {found['regret']:.2f} below the best"
    ]
    if "rank_correlation" in found:
        sample = f"{found['sample']} random cells"
        lines.append(
            f"rank correlation of the supernet's estimates and the truth, {sample}: {found['rank_correlation']:.2f}"
        )
    return lines
