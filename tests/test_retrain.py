"""Retraining, evaluation and discretization: what is reported is what the last epoch's weights reach, on data that was seen once."""

import hashlib
import json
import math
import os
import shutil
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from darts_lite import data
from darts_lite.cli.run import run_verb
from darts_lite.data import problems, relocated
from darts_lite.data.parts import Order
from darts_lite.discretize import DiscretizeConfig, discretize
from darts_lite.errors import Exit, UserError, all_of
from darts_lite.evaluate import EvaluateConfig, _of_the_data, evaluate
from darts_lite.genotypes.genotype import from_json, to_json
from darts_lite.genotypes.text import parse_text, published
from darts_lite.models import load_model
from darts_lite.retrain import RetrainConfig, retrain
from darts_lite.runs import retrain_results as retrain_record
from darts_lite.settings.datasets import DatasetConfig
from darts_lite.spaces import find_genotype
from darts_lite.storage import checkpoint
from darts_lite.storage.run_folder import RunFolder
from darts_lite.training import evaluation

pytestmark = pytest.mark.usefixtures("tiny_folder")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a finished search `search` of three epochs and a finished retraining `retrain` of what it found."""
    folder, before = tmp_path_factory.mktemp("made"), os.getcwd()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.chdir(folder)
    try:
        tiny.write_data()
        tiny.run(tiny.search_config(epochs=3, alpha_lr=0.5, run_dir="search"))
        tiny.run(tiny.retrain_config(genotype="search", run_dir="retrain", test_every=None))
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
    return folder


@pytest.fixture
def both(made):
    for name in ("search", "retrain"):
        shutil.copytree(made / name, name)


def refused(call, config, code):
    with pytest.raises(UserError) as error:
        call(config, report=tiny.Report())
    assert error.value.code == code
    return str(error.value)


# What is reported


def test_the_last_epoch_is_reported_and_the_test_part_seen_once(monkeypatch):
    seen = []
    inner = retrain_record.evaluate

    def counted(network, part, *arguments, **named):
        score = inner(network, part, *arguments, **named)
        seen.append((len(part), score))
        return score

    monkeypatch.setattr(retrain_record, "evaluate", counted)
    result = tiny.run(tiny.retrain_config(test_every=None, epochs=3))
    ((samples, score),) = seen
    assert samples == 30 and result["test"] == score
    records = tiny.read_lines("run/metrics.jsonl")
    assert [record["kind"] for record in records if any("test" in name for name in record["values"])] == ["final"]
    # The network of the last checkpoint, evaluated by hand.
    weights = tiny.newest("run")["weights"]["network"]
    assert tiny.newest("run")["step"] == result["steps"] == 18
    stored = checkpoint.unpack(Path("run/model.pt").read_bytes())
    assert stored and set(stored) == {name for name in weights if not name.startswith("auxiliary.")}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in stored.items())
    network = load_model("run")
    dataset = data.load(tiny.data_config())
    images = torch.from_numpy(dataset.x_test).permute(0, 3, 1, 2).float() / 255
    images = (images - dataset.mean[0]) / dataset.std[0]
    with torch.no_grad():
        logits = network(images)
    assert (logits.argmax(1) == torch.from_numpy(dataset.y_test)).float().mean().item() == pytest.approx(
        score["accuracy"]
    )
    assert torch.nn.functional.cross_entropy(logits, torch.from_numpy(dataset.y_test)).item() == pytest.approx(
        score["loss"], rel=1e-4
    )
    assert not network.training and network.network.auxiliary is None


def test_a_curve_is_drawn_only_when_it_is_asked_for():
    tiny.run(tiny.retrain_config(test_every=2, epochs=3))
    epochs = [record for record in tiny.read_lines("run/metrics.jsonl") if record["kind"] == "epoch"]
    assert ["epoch/test/accuracy" in record["values"] for record in epochs] == [False, True, False]
    assert [record["step"] for record in epochs] == [6, 12, 18]


def test_looking_changes_nothing():
    traces = []
    for every in (None, 1):
        tiny.run(tiny.retrain_config(test_every=every))
        traces.append(tiny.trace("run"))
        shutil.rmtree("run")
    assert traces[0]["checkpoint"]["weights"] == traces[1]["checkpoint"]["weights"]
    assert traces[0]["result"]["test"] == traces[1]["result"]["test"]


def test_equal_seeds_are_equal_and_others_are_not():
    traces = []
    for seed in (1, 1, 2):
        tiny.run(tiny.retrain_config(seed=seed))
        traces.append(tiny.trace("run"))
        shutil.rmtree("run")
    tiny.assert_same(traces[0], traces[1])
    assert traces[0]["model.pt"] != traces[2]["model.pt"]


@pytest.mark.parametrize(
    "changes",
    [
        {"auxiliary_weight": 0.0},
        {"drop_path": 0.0},
        {"cutout": 0},
        {"alternating_flip": True},
        {"label_smoothing": 0.0},
        {"gradient_clip": None},
        {"nesterov": True},
    ],
    ids=str,
)
def test_every_setting_counts(changes):
    """Each piece of the recipe has an effect on the loss of some step, and can be left out."""
    assert losses() != losses(**changes)


@cache
def losses(**changes):
    """Of the logged steps, in the folder that a test runs in."""
    tiny.run(tiny.retrain_config(**{"gradient_clip": 0.1, "epochs": 1, "run_dir": "losses", **changes}))
    kept = [
        record["values"]["train/loss"] for record in tiny.read_lines("losses/metrics.jsonl") if record["kind"] == "step"
    ]
    shutil.rmtree("losses")
    return kept


def test_all_of_the_training_part_is_trained_on(monkeypatch):
    seen, indices = [], Order.indices

    def spied(self, step):
        seen.append(indices(self, step))
        return seen[-1]

    monkeypatch.setattr(Order, "indices", spied)
    tiny.run(tiny.retrain_config(epochs=1))
    assert sorted(torch.cat(seen).tolist()) == list(range(96))


# model.pt and evaluate


def test_evaluate_finds_what_retrain_reported(both):
    trained = json.loads(Path("retrain/result.json").read_text())
    result = evaluate(EvaluateConfig(run="retrain", run_dir="eval"), report=tiny.Report())
    for key in ("test", "parameters", "macs", "genotype", "seed", "dataset", "search_seconds", "training_seconds"):
        assert result[key] == trained[key], key
    assert result == json.loads(Path("eval/result.json").read_text())
    assert set(trained) - set(result) == {"steps", "model_sha256"} and result["verb"] == "evaluate"
    assert trained["search_seconds"] == json.loads(Path("search/result.json").read_text())["time"]["seconds"]
    assert json.loads(Path("eval/status.json").read_text())["state"] == "finished"
    assert (
        evaluate(EvaluateConfig(run="retrain", batch_size=7), report=tiny.Report())["test"]["accuracy"]
        == trained["test"]["accuracy"]
    )


def test_evaluate_on_data_that_has_moved(both):
    os.rename("data.npz", "moved.npz")
    error = refused(evaluate, EvaluateConfig(run="retrain"), Exit.DATA)
    assert "data.npz" in error and "dataset_path=" in error and "dataset.path" not in error
    report = tiny.Report()
    trained = json.loads(Path("retrain/result.json").read_text())
    config = EvaluateConfig(run="retrain", dataset_path="moved.npz")
    assert evaluate(config, report=report)["test"] == trained["test"] and not report.warnings
    tiny.write_data("moved.npz", seed=1)
    assert evaluate(config, report=report)["test"] != trained["test"]
    assert len(report.warnings) == 1 and "not the data" in report.warnings[0]
    with np.load("moved.npz") as arrays:
        np.savez("larger.npz", **{name: np.tile(a, (1, 2, 2, 1)) if a.ndim == 4 else a for name, a in arrays.items()})
    assert "network" in refused(evaluate, replace(config, dataset_path="larger.npz"), Exit.DATA)
    with np.load("moved.npz") as arrays:
        np.savez("other.npz", **{name: a + 1 if a.ndim == 1 else a for name, a in arrays.items()})
    error = refused(evaluate, replace(config, dataset_path="other.npz"), Exit.DATA)
    assert "dataset_path: has '1' as class 0, the network '0' as class 0" in error


def test_evaluate_names_its_own_keys():
    error = _of_the_data(all_of(problems(DatasetConfig(name="digits", root="x", mean=[0.5]))))
    assert [problem.key for problem in error.problems] == ["dataset_path"] * 2
    for problem in error.problems:
        assert "fix: give dataset_path=<" in str(problem) and "the training's dataset." in str(problem)
    with pytest.raises(UserError, match="dataset_path: dataset=digits reads no file"):
        relocated(DatasetConfig(), "x")


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "other", "link", "pickle"])
def test_a_damaged_model(damage, both):
    path = Path("retrain/model.pt")
    bytes_ = path.read_bytes()
    if damage in ("cut", "flip"):
        path.write_bytes(bytes_[:-9] if damage == "cut" else bytes_[:500] + bytes([bytes_[500] ^ 1]) + bytes_[501:])
    elif damage == "other":
        path.write_bytes(checkpoint.pack({"more": torch.ones(1)}))
    elif damage == "pickle":
        path.write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    else:
        path.unlink()
        if damage == "link":
            Path("elsewhere.pt").write_bytes(bytes_)
            path.symlink_to(Path("elsewhere.pt").resolve())
    refused(evaluate, EvaluateConfig(run="retrain"), Exit.RUN)
    with pytest.raises(UserError):
        load_model("retrain")
    assert not Path("executed").exists() and not Path("outputs").exists()


@pytest.mark.parametrize("change", [lambda m: m.pop("genotype"), lambda m: m.update(cells="3"), lambda m: m.update(channels=8),
                                    lambda m: m.update(class_names=7), lambda m: m.update(genotype="{}"), lambda m: m.clear(),
                                    lambda m: m.update(image_size=[8]), lambda m: m.update(mean="x")])  # fmt: skip
def test_a_tampered_description_of_the_model(change, both):
    state = tiny.newest("retrain")
    change(state["model"])
    tiny.rewrite("retrain", state)
    refused(evaluate, EvaluateConfig(run="retrain"), Exit.RUN)


def described(**numbers):
    return lambda model, weights: model.update(numbers)


def shared(model, weights):
    """Many cells, each of whose tensors is there: all in the bytes of one."""
    names = [name for name in weights if name.startswith("cells.0.")]
    model.update(cells=100, reductions=[])
    weights.update({name.replace("cells.0.", f"cells.{cell}."): weights[name] for cell in range(100) for name in names})


LARGE = {
    "cells": described(cells=2**16 - 1),
    "channels": described(channels=2**16 - 1),
    "reductions": described(cells=4, reductions=[0, 1, 2, 3]),
    "impossible": described(cells=100, reductions=list(range(100))),
    "classes": lambda model, weights: model.update(classes=2**16 - 1, class_names=["a"] * (2**16 - 1)),
    "inputs": lambda model, weights: model.update(input_channels=60000, mean=[0.5] * 60000, std=[0.5] * 60000),
    "shared": shared,
    "missing": lambda model, weights: weights.pop("classifier.bias"),
    "text": lambda model, weights: weights.update(more="text"),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_network_is_no_larger_than_its_tensors(kind, both, monkeypatch):
    """What a description asks for is not built: in no time, in no memory, and said in one line."""
    state, weights = tiny.newest("retrain"), checkpoint.unpack(Path("retrain/model.pt").read_bytes())
    LARGE[kind](state["model"], weights)
    tiny.rewrite("retrain", state)
    data = bytes(checkpoint.pack(weights))
    Path("retrain/model.pt").write_bytes(data)
    result = tiny.read_json("retrain/result.json") | {"model_sha256": hashlib.sha256(data).hexdigest()}
    Path("retrain/result.json").write_text(json.dumps(result))
    held = [math.prod(tensor.shape) for tensor in weights.values() if isinstance(tensor, torch.Tensor)]
    with TookAtMost(max(held)):
        start = time.monotonic()
        refused(evaluate, EvaluateConfig(run="retrain"), Exit.RUN)
        assert time.monotonic() - start < 5


def test_a_resumed_network_is_no_larger_than_its_tensors(monkeypatch):
    def boom(*arguments):
        raise RuntimeError("boom")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="boom"):
        patch.setattr("darts_lite.training.retrain_step.retrain_step", boom)
        tiny.run(tiny.retrain_config())
    for numbers in ({"cells": 100}, {"channels": 4096}, {"cells": 100, "reductions": list(range(100))}):
        state = tiny.newest("run")
        kept = dict(state["config"])
        state["config"].update(numbers)
        tiny.rewrite("run", state)
        with TookAtMost(2**20), pytest.raises(UserError, match="does not fit its configuration") as error:
            tiny.run(tiny.retrain_config(resume="run", run_dir=None, **numbers))
        assert error.value.code == Exit.RUN
        state["config"] = kept
        tiny.rewrite("run", state)
    tiny.run(tiny.retrain_config(resume="run", run_dir=None))


class TookAtMost(TorchDispatchMode):
    """Fails on an operation that makes a tensor of more than `most` numbers."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                assert tensor.numel() <= self.most, function
        return made


