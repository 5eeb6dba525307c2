"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

# Before torch is imported, here and in the processes that tests start: the networks of the tests are too small for threads, and
# threads that share their cores with anything else wait for each other (the suite took 8 minutes instead of 3 on a busy machine).
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Triton decides when a kernel is defined whether it is compiled for a GPU or interpreted on the CPU.
if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):  # Linux, and Linux on Windows
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def data_folder():
    """The folder of data sets and published tables that are too large for this repository, or not ours to give away."""
    folder = os.environ.get("DARTS_LITE_DATA")
    if not folder:
        pytest.skip("DARTS_LITE_DATA is not set: name the folder with cifar10/, mnist/ and darts_genotypes.json")
    return Path(folder)


@pytest.fixture
def composed():
    """compose(verb, overrides) -> the configuration of a verb."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from darts_lite.cli.line import conf_folder, config_class, part_options
    from darts_lite.settings.schema import from_plain, leaves

    def keys(plain, whole, prefix=""):
        for key, value in plain.items():
            several = isinstance(value, dict) and prefix + key not in whole
            yield from keys(value, whole, f"{prefix}{key}.") if several else [prefix + key]

    def build(verb, overrides=()):
        options = part_options(verb)
        plain = OmegaConf.to_container(compose(verb, overrides=list(overrides)), resolve=False)
        found, wanted = (
            {key.removesuffix(".name") for key in names}  # a part that is not chosen has no name
            for names in (keys(plain, options), leaves(config_class(verb)))
        )
        named = {key.rpartition(".")[0] for key in options}  # the choice itself, where there may be several
        assert wanted - {"penalties"} <= found <= wanted | {*options} | named, "the files of conf/ are complete"
        return from_plain(config_class(verb), plain)

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield build


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

    def search(config, typed_keys=None, report=None):
        made.append((config, typed_keys, report))
        made.act(config)

    monkeypatch.setattr(darts_lite.search, "search", search, raising=False)
    monkeypatch.chdir(tmp_path)
    return made
