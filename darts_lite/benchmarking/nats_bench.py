"""Table of `benchmark.table` from the official API of NATS-Bench, which needs its own package and a download of 2 GB.

    from nats_bench import create
    from darts_lite.benchmarking.nats_bench import write_table
    write_table(create("NATS-tss-v1_0-3ffb9-simple", "tss", fast_mode=True, verbose=False), "nasbench201.csv.gz")

Tested on a stand-in with the methods that are used here, not on the API itself.
"""

import csv
import gzip
import io
from pathlib import Path
from typing import Any, Protocol

from darts_lite.genotypes.arch_string import parse_arch, to_arch
from darts_lite.storage.files import write_atomic

# Column -> data set, epochs of training, name of the metric in the answer. The first one is the truth by default (`benchmark.metric`).
ACCURACIES = {
    "c10_test_200": ("cifar10", "200", "test-accuracy"),
    "c10_valid_12": ("cifar10-valid", "12", "valid-accuracy"),
    "c10_test_12": ("cifar10", "12", "test-accuracy"),
    "c100_test_200": ("cifar100", "200", "test-accuracy"),
    "in16_test_200": ("ImageNet16-120", "200", "test-accuracy"),
}
COSTS = {"c10_params": "params", "c10_flops": "flops"}  # which the API gives in millions


class Api(Protocol):
    """What is used of the API: architectures by number, accuracies as a mean over seeds (`is_random=False`), costs."""

    def __len__(self) -> int: ...
    def arch(self, index: int) -> str: ...
    def get_more_info(self, index: int, dataset: str, *, hp: str, is_random: bool) -> dict[str, Any]: ...
    def get_cost_info(self, index: int, dataset: str, *, hp: str) -> dict[str, float]: ...


def write_table(api: Api, path: str | Path) -> None:
    """Write a CSV file, gzipped where its name ends in .gz, with a line for each architecture of the API."""
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["index", "arch", *ACCURACIES, *COSTS])
    for index in range(len(api)):
        arch = to_arch(parse_arch(api.arch(index)))
        accuracies = [
            api.get_more_info(index, dataset, hp=epochs, is_random=False)[metric]
            for dataset, epochs, metric in ACCURACIES.values()
        ]
        costs = api.get_cost_info(index, "cifar10", hp="12")
        lines.writerow([index, arch, *accuracies, *(round(1e6 * costs[name]) for name in COSTS.values())])
    content = text.getvalue().encode()
    # mtime: equal tables are equal files.
    write_atomic(Path(path), gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)
