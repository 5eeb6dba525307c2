"""Tiny runs of every verb, half a second each, and processes of their own that die where a test wants them to.

A test changes into a folder of its own, calls `write_data()`, and runs `search(search_config(...))`. `outcome(start, ...)`
calls a function of a test module in a new process, forked from a server that has torch loaded but has computed nothing.
`trace(run)` is all of a run folder that resume promises to be exact.
"""

import hashlib
import importlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from darts_lite import data
from darts_lite.data.augmentation import Augmentation
from darts_lite.data.parts import BatchFeed, Preparation, ResidentImages
from darts_lite.data.splits import split
from darts_lite.methods.architecture import flatten, unflatten
from darts_lite.methods.build import build_method, build_space
from darts_lite.retrain import RetrainConfig, retrain
from darts_lite.search import SearchConfig, search
from darts_lite.settings.configs import PLAIN_DARTS, SpaceConfig
from darts_lite.settings.datasets import DatasetConfig
from darts_lite.spaces import SPACES, find_genotype, space_of
from darts_lite.spaces.network import Skeleton
from darts_lite.storage import checkpoint
from darts_lite.storage.json_lines import JsonLines
from darts_lite.training.retrain_step import RetrainState, new_network, retrain_step
from darts_lite.training.search_state import SearchState
from darts_lite.training.search_step import search_step

SPACE = SpaceConfig(nodes=2, candidates=["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3"])
STEPS = 6  # of a tiny search: 2 epochs of 3
TEXT = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3], "
    "reduce=[('max_pool_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 1), ('skip_connect', 2)], reduce_concat=[2, 3])"
)
RAN = (
    "latency_ms",
    "peak_memory_bytes",
    "training_seconds",
    "search_seconds",
    "time",
)  # of a result: how it went, not what it is


def write_data(path="data.npz", *, train=96, test=30, seed=0, garbage=None):
    """Noisy 8x8 images of three brightnesses; `garbage`: the test part is replaced by noise drawn from this seed."""
    random = np.random.default_rng(seed)
    arrays = {}
    for part, number in (("train", train), ("test", test)):
        labels = np.arange(number) % 3
        images = 60 * labels[:, None, None, None] + random.integers(0, 70, (number, 8, 8, 1))
        arrays |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels}
    if garbage is not None:
        noise = np.random.default_rng(garbage)
        arrays["x_test"] = noise.integers(0, 256, arrays["x_test"].shape, dtype=np.uint8)
        arrays["y_test"] = noise.integers(0, 3, arrays["y_test"].shape)
    np.savez(path, **arrays)
    return path


def resident(images, labels, *how):
    """Images on a device; `how`: device, mean, std and, or not, an augmentation."""
    return ResidentImages(images, labels, Preparation(images.shape[1:], *how))


def batch(part, indices, generator):
    """Augmented images and labels of these indices of a part, as a feed makes them of those of a step."""
    pixels, labels = part.pick(next(part.follow(SimpleNamespace(indices=lambda step: indices), 0)))
    return part.preparation.augmented(pixels, generator), labels


def fed(feed, step, generator):
    """What a feed makes of `step`."""
    feed.load(step)
    return feed.batch(generator)


def data_config():
    return DatasetConfig(name="npz", path="data.npz", flip=True)


def search_config(**changes):
    """A search of `STEPS` steps in the folder `run`, by plain DARTS, whose Adam has a state to be resumed."""
    plain = SearchConfig(
        **{**PLAIN_DARTS, "alpha_lr": 0.1},
        alpha_travel=None,
        dataset=data_config(),
        space=SPACE,
        cells=3,
        channels=2,
        epochs=2,
        batch_size=16,
        cutout=2,
        run_dir="run",
        log_every=2,
    )
    return replace(plain, **changes)


