"""Streams: where images wait, and how many processes load them, changes nothing of a run, however it is stopped."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from process import environment
from test_data import refused, uint8_images
from test_image_folder import folder, read, truncated
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from darts_lite.data import stream
from darts_lite.data.augmentation import Augmentation
from darts_lite.data.parts import BatchFeed, Order, Preparation, ResidentImages
from darts_lite.data.stream import Stream, image_source
from darts_lite.errors import Exit
from darts_lite.evaluate import EvaluateConfig, evaluate
from darts_lite.hardware.machine import cores
from darts_lite.settings.datasets import DatasetConfig


def warned(text):
    raise AssertionError(text)


def both(images, workers, warn=warned, augmentation=None):
    """A part and a stream of the same images on the CPU."""
    given = images, np.arange(len(images)), Preparation(images.shape[1:], "cpu", [0.4] * 3, [0.2] * 3, augmentation)
    return ResidentImages(*given), Stream(*given, workers=workers, warn=warn)


def same(left, right):
    return all(torch.equal(a, b) for pair in zip(left, right, strict=True) for a, b in zip(*pair, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("kind", "resized"), [("array", False), ("files", False), ("files", True)])
def test_a_stream_is_a_part(tmp_path, kind, resized, workers):
    images = uint8_images(13, 8, 8, 3)
    if kind == "files":
        images = read(folder(tmp_path, images=8, parts=("train", "test")), storage="stream").x_train
    part, other = both(images, workers, augmentation=Augmentation(2, True, 3, resized))
    assert len(part) == len(other) and same(part.batches(5), other.batches(5))
    feeds = [BatchFeed(one, 4, seed=1) for one in (part, other)]
    assert feeds[0].steps_per_epoch == feeds[1].steps_per_epoch
    for step in (0, 1, 2, 3, 7, 8, 2):  # beyond an epoch, forwards and back
        for feed in feeds:
            feed.load(step)
        made = [feed.batch(torch.Generator().manual_seed(step)) for feed in feeds]
        assert same(made[:1], made[1:])
        indices = feeds[0].order.indices(step)
        assert same(made[:1], [tiny.batch(part, indices, torch.Generator().manual_seed(step))])
    assert made[1][0].stride() == made[0][0].stride() and made[1][1].tolist() == indices.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_flips_of_a_stream_alternate_as_those_of_a_part(workers):
    feeds = [
        BatchFeed(one, 4, seed=1)
        for one in both(uint8_images(13, 8, 8, 3), workers, augmentation=Augmentation(2, True, 3, alternating=True))
    ]
    for step in (0, 1, 2, 3, 4, 5, 6, 11, 1):  # three epochs, whose batches are loaded ahead, and back
        assert same(*([tiny.fed(feed, step, torch.Generator().manual_seed(step))] for feed in feeds))


def test_nothing_is_drawn_from_the_global_generator():
    _, other = both(uint8_images(8, 8, 8, 3), workers=1)
    before = torch.get_rng_state()
    list(other.batches(3))
    assert torch.equal(before, torch.get_rng_state())


def test_workers_end_with_their_stream_and_leave_no_handler():
    handler = signal.getsignal(signal.SIGCHLD)
    _, other = both(uint8_images(8, 8, 8, 3), workers=2)
    batches = other.follow(Order(8, 4, 0), 0)
    next(batches)
    assert len(multiprocessing.active_children()) == 2 and signal.getsignal(signal.SIGCHLD) == handler
    batches.close()
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_replaced_by_this_process(monkeypatch):
    # Torch looks every 5 seconds whether its workers are alive.
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))
    said = []
    part, other = both(uint8_images(40, 8, 8, 3), 1, said.append)
    order = Order(40, 4, 0)
    batches = other.follow(order, 3)
    made = list(islice(batches, 2))
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    made += islice(batches, 8)
    assert same(made, (part.pick(picked) for picked in islice(part.follow(order, 3), 10)))
    assert len(said) == 1 and "killed" in said[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_on_the_way_is_named(tmp_path, workers):
    root = folder(tmp_path)
    images = read(root, storage="stream", mean=[0.5] * 3, std=[0.5] * 3).x_train
    path = Path(images.path(2))
    path.write_bytes(path.read_bytes()[:60])
    preparation = Preparation(images.shape[1:], "cpu", [0.4] * 3, [0.2] * 3)
    other = Stream(images, np.zeros(8), preparation, workers=workers, warn=warned)
    refused(lambda: list(other.batches(3)), Exit.DATA, str(path.name), "cannot be read")


def test_who_streams(tmp_path, monkeypatch):
    images, root = uint8_images(8, 8, 8, 3), folder(tmp_path)

    def made(images, storage, device="cpu", workers=3):
        preparation = Preparation(images.shape[1:], "cpu", [0.4] * 3, [0.2] * 3)
        preparation.device = torch.device(device)  # nothing is brought there
        config = DatasetConfig(storage=storage, workers=workers)
        return image_source(images, np.zeros(len(images)), preparation, config, warned)

    assert isinstance(made(images, "auto"), ResidentImages) and isinstance(made(images, "device"), ResidentImages)
    assert made(images, "stream").workers == 3
    assert isinstance(made(read(root).x_train, "auto"), ResidentImages)
    assert isinstance(made(read(root, storage="stream").x_train, "auto"), Stream)
    assert made(images, "stream", workers=None).workers == min(8, cores() - 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images.nbytes, 10**12))
    assert stream._fits(images.nbytes, torch.device("cuda")) and not stream._fits(
        images.nbytes + 1, torch.device("cuda")
    )


# Runs


def settings(storage="device", workers=0, **changes):
    root = str(Path("photos").resolve())
    return DatasetConfig(
        name="image_folder", root=root, flip=True, storage=storage, workers=workers, test_fraction=0.25, **changes
    )


@pytest.fixture
def photos(tiny_folder):
    folder(Path("photos"), classes=("a", "b", "c"), images=40)


VERBS = {"search": tiny.search_config, "retrain": partial(tiny.retrain_config, alternating_flip=True)}
WAYS = {"search": [0, 2], "retrain": [2]}


def content(run):
    """What a run leaves behind, without the settings of this test and what carries them."""
    trace = tiny.trace(run)
    del trace["checkpoint"]["config"], trace["config.yaml"]
    return trace


@pytest.mark.parametrize("verb", VERBS)
def test_bit_identical(verb, photos):
    """Wherever images wait, also where the run is killed, and goes on with another storage and number of workers."""
    make = VERBS[verb]
    tiny.run(make(dataset=settings(), run_dir="whole"))
    expected = content("whole")
    for workers in WAYS[verb]:
        tiny.run(make(dataset=settings("stream", workers), run_dir=f"workers_{workers}"))
        tiny.assert_same(content(f"workers_{workers}"), expected)
    assert not multiprocessing.active_children()
    killed = make(dataset=settings("stream", 2), run_dir="killed", checkpoint_steps=2)
    step = "step done"
    assert tiny.outcome(tiny.killed_run, killed, ["before", step, 4]) == -signal.SIGKILL
    assert tiny.newest("killed")["step"] == 2
    report = tiny.Report()
    verb_function = {"search": tiny.search, "retrain": tiny.retrain}[verb]
    go_on = replace(make(dataset=settings("stream", 1)), run_dir=None, resume="killed")
    verb_function(go_on, ["dataset.storage", "dataset.workers"], report)
    assert any("dataset.workers 2 -> 1: accepted" in line for line in report.lines)
    tiny.assert_same(content("killed"), expected)
    if verb == "retrain":
        scores = evaluate(EvaluateConfig(run="killed"), report=report)["test"]
        assert scores == expected["result"]["test"]


def test_too_large_for_memory_is_streamed_and_said(photos, monkeypatch):
    monkeypatch.setattr("darts_lite.data.image_folder.available_memory", lambda: 1000)
    report = tiny.Report()
    tiny.search(tiny.search_config(dataset=settings("auto"), epochs=1), report=report)
    assert any("80 images" not in line and "so they are streamed (workers: 0)" in line for line in report.lines)


def test_a_truncated_image_ends_the_run_with_its_name(photos, monkeypatch):
    truncated(Path("photos"), "png")
    Path("photos/train/cat/half.png").rename("photos/train/b/half.png")
    Path("photos/train/cat").rmdir()
    config = tiny.search_config(dataset=settings("stream", 1, image_size=8, mean=[0.5] * 3, std=[0.5] * 3))
    error = refused(lambda: tiny.run(config), Exit.DATA, "half.png", "repair or remove it")
    assert error.code == Exit.DATA and tiny.read_json("run/status.json")["state"] == "failed"


WORDS = [
    *("dataset=image_folder", "dataset.root=photos", "dataset.storage=stream", "dataset.workers=2", "space.nodes=2"),
    *("cells=3", "channels=2", "epochs=500", "batch_size=16", "run_dir=run", "log_every=1", "device=cpu"),
]


def started(words):
    """A search of its own process group, once it has made steps, and the processes that load its images."""
    command = [sys.executable, "-m", "darts_lite.search", *words]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(tiny.read_lines_so_far("run/metrics.jsonl")) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.05)
    workers = children(process.pid)
    assert len(workers) == 4  # of both halves
    return process, workers


def children(parent):
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(word) for word in text.split()]


def gone(processes, seconds):
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{process}").exists() for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_for_the_whole_group_is_heard_once(number, code, photos):
    """Ctrl-C in a terminal: the run saves, and nothing is left."""
    process, workers = started(WORDS)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "resume=run" in said.splitlines()[-1] and "Traceback" not in said and said.count("go on with") == 1
    assert tiny.read_json("run/status.json")["state"] == "interrupted"
    assert tiny.newest("run")["step"] == tiny.read_json("run/status.json")["step"] > 0
    assert gone(workers, 10)


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_run(photos):
    process, workers = started(WORDS)
    process.kill()
    process.communicate()
    assert gone(workers, 30)
