"""TensorBoard: what is shown after a resume equals what an uninterrupted run shows, without duplicates."""

import io
import textwrap

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from darts_lite.errors import Exit, UserError
from darts_lite.genotypes.genotype import Cell, Edge, Genotype, to_json, to_plain
from darts_lite.runs.tensorboard import Board
from darts_lite.spaces.table import Table
from darts_lite.storage.json_lines import JsonLines

EDGES, OPERATIONS = ((0, 2), (1, 2)), ("skip_connect", "sep_conv_3x3")
TABLES = {cell: Table(EDGES, OPERATIONS, torch.ones(2, 2, dtype=torch.bool)) for cell in ("normal", "reduce")}


def discretize(record):
    cells = {}
    for name, one in record["mixing"].items():
        chosen = [OPERATIONS[row.index(max(row))] for row in one["operations"]]
        cells[name] = Cell(tuple(Edge(op, *edge) for op, edge in zip(chosen, EDGES, strict=True)), (2,))
    return Genotype("darts", cells)


def metrics_record(step):
    return {
        **{"step": step, "kind": "step", "epoch": step // 5},
        **{"values": {"train/loss": 1 / (step + 3), "lr": 0.1}, "time": {"seconds": 0.5, "wall": 1.7e9 + step}},
        **({} if step % 5 else {"genotype": to_plain(discretize(alphas_record(step // 5)))}),
    }


def alphas_record(epoch):
    skip = 0.25 + 0.1 * epoch  # wins from epoch 3 on
    rows = [[skip, 1 - skip], [0.25, 0.75]]
    fixed = [[0.1, 0.9], [0.1, 0.9]]
    mixing = {"normal": {"operations": rows, "edges": [0.4, 0.6]}, "reduce": {"operations": fixed, "edges": None}}
    return {"epoch": epoch, "step": 5 * epoch, "mixing": mixing}


class Run:
    def __init__(self, folder):
        folder.mkdir(exist_ok=True)
        self.records = JsonLines(folder / "metrics.jsonl"), JsonLines(folder / "alphas.jsonl")
        self.folder = folder / "tensorboard"
        self.board = Board(self.folder, *self.records, TABLES)
        self.board.settings({"lr": 0.1, "flip": True, "name": "digits", "none": None, "list": [1]}, ["train/loss"])

    def go(self, steps):
        for step in steps:
            self.records[0].append(metrics_record(step))
            self.board.metrics(metrics_record(step))
            if step % 5 == 0:
                self.records[1].append(alphas_record(step // 5))
                self.board.alphas(alphas_record(step // 5))


def shown(folder):
    """tag -> [(step, value), ...] of everything in the folder."""
    accumulator = EventAccumulator(str(folder), size_guidance=dict.fromkeys(("scalars", "images", "tensors"), 0))
    accumulator.Reload()
    tags = accumulator.Tags()
    found = {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in tags["scalars"]}
    found |= {tag: [(e.step, e.encoded_image_string) for e in accumulator.Images(tag)] for tag in tags["images"]}
    for tag in tags["tensors"]:
        found[tag] = [(e.step, tuple(e.tensor_proto.string_val)) for e in accumulator.Tensors(tag)]
    if "hparams" in accumulator._plugin_to_tag_to_content:
        found["settings"] = sorted(accumulator.PluginTagToContent("hparams").items())
    return found


def test_what_is_shown(tmp_path):
    run = Run(tmp_path)
    run.go(range(1, 26))
    run.board.close()
    found = shown(run.folder)
    assert found["train/loss"] == [(s, pytest.approx(1 / (s + 3))) for s in range(1, 26)]
    assert len(found["time/seconds"]) == 25 and "time/wall" not in found
    assert found["alphas/normal/0->2/skip_connect"][0] == (5, pytest.approx(0.35))
    assert found["edges/normal/1->2"][0] == (5, pytest.approx(0.6)) and "edges/reduce/1->2" not in found
    changes = [5, 15]
    assert [step for step, _ in found["cells/normal"]] == changes and [step for step, _ in found["cells/reduce"]] == [5]
    texts = found["genotype/text_summary"]
    assert [step for step, _ in texts] == changes
    assert textwrap.dedent(texts[0][1][0].decode()) == to_json(discretize(alphas_record(1)))
    assert Image.open(io.BytesIO(found["cells/normal"][0][1])).width > 50
    assert [tag[:18] for tag, _ in found["settings"]] == [
        "_hparams_/experime",
        "_hparams_/session_",
        "_hparams_/session_",
    ]


@pytest.mark.parametrize("stop", [1, 4, 5, 12, 15, 24])
def test_a_resumed_run_shows_the_same(tmp_path, stop):
    whole = Run(tmp_path / "whole")
    whole.go(range(1, 26))
    stopped = Run(tmp_path / "stopped")
    stopped.go(range(1, stop + 1))
    offsets = [records.size for records in stopped.records]
    stopped.go(range(stop + 1, min(stop + 7, 26)))  # after the last checkpoint: lost
    for records, offset in zip(stopped.records, offsets, strict=True):
        records.truncate(offset)
    resumed = Run(tmp_path / "stopped")
    resumed.go(range(stop + 1, 26))
    assert shown(resumed.folder) == shown(whole.folder)
    assert len(list(resumed.folder.iterdir())) == 1


def test_without_alphas(tmp_path):
    board = Board(tmp_path / "tensorboard", JsonLines(tmp_path / "metrics.jsonl"), JsonLines(tmp_path / "alphas.jsonl"))
    genotype = discretize(alphas_record(1))
    board.genotype(0, genotype)
    board.genotype(3, genotype)
    board.metrics({"step": 1, "values": {"loss": None, "flag": True, "words": "x", "huge": 1e300}, "time": None})
    found = shown(tmp_path / "tensorboard")
    assert [step for step, _ in found["cells/normal"]] == [0] and "loss" not in found and "huge" not in found


@pytest.mark.parametrize(
    "operations", [None, [], [[0.5, 0.5]], [[0.5, 0.5], [1.0]], [[0.5, 0.5], ["a", 1.0]], [[0.5, 0.5], 3], {"a": 1}]
)
def test_records_that_do_not_fit(tmp_path, operations):
    record = alphas_record(1)
    record["mixing"]["reduce"]["operations"] = operations
    JsonLines(tmp_path / "alphas.jsonl").append(record)
    with pytest.raises(UserError, match="reduce") as error:
        Run(tmp_path)
    assert error.value.code == Exit.RUN


@pytest.mark.parametrize("genotype", [None, 3, {}, {"cells": {}}])
def test_a_line_with_something_else_for_a_genotype(tmp_path, genotype):
    JsonLines(tmp_path / "metrics.jsonl").append({**metrics_record(1), "genotype": genotype})
    with pytest.raises(UserError, match=r"metrics\.jsonl: a line does not fit") as error:
        Run(tmp_path)
    assert error.value.code == Exit.RUN


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(UserError) as error:
        Run(tmp_path)
    assert error.value.code == Exit.ENVIRONMENT
