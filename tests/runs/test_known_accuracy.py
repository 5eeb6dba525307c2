"""What a search found against a table with known answers: the table, ranks and correlation, and all that a run says of them."""

import gzip
import json
import random
from pathlib import Path

import pytest
import tiny

from darts_lite.cli.leaderboard import in_words, leaderboard
from darts_lite.cli.run import run_verb
from darts_lite.data.benchmark_table import read_table
from darts_lite.errors import UserError
from darts_lite.genotypes.arch_string import EXAMPLE, parse_arch, to_arch
from darts_lite.runs.known_accuracy import KnownAccuracy
from darts_lite.runs.known_accuracy import in_words as in_line
from darts_lite.search import search
from darts_lite.settings.configs import BenchmarkTableConfig, SpaceConfig
from darts_lite.settings.parts import PartConfig
from darts_lite.spaces import SPACES
from darts_lite.spaces.table import mixing_of
from darts_lite.storage.json_lines import JsonLines

EMPTY = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
THREES = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def write(path, rows, header="index,arch,truth,other"):
    Path(path).write_text("\n".join([header, *(f"{i},{arch},{a},{b}" for i, (arch, a, b) in enumerate(rows))]) + "\n")
    return path


def whole(path):
    """A table of all cells whose truth is the number of 3x3 convolutions, and a little for each other operation."""
    import itertools

    names, rows = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"), []
    for a, b, c, d, e, f in itertools.product(names, repeat=6):
        value = sum({"nor_conv_3x3": 10, "nor_conv_1x1": 1}.get(name, 0) for name in (a, b, c, d, e, f))
        rows.append((f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|", value, -value))
    return write(path, rows)


# The table -----------------------------------------------------------------------------


def test_the_published_table(data_folder):
    table = read_table(data_folder / "nasbench201_cifar10.csv.gz")
    assert table.metric == "c10_test_200" and len(table.values) == 15_625
    assert round(table.best, 3) == 94.373 and table.rank(table.best) == 1
    value = table.value(parse_arch(THREES))
    assert (round(value, 2), table.rank(value)) == (93.76, 167)
    assert read_table(data_folder / "nasbench201_cifar10.csv.gz", "c10_valid_12").value(parse_arch(THREES)) != value


def test_ranks_of_equals_and_metrics(tmp_path):
    path = write(tmp_path / "t.csv", [(EMPTY, 1, 9), (THREES, 3, 7), (EXAMPLE, 3, 8)])
    table = read_table(path)
    assert (table.metric, table.best) == ("truth", 3.0)
    assert [table.rank(table.value(parse_arch(arch))) for arch in (EMPTY, THREES, EXAMPLE)] == [3, 1, 1]
    assert read_table(path, "other").value(parse_arch(EMPTY)) == 9.0
    assert table.value(parse_arch(EMPTY.replace("none~2", "skip_connect~2"))) is None
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read_table(tmp_path / "t.csv.gz").values == table.values


@pytest.mark.parametrize(
    ("text", "said", "code"),
    [
        ("", "has no column arch", 3),
        ("arch\n" + EMPTY, "has no column arch with a metric after it", 3),
        ("arch,a\n" + EMPTY + ",nan", r"line 2: cannot be used \(a is not finite\)", 3),
        ("arch,a\n" + EMPTY + ",x", r"line 2: cannot be used \(could not convert", 3),
        ("arch,a\n" + EMPTY, r"line 2: cannot be used \(list index", 3),
        (f"arch,a\n{EMPTY},1\n{EMPTY},1", r"line 3: cannot be used \(the cell is there twice\)", 3),
        ("arch,a\n|none~0|,1", r"line 2: cannot be used \(arch is no cell of NAS-Bench-201", 3),
        ("\x1f\x8bno", "cannot be read", 3),
        (f"arch,a\n{EMPTY},1", "benchmark.metric: unknown name, got 'truth'", 2),
    ],
)
def test_what_is_no_table(tmp_path, text, said, code):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=said) as caught:
        read_table(path, "truth" if code == 2 else None)
    assert caught.value.code == code


# A search ------------------------------------------------------------------------------


def config(**changes):
    benchmark = BenchmarkTableConfig(table="known.csv", sample=12, images=64)
    space = SpaceConfig(name="nasbench201")
    how = {"benchmark": benchmark, "space": space, "selection": "argmax", "channels": 8, "alpha_init_std": 1.0}
    return tiny.search_config(**(how | changes))


@pytest.fixture
def known(tiny_folder):
    return read_table(whole("known.csv"))


def test_a_search_says_what_its_cell_is_worth(known):
    result = tiny.run(config())
    found = result["benchmark"]
    arch = to_arch(parse_arch(found["arch"]))
    value = known.values[arch]
    assert (found["accuracy"], found["rank"], found["regret"]) == (value, known.rank(value), 60 - value)
    assert (found["best"], found["metric"], found["cells"], found["sample"]) == (60.0, "truth", 15_625, 12)
    assert -1 <= found["rank_correlation"] <= 1
    lines = list(JsonLines(Path("run/metrics.jsonl")).read())
    epochs = [line for line in lines if line["kind"] in ("start", "epoch")]
    assert len(epochs) == 3
    for line in epochs:
        value = known.values["".join(_arch(line["genotype"]))]
        assert line["values"]["benchmark/accuracy"] == value and line["values"]["benchmark/regret"] == 60 - value
        assert line["values"]["benchmark/rank"] == known.rank(value)
    assert lines[-1]["values"]["final/benchmark_accuracy"] == found["accuracy"]
    assert lines[-1]["values"]["final/benchmark_rank_correlation"] == found["rank_correlation"]
    assert f"  true {found['accuracy']:.2f} (rank {found['rank']:,})" in Path("run/run.log").read_text()


def test_an_epoch_says_nothing_where_no_alphas_learn(known):
    """The cell of equal weights is `none` everywhere; the one that is found is another, which a judge picks at the end."""
    result = tiny.run(config(relaxation="uniform_path", selection=PartConfig("best_of", {"samples": 2, "images": 32})))
    lines = list(JsonLines(Path("run/metrics.jsonl")).read())
    assert not [line for line in lines[:-1] if any(name.startswith("benchmark/") for name in line["values"])]
    assert lines[-1]["values"]["final/benchmark_accuracy"] == result["benchmark"]["accuracy"]


def _arch(plain):
    edges = [f"{edge['operation']}~{edge['source']}" for edge in plain["cells"]["cell"]["edges"]]
    return f"|{edges[0]}|+|{edges[1]}|{edges[2]}|+|{'|'.join(edges[3:])}|"


@pytest.mark.slow
def test_of_several_searches_the_picked_cell_is_looked_up(known):
    result = tiny.run(config(restarts=2, restart_epochs=1))
    found = result["benchmark"]
    assert found["arch"] == _arch(result["genotype"]) and found["accuracy"] == known.values[found["arch"]]
    assert found.items() <= json.loads(Path(f"run/{result['picked']}/result.json").read_text())["benchmark"].items()
    assert "rank_correlation" not in found, "each supernet has its own"


def test_of_candidates_the_true_accuracy_is_told(known):
    selection = PartConfig("validated", {"k": 4, "epochs": 1, "of": ["random"]})
    report = tiny.Report()
    result = search(config(selection=selection, alpha_lr=0.5, control="permuted_labels"), report=report)
    rows = result["selection"]["candidates"]
    assert [row["benchmark/accuracy"] for row in rows] == [known.values[_arch(row["genotype"])] for row in rows]
    assert result["benchmark"]["accuracy"] == rows[result["selection"]["picked"]]["benchmark/accuracy"]
    (head,) = [line for line in report.lines if line.startswith("candidate")]
    assert "truth" in head
    assert any("the short trainings were judged by the true labels" in line for line in report.lines)


def test_a_table_judges_and_changes_nothing(known):
    judged = tiny.run(config())
    alphas = Path("run/alphas.jsonl").read_bytes()
    plain = tiny.run(config(benchmark=BenchmarkTableConfig(), run_dir="plain"))
    assert Path("plain/alphas.jsonl").read_bytes() == alphas and plain["genotype"] == judged["genotype"]
    assert plain["validation"] == judged["validation"] and "benchmark" not in plain


def test_a_cell_that_the_table_lacks(tiny_folder):
    write("known.csv", [(EMPTY, 1, 9), (THREES, 3, 7)])
    found = tiny.run(config(space=SpaceConfig(name="nasbench201", candidates=["skip_connect", "nor_conv_3x3"])))
    assert (
        "accuracy" not in found["benchmark"] and found["benchmark"]["sample"] == 1
    )  # of six 3x3; `none` is no candidate
    assert "rank_correlation" not in found["benchmark"]
    assert in_line({"arch": EMPTY}) == [f"{EMPTY} is not in the table"]


def test_estimates_are_those_of_the_one_hot_supernet(known):
    """On shuffled batches of 32, in training mode as `judge` has it: there are no running statistics to tell the modes apart."""
    state, feeds, _ = tiny.training(config())
    state.validation = feeds[1].part
    genotype = SPACES["nasbench201"](SpaceConfig(name="nasbench201")).random(random.Random(1))
    whole = state.scores(mixing_of(genotype, state.architecture.tables))
    assert whole["samples"] == 32  # of 48, full batches
    assert KnownAccuracy(config())._estimate(state, to_arch(genotype)) == whole["accuracy"]


def test_a_table_of_another_space_is_refused_before_a_folder_is_made(known, capsys):
    words = ["dataset=npz", "dataset.path=data.npz", "benchmark.table=known.csv", "run_dir=mine"]
    assert run_verb("search", words) == 2
    assert "benchmark.table: a table is of the cells of nasbench201, and the space is darts" in capsys.readouterr().err
    assert run_verb("search", [*words[:2], "space=nasbench201", "benchmark.table=no.csv", "run_dir=mine"]) == 3
    assert not Path("mine").exists()


# Methods side by side ----------------------------------------------------------------------


@pytest.mark.slow
def test_the_leaderboard_of_a_sweep(known, capsys):
    words = ["-m", "experiment=nasbench201_leaderboard", "dataset.path=data.npz", "benchmark.table=known.csv"]
    words += ["epochs=1", "batch_size=16", "device=cpu", "benchmark.sample=3", "benchmark.images=32", "run_dir=mine"]
    words += ["alpha_lr=0.1,3", "seed=0,1", "resume=auto"]
    assert run_verb("search", words) == 0
    every = json.loads(Path("mine/sweep.json").read_text())["leaderboard"]
    yardsticks = {entry["settings"]: entry["accuracy"] for entry in every if not entry["runs"]}
    mean = sum(known.values.values()) / len(known.values)
    assert yardsticks == {"best cell": 60.0, "most parameters": 60.0, "random cell, mean": pytest.approx(mean)}
    entries = [entry for entry in every if entry["runs"]]
    assert sorted(entry["settings"] for entry in entries) == ["alpha_lr=0.1", "alpha_lr=3"]
    results = [json.loads((Path("mine") / str(i) / "result.json").read_text())["benchmark"] for i in range(4)]
    for entry, pair in zip(sorted(entries, key=lambda one: one["settings"]), (results[:2], results[2:]), strict=True):
        a, b = (one["accuracy"] for one in pair)
        assert entry["runs"] == 2 and entry["accuracy"] == pytest.approx((a + b) / 2)
        assert entry["accuracy_std"] == pytest.approx(abs(a - b) / 2**0.5)
        assert entry["accuracies"] == [a, b]
        assert entry["ranks"] == sorted(one["rank"] for one in pair)
    assert entries[0]["accuracy"] >= entries[1]["accuracy"]
    lines = capsys.readouterr().out.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("place  settings"))
    places = [line.split()[0] for line in lines[header + 1 : header + 6]]
    assert [place for place in places if place != "-"] == ["1", "2"]
    assert "alpha_lr=0.1" in Path("mine/leaderboard.svg").read_text()
    assert run_verb("search", words) == 0 and "already finished" in capsys.readouterr().out


def test_one_run_has_no_deviation_and_none_has_no_table():
    job = {"overrides": ["method=a", "seed=0"], "benchmark": {"accuracy": 93.761, "rank": 1670}}
    (line,) = in_words(leaderboard([job]))[1:]
    assert line.split() == ["1", "method=a", "1", "93.76", "-", "1,670"]
    assert in_words(leaderboard([{"overrides": [], "benchmark": None}])) == []