def test_a_tampered_configuration(both):
    """What evaluate and discretize read of it, and what a resumed retraining needs."""
    for run, keys in (("retrain", ("dataset",)), ("search", ("dataset", "space"))):
        for key in keys:
            state = tiny.newest(run)
            kept = state["config"].pop(key)
            tiny.rewrite(run, state)
            call, config = (
                (evaluate, EvaluateConfig(run=run)) if run == "retrain" else (discretize, DiscretizeConfig(run=run))
            )
            refused(call, config, Exit.RUN)
            again = (tiny.retrain_config if run == "retrain" else tiny.search_config)(resume=run, run_dir=None)
            assert f"{key}: is missing" in refused(lambda config, report: tiny.run(config), again, Exit.RUN)
            state["config"][key] = kept
            tiny.rewrite(run, state)
            call(config, report=tiny.Report())
    for genotype in ("{}", 7, None):
        state = tiny.newest("retrain")
        state["model"]["genotype"] = genotype
        tiny.rewrite("retrain", state)
        Path("retrain/status.json").unlink(missing_ok=True)
        refused(lambda config, report: tiny.run(config), tiny.retrain_config(genotype=None, resume="retrain"), Exit.RUN)


def test_class_names_are_shown_as_text(both):
    state = tiny.newest("retrain")
    state["model"]["class_names"][1] = "\x1b[31mred"
    tiny.rewrite("retrain", state)
    report = tiny.Report()
    evaluate(EvaluateConfig(run="retrain"), report=report)
    assert "\x1b" not in "".join(report.lines) and any("red" in line for line in report.lines)


