"""Which run `resume` means, and what may be changed beside it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from darts_lite.errors import Exit, UserError
from darts_lite.retrain import RetrainConfig
from darts_lite.runs.resume import newest_finished, resolve, runs_below
from darts_lite.search import SearchConfig
from darts_lite.settings.datasets import DatasetConfig
from darts_lite.settings.pace import typed_wins
from darts_lite.storage.run_folder import RunFolder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(verb="search", run_dir=None, *, finished=False, data="abc", **settings):
    """A run folder with one checkpoint."""
    config = {"search": SearchConfig, "retrain": RetrainConfig}[verb](run_dir=run_dir, **settings)
    config = typed_wins(config, settings)
    with RunFolder.create(verb, "digits", run_dir, config, {"versions": {}, "data": data, "source": data}) as run:
        run.save(7, {})
        if finished:
            run.status("finished", 7)
    return run.path


def refused(config, typed_keys=None, verb="search"):
    with pytest.raises(UserError) as error:
        resolve(verb, config, typed_keys)
    return error.value


def tree(path):
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in sorted(path.rglob("*"))}


def test_without_resume():
    config = SearchConfig(epochs=3)
    found = resolve("search", config)
    assert found.config == replace(config, least_steps=None) and found.folder is None and not found.finished


# resume=<folder>


def test_the_stored_configuration_wins():
    path = make(epochs=3, lr=0.5, dataset=DatasetConfig(flip=True))
    before = tree(path)
    found = resolve("search", SearchConfig(resume=str(path), epochs=9), typed_keys={"resume"})
    assert found.folder == path and not found.finished and not found.notices
    assert (found.config.epochs, found.config.lr, found.config.dataset.flip) == (3, 0.5, True)
    assert tree(path) == before


def test_only_typed_keys_are_compared():
    path = make(epochs=3, dataset=DatasetConfig(name="npz", path="x.npz"))
    given = SearchConfig(resume=str(path), epochs=4, lr=0.9, dataset=DatasetConfig(name="npz"))
    assert resolve("search", given, typed_keys={"resume", "dataset.name"}).config.epochs == 3
    error = refused(given, typed_keys={"resume", "epochs", "lr"})
    assert error.code == Exit.RUN and "epochs 3 -> 4" in str(error) and "lr 0.025 -> 0.9" in str(error)
    assert error.problems == [error], "one line"


@pytest.mark.parametrize("finished", [False, True])
def test_init_is_named_where_more_epochs_are_refused(finished):
    path = make("retrain", epochs=3, finished=finished)
    fix = refused(RetrainConfig(resume=str(path), epochs=4), {"resume", "epochs"}, verb="retrain").fix
    assert f"init={path} starts from the weights" in fix
    for fewer in (RetrainConfig(resume=str(path), epochs=2), RetrainConfig(resume=str(path), lr=9.0)):
        assert "init=" not in refused(fewer, {"resume", "epochs", "lr"} if fewer.epochs == 2 else {"lr"}, "retrain").fix
    path = make(epochs=3)
    assert "init=" not in refused(SearchConfig(resume=str(path), epochs=4), {"epochs"}).fix, "a search has none"


def test_from_python_what_is_off_its_default_counts_as_typed():
    path = make(epochs=3)
    assert resolve("search", SearchConfig(resume=str(path))).config.epochs == 3
    assert resolve("search", SearchConfig(resume=str(path), epochs=3)).config.epochs == 3
    assert "epochs 3 -> 4" in str(refused(SearchConfig(resume=str(path), epochs=4)))


def test_inert_keys_are_accepted_with_a_notice():
    path = make(checkpoint_minutes=5.0)
    given = SearchConfig(resume=str(path), checkpoint_minutes=1.0, run_dir="elsewhere")
    found = resolve("search", given, typed_keys={"resume", "checkpoint_minutes", "run_dir"})
    assert found.config.checkpoint_minutes == 1.0 and found.config.run_dir is None
    assert "checkpoint_minutes 5.0 -> 1.0" in found.notices[0] and "run_dir is not used" in found.notices[1]


def test_a_finished_run():
    path = make(finished=True)
    assert resolve("search", SearchConfig(resume=str(path)), typed_keys={"resume"}).finished
    assert refused(SearchConfig(resume=str(path), epochs=4), typed_keys={"epochs"}).code == Exit.RUN


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "no checkpoint", "damaged", "other verb", "stranger"])
def test_folders_that_cannot_be_resumed(kind):
    path = Path("run")
    if kind == "file":
        path.write_text("")
    elif kind == "empty":
        path.mkdir()
    elif kind == "no checkpoint":
        path.mkdir()
        (path / "status.json").write_text('{"state": "running"}')
    elif kind == "stranger":
        make(run_dir="run")
        with RunFolder.create("search", "digits", "other", Stranger(), {}) as run:
            run.save(0, {})
        path = Path("other")
    elif kind != "missing":
        make("retrain" if kind == "other verb" else "search", run_dir="run")
    if kind == "damaged":
        for file in path.glob("checkpoints/*"):
            file.write_bytes(b"no")
    before = tree(Path())
    assert refused(SearchConfig(resume=str(path)), typed_keys={"resume"}).code == Exit.RUN
    assert tree(Path()) == before


class Stranger(SearchConfig):
    """A configuration whose values no search has."""

    def __init__(self):
        super().__init__(epochs=-1, lr="${oc.env:HOME}")


def test_a_run_that_goes_on_is_in_use():
    config = SearchConfig()
    with RunFolder.create("search", "digits", "run", config, {}) as run:
        run.save(0, {})
        assert refused(SearchConfig(resume="run"), typed_keys={"resume"}).code == Exit.IN_USE
        assert refused(SearchConfig(resume="auto", run_dir="run")).code == Exit.IN_USE


class MyRelaxation:
    """An object of the user's own in place of a name."""


