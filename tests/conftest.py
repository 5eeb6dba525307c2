"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

# Before torch is imported, here and in the processes that tests start: the networks of the tests are too small for threads, and
# threads that share their cores with anything else wait for each other (the suite took 8 minutes instead of 3 on a busy machine).
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_folder():
    """The folder of data sets and published tables that are too large for this repository, or not ours to give away."""
    folder = os.environ.get("DARTS_LITE_DATA")
    if not folder:
        pytest.skip("DARTS_LITE_DATA is not set: name the folder with cifar10/, mnist/ and darts_genotypes.json")
    return Path(folder)


@pytest.fixture
def tiny_folder(tmp_path, monkeypatch):
    """An empty folder to work in, with the tiny data set in it, and one thread."""
    import tiny
    import torch

    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tiny.write_data()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The configurations and typed keys that reach the search; `calls.act` may raise."""
    import darts_lite.search

    class Calls(list):
        act = staticmethod(lambda config: None)

    made = Calls()

    def search(config, typed=None, report=None):
        made.append((config, typed, report))
        made.act(config)

    monkeypatch.setattr(darts_lite.search, "search", search, raising=False)
    monkeypatch.chdir(tmp_path)
    return made
