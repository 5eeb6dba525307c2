"""Images and labels given from Python: the same numbers as from a file, and runs that are resumed and evaluated with the same images."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny

from darts_lite.data import Arrays
from darts_lite.errors import Exit, UserError
from darts_lite.evaluate import EvaluateConfig, evaluate
from darts_lite.models import load_model
from darts_lite.retrain import retrain
from darts_lite.search import search
from darts_lite.settings.datasets import DatasetConfig
from darts_lite.training import retrain_step as retrain_state

pytestmark = pytest.mark.usefixtures("tiny_folder")


def given(**changes):
    with np.load("data.npz") as file:
        return Arrays(**{**file, **changes})


def from_python(config):
    """The same settings, without the file."""
    return dataclasses.replace(config, dataset=dataclasses.replace(config.dataset, name="digits", path=None))


def refused(call, code):
    with pytest.raises(UserError) as error:
        call()
    assert error.value.code == code
    return str(error.value)


def test_search_retrain_evaluate():
    names, report = ["dark", "grey", "bright"], tiny.Report()
    result = search(from_python(tiny.search_config(run_dir=None)), report=report, dataset=given(class_names=names))
    assert result["dataset"] == "arrays" and result["class_names"] == names
    assert report.lines[1].startswith("arrays: 96 training and 30 test images of 8x8 with 1 channel, 3 classes (dark")
    (line,) = (line for line in report.lines if line.startswith("next: "))
    assert line.endswith("(from Python, with dataset= the same images)")
    file = search(tiny.search_config(run_dir="file"), report=tiny.Report())
    assert file["validation"] == result["validation"] and file["genotype"] == result["genotype"]

    config = from_python(tiny.retrain_config(genotype=None, run_dir="retrained", test_every=None))
    trained = retrain(config, report=report, dataset=given(class_names=names))  # of the newest search on this data
    assert load_model("retrained").class_names == tuple(names) and Path("outputs/search/arrays").is_dir()
    again = evaluate(EvaluateConfig(run="retrained"), report=report, dataset=given(class_names=names))
    assert again["test"] == trained["test"] and not report.warnings
    error = refused(lambda: evaluate(EvaluateConfig(run="retrained"), report=report), Exit.DATA)
    assert "were given from Python" in error and "dataset=Arrays(...)" in error


def test_resume_and_several_runs(monkeypatch):
    config = from_python(tiny.retrain_config(seeds=[0, 1], run_dir="run"))
    monkeypatch.setattr(retrain_state, "retrain_step", retrain_state.retrain_step)  # put back what `act` replaces
    tiny.act("retrain step", 4, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        retrain(config, report=tiny.Report(), dataset=given())
    resumed = from_python(tiny.retrain_config(seeds=[0, 1], run_dir="run", resume="run"))
    assert "were given from Python" in refused(lambda: retrain(type(config)(resume="run")), Exit.DATA)
    assert "other data" in refused(lambda: retrain(resumed, dataset=given(y_test=np.arange(30)[::-1] % 3)), Exit.RUN)
    assert len(retrain(resumed, report=tiny.Report(), dataset=given())["seeds"]) == 2


def test_data_that_is_named_beside_images():
    error = refused(lambda: search(tiny.search_config(), dataset=given()), Exit.CONFIGURATION)
    assert "dataset.name: cannot be given beside images and labels, got 'npz'" in error
    config = from_python(tiny.search_config())
    config.dataset = DatasetConfig(root="photos")
    assert "dataset.root" in refused(lambda: search(config, dataset=given()), Exit.CONFIGURATION)
    assert not Path("run").exists()