def test_objects_from_python_are_passed_again():
    path = make(relaxation=MyRelaxation())
    mine = MyRelaxation()
    assert resolve("search", SearchConfig(resume=str(path), relaxation=mine)).config.relaxation.own is mine
    other = refused(SearchConfig(resume=str(path), relaxation=object()))
    assert "MyRelaxation" in str(other) and other.code == Exit.RUN


# resume=auto


def test_auto_starts_when_there_is_none():
    make(epochs=3)
    make("retrain")
    config = SearchConfig(resume="auto")
    found = resolve("search", config)
    assert found.config == config and found.folder is None


def test_auto_takes_the_newest_equal_one():
    make(epochs=3)
    newest = make(epochs=3)
    make(epochs=4)
    found = resolve("search", SearchConfig(resume="auto", epochs=3, checkpoint_minutes=1.0))
    assert found.folder == newest and not found.finished and found.config.checkpoint_minutes == 1.0


def test_auto_says_finished():
    path = make(finished=True)
    found = resolve("search", SearchConfig(resume="auto"))
    assert found.folder == path and found.finished


def test_auto_goes_by_time_of_start_not_by_name():
    make(run_dir="outputs/search/digits/z")
    newest = make(run_dir="outputs/search/digits/a")
    assert resolve("search", SearchConfig(resume="auto")).folder == newest


def test_auto_ignores_what_was_killed_before_its_first_checkpoint():
    path = make()
    for file in path.glob("checkpoints/*"):
        file.unlink()
    assert resolve("search", SearchConfig(resume="auto")).folder is None


def test_auto_never_starts_anew_over_a_damaged_run():
    path = make()
    for file in path.glob("checkpoints/*"):
        file.write_bytes(b"no")
    error = refused(SearchConfig(resume="auto"))
    assert error.code == Exit.RUN and path.name in str(error)


def test_auto_believes_the_checkpoint_not_status_json():
    path = make(epochs=3)
    forged = make(epochs=5)
    (forged / "status.json").write_text((path / "status.json").read_text())
    assert resolve("search", SearchConfig(resume="auto", epochs=3)).folder == path
    (path / "status.json").unlink()
    assert resolve("search", SearchConfig(resume="auto", epochs=3)).folder == path


def test_auto_in_a_folder_of_its_own():
    make()
    assert resolve("search", SearchConfig(resume="auto", run_dir="mine")).folder is None
    path = make(run_dir="mine")
    assert resolve("search", SearchConfig(resume="auto", run_dir="mine")).folder == path


def test_auto_passes_by_what_has_only_just_begun():
    with RunFolder.create("search", "digits", "outputs/search/digits/x", SearchConfig(epochs=3), {}) as run:
        run.save(0, {})
        (run.path / "status.json").unlink()
        assert resolve("search", SearchConfig(resume="auto")).folder is None


@pytest.mark.parametrize("parent", ["outputs/search/sweeps/{}", "mine"])
def test_auto_finds_each_job_of_a_sweep(parent):
    paths = [make(run_dir=os.path.join(parent.format("first"), str(seed)), seed=seed) for seed in range(3)]
    for number, seed in enumerate((2, 0, 1)):
        run_dir = os.path.join(parent.format("second"), str(number))
        assert resolve("search", SearchConfig(resume="auto", seed=seed, run_dir=run_dir)).folder == paths[seed]


# What retrain takes


def test_newest_finished():
    assert newest_finished("search", "abc") is None
    first = make(finished=True)
    make(data="other", finished=True)
    make()
    make("retrain", finished=True)
    assert newest_finished("search", "abc") == first
    second = make(finished=True)
    (second / "notes").symlink_to(second)
    assert newest_finished("search", "abc") == second
    (second / "env.json").write_text("[" * 10**5)
    assert newest_finished("search", "abc") == first


# Behind links


@pytest.mark.parametrize("linked", ["outputs", "outputs/search", "outputs/search/digits", "run"])
def test_runs_behind_a_link_are_found(linked, tmp_path):
    run = make(seed=5, finished=True)
    there = run if linked == "run" else Path(linked)
    elsewhere = tmp_path / "disk" / "there"
    elsewhere.parent.mkdir()
    there.rename(elsewhere)
    there.symlink_to(elsewhere, target_is_directory=True)
    assert newest_finished("search", "abc") == run
    found = resolve("search", SearchConfig(resume="auto", seed=5))
    assert found.folder == run and found.finished
    assert resolve("search", SearchConfig(resume=str(run))).finished
    second = make(seed=6)  # a new run is made behind the link too
    assert resolve("search", SearchConfig(resume="auto", seed=6)).folder == second


def test_links_in_a_circle_and_to_nowhere():
    run = make(finished=True)
    (run.parent / "above").symlink_to(Path("outputs").resolve())
    (run.parent / "latest").symlink_to(run.name)
    (run.parent / "nowhere").symlink_to("gone")
    (found,) = runs_below(Path("outputs"))
    assert found == run == newest_finished("search", "abc")


def test_a_link_among_what_a_run_writes_is_still_refused():
    run = make()
    (run / "checkpoints").rename("elsewhere")
    (run / "checkpoints").symlink_to(Path("elsewhere").resolve())
    error = refused(SearchConfig(resume=str(run)))
    assert error.code == Exit.RUN and "a symbolic link" in str(error)
    assert refused(SearchConfig(resume="auto")).code == Exit.RUN
