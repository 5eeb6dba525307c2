"""Table of a benchmark with known answers: a CSV file, plain or gzipped, with a line for each cell of NAS-Bench-201.

arch      the cell, e.g. |nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|
others    metrics, numbers; the one called `metric` is the truth (None: the first column after arch), the larger the better
"""

import csv
import gzip
import io
import math
import os
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from darts_lite.data.files import damage, data_error, open_regular, why
from darts_lite.errors import choice
from darts_lite.genotypes.arch_string import EXAMPLE, OPERATIONS, arch_of, arch_operations, to_arch
from darts_lite.genotypes.genotype import Genotype

MOST_BYTES = 2**26  # unpacked; all cells with six columns are 2 MB


@dataclass(frozen=True)
class BenchmarkTable:
    """True values of cells, by arch string."""

    path: str
    metric: str
    values: dict[str, float]

    def value(self, genotype: Genotype) -> float | None:
        """The true value of a cell; None where the table lacks it."""
        return self.values.get(to_arch(genotype))

    def rank(self, value: float) -> int:
        """1 and the number of cells with a larger value."""
        return 1 + len(self._ascending) - self._after(value)

    @property
    def best(self) -> float:
        """The largest value."""
        return self._ascending[-1]

    @property
    def mean(self) -> float:
        """The mean of all values: what a random cell has on average."""
        return fmean(self._ascending)

    @cached_property
    def _ascending(self) -> list[float]:
        return sorted(self.values.values())

    def _after(self, value: float) -> int:
        return bisect_left(self._ascending, math.nextafter(value, math.inf))


def read_table(path: str | os.PathLike[str], metric: str | None = None) -> BenchmarkTable:
    """The table in a file. Raises UserError: 2 for a metric that it lacks, 3 for what is no such table."""
    fix = "give a CSV file with a column arch and columns of numbers"
    with open_regular(path, "the CSV file", "give the path of the table") as file, damage(path, fix):
        packed = file.read(MOST_BYTES + 1)
        unpacked = gzip.GzipFile(fileobj=io.BytesIO(packed)) if packed[:2] == b"\x1f\x8b" else io.BytesIO(packed)
        content = unpacked.read(MOST_BYTES + 1)
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    if len(content) > MOST_BYTES:
        raise data_error(path, f"is larger than {MOST_BYTES:,} bytes", "leave out columns that are not needed")
    header = rows[0] if rows else []
    if "arch" not in header or header.index("arch") + 1 >= len(header) or len(rows) < 2:
        raise data_error(path, "has no column arch with a metric after it, or no lines", fix)
    place = header.index("arch")
    metric = header[place + 1] if metric is None else metric
    if metric not in header:
        raise choice("benchmark.metric", metric, header[place + 1 :])
    column, values = header.index(metric), {}
    for number, row in enumerate(rows[1:], 2):
        try:
            names, value = arch_operations(row[place]), float(row[column])
            if not names or not set(names) <= set(OPERATIONS):
                raise ValueError("arch is no cell of NAS-Bench-201")
            arch = arch_of(names)
            if not math.isfinite(value):
                raise ValueError(f"{metric} is not finite")
            if arch in values:
                raise ValueError("the cell is there twice")
        except (IndexError, ValueError) as error:
            fix = f"write {EXAMPLE}, once, and a finite number"
            raise data_error(f"{path} line {number}", f"cannot be used ({why(error)})", fix) from error
        values[arch] = value
    return BenchmarkTable(os.fspath(path), metric, values)