def retrain_config(**changes):
    """A retraining of 12 steps in the folder `run`, with everything that draws random numbers."""
    plain = RetrainConfig(
        dataset=data_config(), genotype=TEXT, cells=3, channels=4, epochs=2, batch_size=16, run_dir="run", log_every=2,
        auxiliary_weight=0.4, drop_path=0.3, cutout=3, label_smoothing=0.1, test_every=1,
    )  # fmt: skip
    return replace(plain, **changes)


def scaled(mixing, factor):
    """A mixing of every cell type, each number times `factor`."""
    return unflatten(mixing, tuple(factor * tensor for tensor in flatten(mixing)))


def moved(gradients):
    """Gradients of the weights that have one, of what a regularization is given."""
    return [gradient for _, gradient in gradients.values() if gradient is not None]


def random_genotype(nodes, candidates, rng):
    """A genotype of the DARTS space."""
    return SPACES["darts"](SpaceConfig(nodes=nodes, candidates=list(candidates))).random(rng)


def network(genotype, skeleton, **how):
    """The network of a genotype, by its space."""
    return space_of(genotype).network(genotype, skeleton, **how)


class Report:
    """A reporter that remembers."""

    def __init__(self):
        self.lines, self.warnings = [], []

    def line(self, text):
        self.lines.append(text)

    def warning(self, text):
        self.warnings.append(text)

    def progress(self, done, total, text):
        pass

    def close(self):
        pass


def run(config, **changes):
    """The verb of a configuration, quietly; returns its result."""
    config = replace(config, **changes)
    verb = {SearchConfig: search, RetrainConfig: retrain}[type(config)]
    return verb(config, report=Report())


class NoSync(TorchDispatchMode):
    """Fails on operations whose result the host waits for on a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in (
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "equal",
            "is_nonzero",
            "unique",
            "_to_cpu",
            "lift_fresh",  # a tensor made of a number on the host, which then is copied
        ), name
        if name.startswith("index"):
            tensors = [i for a in args if isinstance(a, (list, tuple)) for i in a if i is not None]
            assert all(tensor.dtype != torch.bool for tensor in tensors), name
        return func(*args, **(kwargs or {}))


class Generous(TorchDispatchMode):
    """Operators with a mask answer also what it leaves out, with NaN, as CUDA's native_batch_norm_backward does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("native_batch_norm_backward", "convolution_backward"):
            made = tuple(args[0].new_full(args[0].shape[1:2], torch.nan) if part is None else part for part in made)
        return made


class CudaLayouts(TorchDispatchMode):
    """Convolutions of the meta device in cuDNN's layout, channels_last; by themselves they are in the usual one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if not func.overloadpacket.__name__.startswith("convolution"):
            return made
        return tree_map_only(torch.Tensor, channels_last, made)


def channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


class Counting(TorchDispatchMode):
    """Counts the calls of each operator."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def training(config, device="cpu", precision="fp32"):
    """A search or a retraining before its first step: state, feeds, and its step as a function of the state."""
    device, dataset = torch.device(device), data.load(config.dataset)
    skeleton = Skeleton(config.cells, config.channels, dataset.classes, dataset.channels, dataset.image_size)

    def feed(chosen, seed):
        augmentation = Augmentation(None, True, config.cutout)
        images, labels = dataset.x_train[chosen], dataset.y_train[chosen]
        part = resident(images, labels, device, dataset.mean, dataset.std, augmentation)
        return BatchFeed(part, config.batch_size, seed)

    if isinstance(config, RetrainConfig):
        network = new_network(find_genotype(config.genotype), skeleton, config).to(device)
        state = RetrainState(config, network, device, precision, steps=1000)
        feeds = [feed(np.arange(len(dataset.y_train)), 0)]
        return state, feeds, lambda state: retrain_step(state, *feeds[0].batch(state.clock.generator))
    space, method = build_space(config.space), build_method(config)
    state = SearchState(config, space, skeleton, method, device, precision, epoch_steps=1000)
    feeds = [feed(half, seed) for seed, half in enumerate(split(dataset.y_train, 0.5, 0))]

    def step(state, learn_alphas=True):
        return search_step(state, *[feed.batch(state.clock.generator) for feed in feeds], learn_alphas=learn_alphas)

    return state, feeds, step


