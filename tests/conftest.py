"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder():
    """The folder of data sets and published tables that are too large for this repository, or not ours to give away."""
    folder = os.environ.get("DARTS_LITE_DATA")
    if not folder:
        pytest.skip("DARTS_LITE_DATA is not set: name the folder with cifar10/, mnist/ and darts_genotypes.json")
    return Path(folder)
