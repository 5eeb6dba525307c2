"""A validation part of the user's own: alphas learn from it, retraining is looked at with it, and neither trains weights on it."""

import numpy as np
import pytest
import tiny
from test_data import load_npz, refused, saved, small

from darts_lite.data.dataset import OPTIONAL
from darts_lite.errors import Exit
from darts_lite.runs.prepare import prepare
from darts_lite.search import search

VALIDATION = {"x_val": small(seed=5)["x_test"], "y_val": np.array([0, 1, 2, 1])}


def test_it_is_read_and_belongs_to_the_fingerprint(tmp_path):
    without = load_npz(saved(tmp_path))
    data = load_npz(saved(tmp_path, **VALIDATION))
    assert without.x_val is None and without.y_val is None and data.y_val.dtype == np.int64
    assert all(np.array_equal(getattr(data, name), VALIDATION[name]) for name in OPTIONAL)
    assert (data.mean, data.std) == (without.mean, without.std), "measured on the training part alone"
    other = load_npz(saved(tmp_path, **{**VALIDATION, "y_val": np.array([0, 1, 2, 2])}))
    assert len({without.fingerprint, data.fingerprint, other.fingerprint}) == 3


BAD = {
    "only images": ({"y_val": None}, "y_val", "missing"),
    "only labels": ({"x_val": None}, "x_val", "missing"),
    "other size": ({"x_val": np.zeros((4, 5, 5, 3), np.uint8)}, "x_val", "5x6 with 3 channels"),
    "float": ({"x_val": np.zeros((4, 6, 5, 3))}, "x_val", "uint8"),
    "other number": ({"y_val": np.zeros(3, int)}, "y_val", "one label an image"),
    "label outside": ({"y_val": np.array([0, 1, 3, 2])}, "y_val", "label 3 at index 2", "0..2"),
    "empty": ({"x_val": np.zeros((0, 6, 5, 3), np.uint8), "y_val": np.zeros(0, int)}, "x_val", "no image"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_validation_parts(tmp_path, case):
    changes, *words = BAD[case]
    refused(lambda: load_npz(saved(tmp_path, **{**VALIDATION, **changes})), Exit.DATA, *words)


@pytest.mark.usefixtures("tiny_folder")
class TestRuns:
    @pytest.fixture(autouse=True)
    def validation_part(self, tiny_folder):
        """The tiny data set with 48 images to validate on."""
        self.write(seed=3)

    def write(self, seed):
        tiny.write_data("other.npz", test=48, seed=seed)
        with np.load("other.npz") as other, np.load("data.npz") as plain:
            kept = {name: plain[name] for name in plain.files if "val" not in name}
            np.savez("data.npz", **kept, x_val=other["x_test"], y_val=other["y_test"])

    def test_weights_learn_from_all_of_train_and_alphas_from_val(self):
        report = tiny.Report()
        plan = prepare("search", tiny.search_config(train_fraction=0.3), None, report)
        (images, labels), (looked_at, seen) = plan.halves()
        with np.load("data.npz") as file:
            assert np.array_equal(images, file["x_train"]) and np.array_equal(labels, file["y_train"])
            assert np.array_equal(looked_at, file["x_val"]) and np.array_equal(seen, file["y_val"])
        assert [line for line in report.lines if "train_fraction" in line] == [
            "train_fraction is not used: this data has a validation part"
        ]
        for typed_keys in (["epochs"], None):
            report = tiny.Report()
            prepare("search", tiny.search_config(), typed_keys, report)
            assert not any("train_fraction" in line for line in report.lines)

    def test_a_search_validates_on_it(self):
        result = search(tiny.search_config(epochs=1), report=tiny.Report())
        assert result["validation"]["samples"] == 48 and result["steps"] == 96 // 16
        alphas = tiny.read_lines("run/alphas.jsonl")
        self.write(seed=4)
        search(tiny.search_config(epochs=1, run_dir="other"), report=tiny.Report())
        assert alphas[1] != tiny.read_lines("other/alphas.jsonl")[1], "alphas depend on it"

    def test_a_retraining_is_looked_at_every_epoch_and_learns_nothing_from_it(self):
        plain = {"epochs": 2, "test_every": None}
        result = tiny.run(tiny.retrain_config(**plain))
        epochs = [record["values"] for record in tiny.read_lines("run/metrics.jsonl") if record["kind"] == "epoch"]
        assert len(epochs) == 2 and result["validation"]["samples"] == 48
        assert epochs[1]["epoch/validation/accuracy"] == result["validation"]["accuracy"]
        assert not any(name.startswith("epoch/test") for values in epochs for name in values)
        self.write(seed=4)
        other = tiny.run(tiny.retrain_config(**plain, run_dir="other"))
        assert other["model_sha256"] == result["model_sha256"] and other["validation"] != result["validation"]