# Processes


def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo", "torch.utils.tensorboard", "PIL.Image", "hydra"])
    return context


def start(function, *arguments):
    """`function(*arguments)` in a new process that begins in this one's folder; what it says goes to the file `said`."""
    process = server().Process(target=_begin, args=(os.getcwd(), function, arguments))
    process.start()
    return process


def outcome(function, *arguments):
    """Its exit code: what it returns, or minus the number of the signal that killed it."""
    process = start(function, *arguments)
    process.join(120)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def _begin(folder, function, arguments):
    os.chdir(folder)
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    torch.set_num_threads(1)
    sys.exit(function(*arguments))


def killed_run(config, point):
    """Run until the process is killed at `point`: the name of a function below and its arguments."""
    if point:
        name, *arguments = point
        POINTS[name](*arguments)
    run(config)


# A moment is a call of a function: its name here -> "module:name" or "module:class.name".
MOMENTS = {
    "rename": "os:replace",
    "sync": "os:fsync",
    "remove": "pathlib:Path.unlink",
    "search step": "darts_lite.training.search_step:search_step",
    "weight step": "darts_lite.training.search_step:weight_step",
    "retrain step": "darts_lite.training.retrain_step:retrain_step",
    "new network": "darts_lite.training.retrain_step:new_network",
    "evaluation": "darts_lite.runs.retrain_results:evaluate",
    "next phase": "darts_lite.training.search_state:SearchState.take_over",
    "step boundary": "darts_lite.runs.steps:Steps.before_step",
    "step done": "darts_lite.runs.steps:Steps.after_step",
    "line": "darts_lite.storage.json_lines:JsonLines.append",
    "lines taken back": "darts_lite.storage.json_lines:JsonLines.truncate",
    "status": "darts_lite.storage.run_folder:RunFolder.status",
    "checkpoint": "darts_lite.storage.run_folder:RunFolder.save",
    "json": "darts_lite.storage.run_folder:RunFolder.write_json",
    "text": "darts_lite.storage.run_folder:RunFolder.write_text",
    "genotype": "darts_lite.runs.search_results:SearchResults.finish",
    "end": "darts_lite.storage.run_folder:RunFolder.finish",
    "board": "darts_lite.runs.tensorboard:Board._write",
    "board again": "darts_lite.runs.tensorboard:Board.metrics",
}
# Those around which something may have been written, or not yet.
EVENTS = (
    *("rename", "sync", "remove", "board", "status", "step boundary", "line", "lines taken back"),
    *("search step", "weight step", "retrain step"),
)


def place(moment):
    """(owner, name) of the function of a moment."""
    module, _, names = MOMENTS[moment].partition(":")
    owner = importlib.import_module(module)
    *parents, name = names.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name


def act(moment, call, action, *, after=False, matching=""):
    """At the `call`-th call of a moment's function that has `matching` in its arguments, `action`."""
    owner, name = place(moment)
    function, calls = getattr(owner, name), itertools.count(1)

    def counted(*arguments, **named):
        now = matching in f"{arguments} {named}" and next(calls) == call
        if now and not after:
            action()
        result = function(*arguments, **named)
        if now and after:
            action()
        return result

    setattr(owner, name, counted)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def before(moment, call=1, matching=""):
    act(moment, call, die, matching=matching)


def after(moment, call=1, matching=""):
    act(moment, call, die, after=True, matching=matching)


