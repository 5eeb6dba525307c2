"""On a GPU: a replayed step is a called one, bit for bit; runs go on bit for bit; no replay waits. Run with `pytest -m cuda`.

Sizes are tiny, so every test takes seconds. Where a graph is expected, that it was really recorded is asserted, too: a step that
cannot be recorded is called instead, and would pass.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import counting
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from process import environment

from darts_lite.benchmark import BenchmarkConfig, benchmark
from darts_lite.benchmarking.arms import ours_search, reference_search
from darts_lite.errors import Interrupted, out_of_memory
from darts_lite.hardware.device import run_settings
from darts_lite.hardware.graph import WARM_STEPS, GraphedStep, capture, new_pool, own_stream, tensors_of
from darts_lite.hardware.precision import computing, lowered
from darts_lite.methods.solvers import SOLVERS
from darts_lite.operations.kernels.thresholds import LARGE
from darts_lite.operations.layers import BatchNorm
from darts_lite.proving.proof import prove
from darts_lite.retrain import RetrainConfig, retrain
from darts_lite.runs.steps import Steps
from darts_lite.search import SearchConfig, search
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces import cell as cells
from darts_lite.training.evaluation import at_once, batch_sizes, evaluate, evaluating

# cuBLAS reads it once in a process, and torch looks at it once: before any other test computes.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("tiny_folder")]
CUDA = torch.device("cuda")
GPU = {"device": "cuda", "deterministic": True, "precision": "fp32", "log_every": 1}
LONG = {"epochs": 34}  # of three steps: 102 of a search, 204 of a retraining
RUNS = {
    "first_order": tiny.search_config(**GPU, edge_weights=True),
    "bf16": tiny.search_config(**GPU | {"precision": "bf16"}),
    "warmup": tiny.search_config(**GPU, warmup_epochs=1),
    "unrolled": tiny.search_config(**GPU, solver="unrolled"),
    "unrolled_exact": tiny.search_config(**GPU, solver="unrolled_exact"),
    "retrain": tiny.retrain_config(**GPU, ema=0.9),
    "retrain_bf16": tiny.retrain_config(**GPU | {"precision": "bf16"}),
}
every_run = pytest.mark.parametrize("config", RUNS.values(), ids=RUNS)


def ran(config, **changes):
    """`compared` of a run, and what it said about graphs."""
    config, report = replace(config, **changes), tiny.Report()
    (retrain if isinstance(config, RetrainConfig) else search)(config, report=report)
    return compared(config.run_dir or config.resume), [line for line in report.lines if "CUDA graph" in line]


def compared(run):
    """The trace of a run, without the settings that it may differ in."""
    trace = tiny.trace(run)
    trace["checkpoint"].pop("config"), trace.pop("config.yaml"), trace.pop("status")
    return trace


@pytest.fixture
def recordings(monkeypatch):
    """The keywords of every step that was recorded, without an error."""
    made, record = [], GraphedStep._record

    def counted(self, step, state):
        replay = record(self, step, state)
        assert replay is not None
        made.append(step.keywords)
        return replay

    monkeypatch.setattr(GraphedStep, "_record", counted)
    return made


# A replayed step is a called one


@every_run
def test_a_replayed_run_is_a_called_one(config, recordings):
    called, _ = ran(config, run_dir="called", cuda_graph=False, **LONG)
    assert not recordings
    replayed, said = ran(config, run_dir="replayed", **LONG)
    assert len(recordings) == 1 + bool(config.warmup_epochs) and not said
    tiny.assert_same(replayed, called)
    losses = [record["values"]["train/loss"] for record in replayed["metrics"] if record["kind"] == "step"]
    assert len(losses) >= 100 and len(set(losses)) > 90, "it moves"


@pytest.mark.parametrize("name", ["first_order", "unrolled", "retrain"])
def test_without_determinism_they_are_close(name, recordings):
    """Only at first: rounding grows from step to step."""
    losses = []
    for graph in (False, True):
        trace, _ = ran(RUNS[name], run_dir=f"run{graph}", cuda_graph=graph, deterministic=False)
        steps = [record["values"] for record in trace["metrics"] if record["kind"] == "step"]
        losses.append([values["train/loss"] for values in steps[:4]])
    assert len(recordings) == 1
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


def test_draws_in_a_graph_are_those_of_a_call():
    """Through a generator that is seeded anew before every replay; draws of several kinds and sizes, and a loop after them."""
    generator, found = torch.Generator(CUDA), []

    def draws():
        return [
            torch.randint(9, (16,), generator=generator, device=CUDA),
            torch.rand(1000, 7, generator=generator, device=CUDA),
            torch.randn(3, generator=generator, device=CUDA),
            torch._standard_gamma(torch.full((5,), 0.3, device=CUDA), generator=generator),
            torch.rand(4, generator=generator, device=CUDA),
        ]

    with own_stream(CUDA) as stream:
        draws()
        replay = capture(draws, stream, new_pool(), generator=generator)
    for seed in (5, 2**62 + 3, 5):
        generator.manual_seed(seed)
        called = draws()
        generator.manual_seed(seed)
        assert all(torch.equal(a, b) for a, b in zip(replay(), called, strict=True))
        found.append([tensor.tolist() for tensor in called])
    assert found[0] == found[2] != found[1]


# A run goes on where it was stopped, and records there


@pytest.mark.parametrize("name", ["first_order", "warmup", "unrolled", "retrain"])
def test_a_resumed_run_is_the_whole_one(name, recordings, monkeypatch):
    """Recorded before step 0, and again before step 4: the warm steps of both leave no trace."""
    whole, _ = ran(RUNS[name], run_dir="whole")
    after_step = Steps.after_step

    def stopping(steps, state, metrics):
        after_step(steps, state, metrics)
        if state.clock.done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Steps, "after_step", stopping)
        ran(RUNS[name], run_dir="stopped")
    assert tiny.newest("stopped")["step"] == 4
    resumed, _ = ran(RUNS[name], run_dir=None, resume="stopped")
    assert len(recordings) >= 3
    tiny.assert_same(resumed, whole)


def test_a_resumed_run_on_the_command_line():
    """In processes of its own, killed by its checkpoint of step 4."""
    words = [
        "dataset=npz",
        "dataset.path=data.npz",
        "cells=3",
        "channels=2",
        "epochs=2",
        "batch_size=16",
        "log_every=1",
    ]
    words += ["device=cuda", "deterministic=true", "checkpoint_steps=4"]
    kill = (
        "import os, signal; from darts_lite.storage.run_folder import RunFolder; save = RunFolder.save\n"
        "def saved(run, step, state):\n    save(run, step, state)\n    step == 4 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "RunFolder.save = saved\n"
    )

    def process(*words, before=""):
        call = f"{before}import sys; from darts_lite.search import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", call, *words],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=250,
        )
        assert "no CUDA graph" not in done.stdout + done.stderr
        return done

    assert (done := process(*words, "run_dir=whole")).returncode == 0, done.stderr
    assert process(*words, "run_dir=killed", before=kill).returncode == -signal.SIGKILL
    assert tiny.newest("killed")["step"] == 4
    assert (done := process("resume=killed")).returncode == 0, done.stderr
    tiny.assert_same(compared("killed"), compared("whole"))


def test_streamed_images(recordings):
    """A thread pins the memory of batches while the step is recorded."""
    config = RUNS["first_order"]
    kept, _ = ran(config, run_dir="kept")
    streamed, _ = ran(config, run_dir="streamed", dataset=replace(config.dataset, storage="stream", workers=1))
    assert len(recordings) == 2
    tiny.assert_same(streamed, kept)


# What it costs


@every_run
def test_no_replay_waits_for_the_device(config):
    """Nor does anything else that is done at every step."""
    state, feeds, step = tiny.training(config, "cuda", config.precision)
    report = tiny.Report()
    recorder = GraphedStep(step, config, CUDA, report)

    def advance():
        for feed in feeds:
            feed.load(state.clock.done % 3)
        metrics = recorder(state)
        state.clock.tick()
        state.meters.add(metrics)
        return metrics

    for _ in range(3):  # the epoch's order is copied, the step is recorded
        advance()
    assert recorder.graphs and not report.lines
    before = {name: value.data_ptr() for name, value in advance().items()}
    for feed in feeds:
        feed.load(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(2):
            for feed in feeds:
                feed.load(number + 1)
            metrics = recorder(state)
            state.clock.tick()
            state.meters.add(metrics)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert {name: value.data_ptr() for name, value in metrics.items()} == before
    assert all(value.isfinite() for value in metrics.values())


def test_the_memory_of_a_graph_is_given_back():
    """Recording in turns does not take more and more."""
    config = RUNS["warmup"]
    state, feeds, step = tiny.training(config, "cuda")
    for feed in feeds:
        feed.load(0)
    recorder, held = GraphedStep(step, config, CUDA, tiny.Report()), []
    for learn_alphas in 4 * (False, True):
        recorder(state, learn_alphas=learn_alphas)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved())
    assert held[7] <= held[3] and held[6] <= held[2], held


def test_the_doctor_proves_this_device():
    found = prove(SearchConfig(), CUDA)
    assert not [str(problem) for problem in found.problems()]
    assert "bit for bit" in found.line() and found.number > 1000


def test_a_step_of_the_published_size_takes_under_two_gigabytes(monkeypatch):
    """In bf16, with our kernels and with torch's; of these, what is computed twice to spare memory is the same."""
    config, taken, losses = SearchConfig(cells=8, channels=16, batch_size=64), [], []
    for kernels, large in ((True, 1), (False, LARGE.value), (False, float("inf"))):
        monkeypatch.setattr(LARGE, "value", large)
        monkeypatch.setattr(cells, "on_gpu", lambda x, kernels=kernels: kernels)
        arm = ours_search(config, "cuda", "bf16")
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        alphas, weights = (part() for part in arm.launched.values())  # without a graph
        taken.append(torch.cuda.max_memory_allocated() - before)
        losses.append([alphas["validation/loss"], weights["train/loss"]])
    assert taken[0] < 1.7e9 and taken[1] < 2e9 < taken[2], taken
    torch.testing.assert_close(losses[1], losses[2], rtol=0.01, atol=0)
    torch.testing.assert_close(losses[0], losses[2], rtol=0.02, atol=0)