def test_a_run_that_is_no_finished_retraining(both, capsys):
    for folder, verb in (("search", "evaluate"), ("retrain", "discretize")):
        assert run_verb(verb, [f"run={folder}"]) == Exit.RUN
        (line,) = capsys.readouterr().err.splitlines()
        assert "is not a " in line
    Path("retrain/model.pt").unlink()
    assert run_verb("evaluate", ["run=retrain"]) == Exit.RUN
    assert "resume=retrain" in capsys.readouterr().err
    assert not Path("outputs").exists()


# Which genotype


def chosen(config):
    """The genotype that a retraining takes, and the lines it says; one step of it."""
    report = tiny.Report()
    from darts_lite.retrain import retrain

    if Path("run").exists():
        shutil.rmtree("run")
    result = retrain(replace(config, epochs=1, batch_size=96, cells=2, channels=2), report=report)
    return from_json(json.dumps(result["genotype"])), report.lines


def test_names_files_texts_and_folders(both):
    found = from_json(Path("search/genotype.json").read_text())
    Path("my genotype.txt").write_text(f"DARTS = {tiny.TEXT}\n".removeprefix("DARTS = "))
    for value, expected in (
        ("search", found),
        ("search/genotype.json", found),
        ("my genotype.txt", parse_text(tiny.TEXT)),
        (tiny.TEXT, parse_text(tiny.TEXT)),
        (f"03/12 10:22:33 PM genotype = genotypes.{tiny.TEXT}", parse_text(tiny.TEXT)),
        ("DARTS = PC_DARTS", published("pc_darts")),
        ("pc_darts", published("pc_darts")),
    ):
        assert chosen(tiny.retrain_config(genotype=value))[0] == expected, value