def torn(name, call):
    """Die after half of a line has been appended to the file `name`."""
    append, calls = JsonLines.append, itertools.count(1)

    def half(self, record):
        append(self, record)
        if self.path.name == name and next(calls) == call:
            os.truncate(self.path, self.size - len(json.dumps(record)) // 2)
            die()

    JsonLines.append = half


def at_event(number):
    """Die at the `number`-th of all moments at which something may have been written, or not yet."""
    events = itertools.count(1)

    def event():
        if next(events) == number:
            die()

    for owner, name in map(place, EVENTS):
        setattr(owner, name, _between(event, getattr(owner, name)))


def _between(event, function):
    def surrounded(*arguments, **named):
        event()
        result = function(*arguments, **named)
        event()
        return result

    return surrounded


POINTS = {"before": before, "after": after, "torn": torn, "at_event": at_event}


# What a run has left behind


def newest(run):
    """The state in the newest checkpoint."""

    def damaged(text):
        raise AssertionError(text)

    return checkpoint.load_newest(Path(run) / "checkpoints", damaged).state


def rewrite(run, content):
    """Leave only one checkpoint, the newest, with this state or these bytes and their hash in its name."""
    data = content if isinstance(content, bytes) else bytes(checkpoint.pack(content))
    paths = checkpoint.files(Path(run) / "checkpoints")
    for path in paths:
        path.unlink()
    paths[0].with_name(f"{paths[0].name[:13]}.{hashlib.sha256(data).hexdigest()[:16]}.pt").write_bytes(data)


def trace(run):
    """Everything in a finished run's folder that must not depend on how often it was stopped."""
    run = Path(run)
    state = newest(run)
    del state["time"]
    state["files"] = {
        "alphas.jsonl": state["files"]["alphas.jsonl"]
    }  # the other one's length depends on wall-clock digits
    status = read_json(run / "status.json")
    result = read_json(run / "result.json")
    texts = ("alphas.jsonl", "genotype.json", "config.yaml", "env.json", "model.pt")
    return {
        "checkpoint": frozen(state),
        "metrics": [
            {key: value for key, value in record.items() if key != "time"}
            for record in read_lines(run / "metrics.jsonl")
        ],
        "status": {key: value for key, value in status.items() if key != "time"},
        "result": {key: value for key, value in result.items() if key not in RAN},
        "board": events(run),
        "cells": {path.name: path.read_bytes() for path in run.glob("cells/*")},
        **{name: (run / name).read_bytes() for name in texts if (run / name).exists()},
    }


def read_json(path):
    return json.loads(Path(path).read_text())


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()] if Path(path).exists() else []


def read_lines_so_far(path):
    """The same while it is being written to: finished lines only."""
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def events(run):
    """(tag, step, value) of all that TensorBoard reads, sorted; its wall-clock tags left out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    assert len(list((Path(run) / "tensorboard").iterdir())) == 1
    board = EventAccumulator(str(Path(run) / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    board.Reload()
    tags = board.Tags()
    seen = [
        (tag, event.step, event.value)
        for tag in tags["scalars"]
        if not tag.startswith("time/")
        for event in board.Scalars(tag)
    ]
    seen += [(tag, event.step, event.encoded_image_string) for tag in tags["images"] for event in board.Images(tag)]
    seen += [
        (tag, event.step, event.tensor_proto.SerializeToString())
        for tag in tags["tensors"]
        for event in board.Tensors(tag)
    ]
    for tag, content in board.PluginTagToContent("hparams").items():  # maps, which are written in any order
        seen.append((tag, 0, HParamsPluginData.FromString(content).SerializeToString(deterministic=True)))
    assert len({(tag, step) for tag, step, _ in seen}) == len(seen), "duplicates"
    return sorted(seen, key=lambda event: event[:2])


def frozen(value):
    """Tensors as (dtype, shape, strides, bytes), so that == compares bits."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.stride(), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: frozen(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [frozen(entry) for entry in value]
    return value


def assert_same(left, right):
    """Two traces are equal; says where they are not."""
    differing = _differences(left, right, "")
    assert not differing, differing[:10]


def _differences(left, right, where):
    if isinstance(left, dict) and isinstance(right, dict):
        missing = [f"{where}.{key}: only in one" for key in left.keys() ^ right.keys()]
        return missing + [
            one for key in left.keys() & right.keys() for one in _differences(left[key], right[key], f"{where}.{key}")
        ]
    return [] if left == right else [f"{where}: {str(left)[:200]} / {str(right)[:200]}"]