def test_the_counts_are_those_of_the_profiler():
    """Of the published search step: as many launches of our own kernels as are counted without a GPU, and about as many in all."""
    arm = ours_search(SearchConfig(cells=8, channels=16, batch_size=64), "cuda", "bf16")
    for part in arm.launched.values():  # compiles
        part()
    with (
        counting.launched() as ledger,
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile,
    ):
        for part in arm.launched.values():
            part()
        torch.cuda.synchronize()
    found = Counter()
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and event.device_time > 0:
            found[event.name] += 1
    told = json.loads(counting.RESULTS.read_text("utf-8"))["steps"]["search"]["kernels"]
    ours = Counter(launch.kernel.fn.__name__ for launch in ledger.launches)
    assert ours.total() == told["launches_of_our_own"]
    assert {name: found[name] for name in ours} == dict(ours)
    assert found.total() == pytest.approx(told["launches"], rel=0.3), found.most_common(40)


@pytest.mark.parametrize("mode", ["search", "search_second_order", "retrain"])
def test_the_benchmark(mode):
    size = {"cells": 3, "channels": 4, "batch_size": 8, "steps": 2, "warm_up": 1, "device": "cuda", "run_dir": "bench"}
    result = benchmark(BenchmarkConfig(mode=mode, **size), report=tiny.Report())
    published, best, ours = result["arms"].values()
    for arm in (published, best, ours):
        assert arm["peak_memory_bytes"] > 0 and arm["seconds"]["step"] > 0
    assert min(arm["kernel_launches"] for arm in (published, best, ours)) > 50, "counted without a graph"
    assert mode == "retrain" or ours["kernel_launches"] < best["kernel_launches"], "stacked"
    assert ours["cold_seconds"] > ours["seconds"]["step"] and best["cold_seconds"] > best["seconds"]["step"]