def test_a_text_longer_than_any_file_name_is_trained_and_resumed():
    """To the end, from a stop in between as well."""
    text = tiny.TEXT.replace(", ", "," + 20 * " ")
    assert len(text) > 255
    config = tiny.retrain_config(genotype=text, epochs=1, batch_size=48, cells=2, channels=2, checkpoint_steps=1)
    with pytest.raises(RuntimeError, match="stopped"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrain_record, "latencies", lambda *given: stop())
        tiny.run(config)
    assert not Path("run/result.json").exists()
    result = tiny.run(RetrainConfig(resume="run"))
    assert result["search_seconds"] is None and from_json(json.dumps(result["genotype"])) == parse_text(tiny.TEXT)
    assert load_model("run")


def stop():
    raise RuntimeError("stopped")


@pytest.mark.parametrize("text", ["n" * 300, "a\0b", "a/" * 3000, "file.txt/below"])
@pytest.mark.parametrize("key", ["genotype", "init", "resume", "run", "open"])
def test_what_can_be_no_path_is_refused_in_one_line(key, text):
    Path("file.txt").write_text("")
    calls = {
        "genotype": lambda: retrain(tiny.retrain_config(genotype=text)),
        "init": lambda: retrain(tiny.retrain_config(init=text)),
        "resume": lambda: retrain(RetrainConfig(resume=text)),
        "run": lambda: load_model(text),
        "open": lambda: RunFolder.reopen(Path(text)),
    }
    with pytest.raises(UserError) as error:
        calls[key]()
    setting = key == "genotype" or ("\0" in text and key in ("init", "resume"))
    assert error.value.code == (Exit.CONFIGURATION if setting else Exit.RUN)
    assert not Path("run").exists()


