"""The table that is made of the API of NATS-Bench, on a stand-in with its methods."""

import gzip

from darts_lite.benchmarking.nats_bench import write_table
from darts_lite.data.benchmark_table import read_table
from darts_lite.genotypes.arch_string import EXAMPLE, parse_arch

ARCHS = (EXAMPLE, EXAMPLE.replace("none", "skip_connect"))


class StandIn:
    """Two architectures; an accuracy says what was asked for."""

    def __len__(self):
        return 2

    def arch(self, index):
        return ARCHS[index]

    def get_more_info(self, index, dataset, *, hp, is_random):
        assert is_random is False, "a mean over seeds, not one of them"
        kind = {"cifar10": 0, "cifar10-valid": 1, "cifar100": 2, "ImageNet16-120": 3}[dataset]
        part = {"cifar10-valid": "valid"}.get(dataset, "test")
        return {f"{part}-accuracy": 10 * kind + index + int(hp) / 1000}

    def get_cost_info(self, index, dataset, *, hp):
        return {"params": 0.129306, "flops": 15.64737, "latency": 0.01}


def test_every_column_is_what_its_name_says(tmp_path):
    write_table(StandIn(), tmp_path / "table.csv.gz")
    lines = gzip.decompress((tmp_path / "table.csv.gz").read_bytes()).decode().splitlines()
    assert (
        lines[0] == "index,arch,c10_test_200,c10_valid_12,c10_test_12,c100_test_200,in16_test_200,c10_params,c10_flops"
    )
    assert lines[2] == f"1,{ARCHS[1]},1.2,11.012,1.012,21.2,31.2,129306,15647370"
    table = read_table(tmp_path / "table.csv.gz")
    assert table.metric == "c10_test_200" and table.value(parse_arch(ARCHS[0])) == 0.2
    write_table(StandIn(), tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv").values == table.values
    first = (tmp_path / "table.csv.gz").read_bytes()
    write_table(StandIn(), tmp_path / "table.csv.gz")
    assert (tmp_path / "table.csv.gz").read_bytes() == first