@pytest.mark.parametrize("solver", ["first_order", "unrolled"])
def test_the_best_reference_learns_with_a_graph_what_it_learns_without(solver):
    """A graph of the alphas' half and one of the weights' share their memory, and the optimizers' state."""
    config = tiny.search_config(space=SpaceConfig(), channels=8, batch_size=4, solver=solver)
    found = []
    for graph in (True, False):
        torch.manual_seed(0)
        arm = reference_search(config, "cuda", "fp32", True)
        network = arm.launched["weights"].args[0]
        with run_settings(CUDA, True):
            for turn in range(3):
                for name in arm.parts:
                    # A part that is to become a graph does its warm steps at its first call.
                    for _ in range(1 if graph or turn else 1 + WARM_STEPS):
                        (arm.parts if graph else arm.launched)[name]()
        found.append([weight.detach().clone() for weight in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# Images of a larger kind


def colourful():
    """A retraining of 16x16 images in colours, with all that a batch of ImageNet goes through."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, number in (("train", 48), ("test", 12)):
        arrays |= {f"x_{part}": random.integers(0, 256, (number, 16, 16, 3), dtype=np.uint8)}
        arrays |= {f"y_{part}": np.arange(number) % 3}
    np.savez("colours.npz", **arrays)
    dataset = replace(tiny.data_config(), path="colours.npz", crop="resized", color_jitter=0.4)
    plain = {"stem": "imagenet", "alternating_flip": True, "cutout": 0, "auxiliary_weight": 0.0, "epochs": 4}
    return tiny.retrain_config(**GPU, **plain, dataset=dataset)


def test_augmentation_and_stem_of_large_images_in_a_graph(recordings):
    """Jitter of colours, resized crops, alternating flips: replayed as they are called, and each epoch anew."""
    config = colourful()
    called, _ = ran(config, run_dir="called", cuda_graph=False)
    replayed, said = ran(config, run_dir="replayed")
    assert len(recordings) == 1 and not said
    tiny.assert_same(replayed, called)
    losses = [record["values"]["train/loss"] for record in replayed["metrics"] if record["kind"] == "step"]
    assert len(set(losses)) == len(losses) == 12


# What cannot be recorded


class Reading(SOLVERS["first_order"]):
    """A solver that waits for the device."""

    def __call__(self, problem):
        loss, gradients = super().__call__(problem)
        assert loss.item() > 0
        return loss, gradients


class Synchronizing(SOLVERS["first_order"]):
    """A solver that waits in a way that only a capture finds."""

    def __call__(self, problem):
        torch.cuda.synchronize()
        return super().__call__(problem)


WAITING = {"found before": (Reading, "it waits for the device in test_cuda.py:"), "found in it": (Synchronizing, "")}
every_wait = pytest.mark.parametrize(("solver", "why"), WAITING.values(), ids=WAITING)


@every_wait
def test_a_part_that_waits_does_not_end_the_run(solver, why):
    config = replace(RUNS["first_order"], solver=solver())
    called, _ = ran(config, run_dir="called", cuda_graph=False)
    fallen, said = ran(config, run_dir="fallen")
    assert len(said) == 1 and f"no CUDA graph, so steps take longer: the step cannot be captured: {why}" in said[0]
    tiny.assert_same(fallen, called)


@every_wait
def test_after_a_step_that_waits_all_goes_on(solver, why):
    """Trials of a new shape, which empty the cache; draws of this and of the default generator; a capture of another step."""
    config, report = replace(RUNS["first_order"], solver=solver()), tiny.Report()
    state, feeds, step = tiny.training(config, "cuda")
    recorder = GraphedStep(step, config, CUDA, report)
    for number in range(2):
        for feed in feeds:
            feed.load(number)
        recorder(state)
        state.clock.tick()
    assert len(report.lines) == 1
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        made = F.conv2d(torch.ones(3, 5, 11, 13, device=CUDA), torch.ones(7, 5, 3, 3, device=CUDA))
    finally:
        torch.backends.cudnn.benchmark = benchmark
    assert float(made[0, 0, 0, 0]) == 45.0
    torch.cuda.empty_cache()
    assert torch.rand(3, device=CUDA).isfinite().all()
    state, feeds, step = tiny.training(RUNS["first_order"], "cuda")
    recorder = GraphedStep(step, RUNS["first_order"], CUDA, report)
    for feed in feeds:
        feed.load(0)
    assert recorder(state)["train/loss"].isfinite() and recorder.graphs and len(report.lines) == 1


def test_out_of_memory_in_a_capture_is_out_of_memory():
    """And the next capture works."""
    state, _, _ = tiny.training(RUNS["first_order"], "cuda")
    sizes = [4, 4, 4, 2**50, 4]

    def step(state):
        return {"loss": torch.empty(sizes.pop(0), device=CUDA).fill_(1.0).sum()}

    recorder = GraphedStep(step, RUNS["first_order"], CUDA, tiny.Report())
    with pytest.raises(torch.OutOfMemoryError) as error:
        recorder(state)
    assert out_of_memory(error.value)
    sizes[:] = [4] * 9
    assert float(GraphedStep(step, RUNS["first_order"], CUDA, tiny.Report())(state)["loss"]) == 4.0


# Determinism and precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stride", [1, 2])
def test_pools_backward_under_determinism(stride, layout, dtype):
    """Neither is refused, windows overlap, gradients are the same each time and those of a CPU."""
    x = torch.randn(8, 16, 9, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    for pool in (
        lambda t: F.max_pool2d(t, 3, stride, 1),
        lambda t: F.avg_pool2d(t, 3, stride, 1, count_include_pad=False),
    ):
        found = []
        with run_settings(CUDA, True):
            for _ in range(3):
                leaf = x.to(CUDA, memory_format=layout, copy=True).requires_grad_()
                (pool(leaf).float() ** 2).sum().backward()
                found.append(leaf.grad)
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
        leaf = x.to(torch.float32, copy=True).requires_grad_()
        (pool(leaf) ** 2).sum().backward()
        torch.testing.assert_close(
            found[0].cpu().float(), leaf.grad, rtol=0.05, atol=1e-4 if dtype == torch.float32 else 0.3
        )


def test_alphas_in_bf16_are_close_to_those_in_fp32():
    """The angle between what they have moved in 8 steps. On a CPU its cosine is 0.995 and more, for each of four seeds."""
    moves = []
    for precision in ("fp32", "bf16"):
        config = tiny.search_config(space=SpaceConfig(nodes=2), channels=4, alpha_lr=3e-4, batch_size=32)
        state, feeds, step = tiny.training(config, "cuda", precision)
        before = [logits.detach().clone() for logits in state.architecture.parameters()]
        for number in range(8):
            for feed in feeds:
                feed.load(number)
            step(state)
            state.clock.tick()
        after = zip(state.architecture.parameters(), before, strict=True)
        moves.append(torch.cat([(now.detach() - start).flatten() for now, start in after]))
    assert torch.cosine_similarity(*moves, dim=0) > 0.98


def test_even_batches_score_as_small_ones():
    """Filters lowered once, on the device."""
    state, feeds, _ = tiny.training(RUNS["retrain"], "cuda")
    part, found = feeds[0].part, []
    sizes = batch_sizes(part, at_once(CUDA, 8))
    assert sizes == [48, 48]
    with evaluating(state.network):
        for precision in ("fp32", "bf16"):
            network = lowered(state.network, precision)
            found.append([evaluate(network, part, 3, sizes=some, precision=precision) for some in (sizes, 8)])
    for (even, small), tolerance in zip(found, (1e-4, 2e-2), strict=True):
        assert even["loss"] == pytest.approx(small["loss"], rel=tolerance) and even["samples"] == small["samples"] == 96


def test_settings_of_a_run_hold_on_a_gpu():
    """The device is the current one; trials are few; afterwards all is as it was."""
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    before = torch.cuda.current_device(), torch.backends.cudnn.benchmark_limit
    with run_settings(last, False):
        assert (torch.cuda.current_device(), torch.backends.cudnn.benchmark_limit) == (last.index, 3)
        made = F.conv2d(torch.ones(2, 5, 9, 17, device=last), torch.ones(7, 5, 3, 3, device=last))
        assert float(made[0, 0, 0, 0]) == 45.0
    assert (torch.cuda.current_device(), torch.backends.cudnn.benchmark_limit) == before


@pytest.mark.parametrize("name", ["bf16", "retrain_bf16"])
def test_in_bf16_only_what_is_between_layers_is(name):
    """Inputs and outputs of every BatchNorm are bf16; weights, statistics, momentum, alphas, average and metrics are fp32."""
    state, feeds, step = tiny.training(
        replace(RUNS[name], **({"ema": 0.9} if "retrain" in name else {})), "cuda", "bf16"
    )
    network, seen = getattr(state, "supernet", getattr(state, "network", None)), set()
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.register_forward_hook(lambda _, inputs, output: seen.update({inputs[0].dtype, output.dtype}))
    for feed in feeds:
        feed.load(0)
    metrics = step(state)
    assert seen == {torch.bfloat16}
    tensors = [*dict(tensors_of(state)).values(), *metrics.values()]
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float32}
    gradients = {weight.grad.dtype for weight in network.parameters() if weight.grad is not None}
    assert gradients == {torch.float32} and all(value.isfinite() for value in metrics.values())
    with computing(CUDA, "bf16"):
        assert torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16