def test_a_folder_named_like_a_genotype_is_not_where_it_came_from(both):
    """The genotype is the published one, and so is what its search cost: not known."""
    shutil.copytree("search", "pc_darts")
    shutil.copytree("search", "random")
    assert retrain_record.search_seconds("pc_darts") is retrain_record.search_seconds("random") is None
    with pytest.raises(UserError, match="no supernet"):
        tiny.run(tiny.retrain_config(genotype="pc_darts", init="supernet", run_dir="new"))


def test_a_retraining_and_a_result_serve_as_a_genotype(both):
    found = from_json(Path("search/genotype.json").read_text())
    seconds = json.loads(Path("search/result.json").read_text())["time"]["seconds"]
    evaluate(EvaluateConfig(run="retrain", run_dir="evaluation"), report=tiny.Report())
    for value in ("retrain", "retrain/result.json", "search/result.json", "search/genotype.json", "evaluation"):
        assert find_genotype(value) == found
        assert retrain_record.search_seconds(value) == (None if value == "evaluation" else seconds)
    Path("search/genotype.json").unlink()
    assert find_genotype("search") == found
    for name in ("empty", "empty/checkpoints"):
        os.mkdir(name)
    with pytest.raises(UserError, match=r"holds neither genotype\.json nor result\.json, got .empty.") as error:
        find_genotype("empty")
    assert error.value.code == Exit.CONFIGURATION


def test_random_is_drawn_from_the_seed():
    genotype = chosen(tiny.retrain_config(genotype="random", seed=1))[0]
    assert genotype == find_genotype("random", seed=1) != find_genotype("random", seed=2)


def test_none_is_the_newest_finished_search_on_the_same_data():
    for number, changes in enumerate(({"seed": 1}, {"seed": 2})):
        tiny.run(tiny.search_config(run_dir=f"outputs/search/npz/{number}", epochs=1, alpha_lr=1.0, **changes))
    tiny.write_data("other.npz", seed=1)
    other = replace(tiny.data_config(), path="other.npz")
    tiny.run(tiny.search_config(run_dir="outputs/search/npz/2", epochs=1, dataset=other))
    with pytest.raises(RuntimeError):
        broken = tiny.search_config(run_dir="outputs/search/npz/3", regularization=broken_at_once)
        tiny.run(broken)
    genotype, lines = chosen(tiny.retrain_config(genotype=None))
    assert to_json(genotype) == Path("outputs/search/npz/1/genotype.json").read_text()
    assert any("newest finished search" in line and "npz/1" in line for line in lines)
    assert tiny.newest("run")["config"]["genotype"] == "outputs/search/npz/1"
    # It is stored: a search that is finished later does not change what the run goes on with.
    shutil.rmtree("outputs/search/npz/1")
    Path("run/status.json").unlink()
    tiny.run(
        tiny.retrain_config(resume="run", genotype=None), **{"epochs": 1, "batch_size": 96, "cells": 2, "channels": 2}
    )


def test_a_search_on_a_fraction_of_the_data_is_found():
    part = replace(tiny.data_config(), fraction=0.5)
    tiny.run(tiny.search_config(run_dir="outputs/search/npz/part", epochs=1, batch_size=8, dataset=part))
    for number, source in enumerate((part, tiny.data_config(), replace(part, fraction=0.25))):
        config = tiny.retrain_config(genotype=None, dataset=source, epochs=1, run_dir=f"outputs/retrain/npz/{number}")
        tiny.run(config)
        again = replace(config, run_dir=None, resume="auto")
        assert tiny.run(again) == tiny.read_json(f"outputs/retrain/npz/{number}/result.json"), "it is found again"


def broken_at_once(*arguments):
    raise RuntimeError


def test_none_without_a_search(capsys):
    words = ["dataset=npz", "dataset.path=data.npz", "dataset.flip=true"]
    assert run_verb("retrain", words) == Exit.CONFIGURATION
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("darts_lite: error: genotype: none given")
    command = "python -m darts_lite.search dataset=npz dataset.path=data.npz dataset.flip=true"
    assert command in line
    assert sorted(os.listdir()) == ["data.npz"]
    # The command that it gives works.
    fast = ["space.nodes=1", "cells=2", "channels=2", "epochs=1", "batch_size=16"]
    assert run_verb("search", [*command.split()[3:], *fast]) == 0
    assert run_verb("retrain", [*words, "cells=2", "channels=2", "epochs=1"]) == 0


@pytest.mark.parametrize(
    "value",
    ["darts_v3", "nowhere.json", "search", "data.npz", "Genotype(normal=[], normal_concat=[])", "Genotype(exit())"],
)
def test_what_is_no_genotype(value):
    Path("search").mkdir()
    before = sorted(os.listdir())
    assert "genotype" in refused(
        lambda config, report: tiny.run(config), tiny.retrain_config(genotype=value), Exit.CONFIGURATION
    )
    assert sorted(os.listdir()) == before


# Discretize


def test_every_epoch_can_be_discretized(both):
    seen = []
    for epoch in (0, 1, 2, 3, None):
        result = discretize(
            DiscretizeConfig(run="search", epoch=epoch, run_dir=f"discrete {epoch}"), report=tiny.Report()
        )
        seen.append(Path(f"discrete {epoch}/genotype.json").read_text())
        assert result["epoch"] == (3 if epoch is None else epoch) and result["verb"] == "discretize"
        assert to_json(from_json(json.dumps(result["genotype"]))) == seen[-1]
    assert seen[3] == seen[4] == Path("search/genotype.json").read_text()
    assert len(set(seen)) > 1
    assert sorted(path.name for path in Path("discrete 1/cells").iterdir()) == ["normal.svg", "reduce.svg"]


def test_an_epoch_is_what_a_search_that_ended_there_finds(both):
    """With alphas that do not know how long the search will be, since only the weights' learning rate does."""
    changes = {"alpha_lr": 0.5, "lr": 1e-3, "lr_min": 1e-3}
    tiny.run(tiny.search_config(epochs=3, run_dir="three", **changes))
    tiny.run(tiny.search_config(epochs=2, run_dir="two", **changes))
    discretize(DiscretizeConfig(run="three", epoch=2, run_dir="discrete"), report=tiny.Report())
    assert Path("discrete/genotype.json").read_text() == Path("two/genotype.json").read_text()


def test_epochs_that_are_not_there(both):
    assert "0 to 3" in refused(discretize, DiscretizeConfig(run="search", epoch=4), Exit.CONFIGURATION)
    refused(discretize, DiscretizeConfig(run="nowhere"), Exit.RUN)
    refused(discretize, DiscretizeConfig(), Exit.RUN)
    lines = Path("search/alphas.jsonl").read_text().splitlines()
    for text in (
        "",
        "{}",
        "[]",
        '{"epoch": 3, "mixing": 1}',
        lines[0].replace("[[", "[["[:1], 1),
        '{"epoch": "3"}',
        "\x00",
    ):
        Path("search/alphas.jsonl").write_text(f"{text}\n")
        refused(discretize, DiscretizeConfig(run="search"), Exit.RUN)
    assert not Path("outputs").exists()


def test_latencies_are_measured_in_eval_mode_and_put_back():
    tiny.run(tiny.retrain_config(epochs=1))
    network = load_model("run").network.train()
    times = evaluation.latencies(network, torch.device("cpu"), "fp32", 4)
    assert set(times) == {"1", "4"} and all(0 < time < 1000 for time in times.values()) and network.training
