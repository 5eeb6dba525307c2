"""What a CUDA graph needs of a step, as far as it can be proven without a GPU; tests/test_cuda.py proves the rest on one.

A graph is a list of kernels with the addresses of their arguments. So a step has to write into the tensors that it reads, to wait for
nothing, and to bring no tensor from the host; and the steps that warm up must leave no trace.
"""

import contextlib
import os
import signal
import warnings
from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import counting
import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from darts_lite.benchmarking import measure
from darts_lite.errors import Interrupted, out_of_memory
from darts_lite.hardware import graph
from darts_lite.hardware.graph import GraphedStep, state_restored, tensors_of
from darts_lite.methods.method import Stateful, said
from darts_lite.methods.relaxations import RELAXATIONS
from darts_lite.methods.relaxations.softmax import Softmax
from darts_lite.methods.solvers import SOLVERS
from darts_lite.operations.kernels.thresholds import LARGE
from darts_lite.retrain import RetrainConfig
from darts_lite.runs.steps import Steps
from darts_lite.search import SearchConfig
from darts_lite.settings import identity as configuration
from darts_lite.settings import schema
from darts_lite.settings.configs import SpaceConfig
from darts_lite.training import clock

pytestmark = pytest.mark.usefixtures("tiny_folder")
RETRAIN = tiny.retrain_config(ema=0.9, warmup_epochs=1, alternating_flip=True)
SMALL = replace(tiny.SPACE, nodes=1)
SEARCHES = {
    f"{solver}-{relaxation}": tiny.search_config(solver=solver, relaxation=relaxation, edge_weights=True, space=SMALL)
    for solver in SOLVERS
    for relaxation in RELAXATIONS
    if not said(
        RELAXATIONS[relaxation](), "sparse"
    )  # what the host has to read cannot be recorded, see test_relaxations.py
}
STEPS = SEARCHES | {"retrain": RETRAIN, "retrain-plain": tiny.retrain_config(auxiliary_weight=0.0, drop_path=0.0)}
every_step = pytest.mark.parametrize("config", STEPS.values(), ids=STEPS)


def ways(config):
    """The keywords that a step is called with."""
    return [{"learn_alphas": True}, {"learn_alphas": False}] if isinstance(config, SearchConfig) else [{}]


def advance(state, feeds, step, number, **how):
    """`number` steps; their metrics."""
    made = []
    for _ in range(number):
        for feed in feeds:
            feed.load(state.clock.done)
        made.append(step(state, **how))
        state.clock.tick()
    return made


def places(state, feeds):
    """Every tensor that a step reads or writes and that outlives it, by name."""
    found = dict(tensors_of(state))
    found |= {f"clock.{name}": tensor for name, tensor in vars(state.clock).items() if isinstance(tensor, torch.Tensor)}
    found |= {f"feed.{i}.{j}": tensor for i, feed in enumerate(feeds) for j, tensor in enumerate(feed._loaded)}
    optimizers = [
        state.weight_optimizer.optimizer,
        *([state.alpha_optimizer] if hasattr(state, "alpha_optimizer") else []),
    ]
    found |= {f"lr.{i}": optimizer.param_groups[0]["lr"] for i, optimizer in enumerate(optimizers)}
    return found


# A step writes into the tensors that it reads


@every_step
def test_every_tensor_stays_where_it_is(config):
    state, feeds, step = tiny.training(config)
    advance(state, feeds, step, 1, **ways(config)[0])
    before = places(state, feeds)
    assert {"health.term", "clock.progress", "feed.0.0", "lr.0"} < set(before)
    assert (any(name.startswith("average.") for name in before)) == bool(getattr(config, "ema", None))
    for how in ways(config):
        values = {name: tensor.clone() for name, tensor in before.items()}
        metrics = advance(state, feeds, step, 2, **how)
        after = places(state, feeds)
        assert after.keys() == before.keys()
        assert [name for name in before if after[name].data_ptr() != before[name].data_ptr()] == []
        still = {name.split(".")[0] for name in before if torch.equal(values[name], before[name])}
        moved = {name.split(".")[0] for name in before if not torch.equal(values[name], before[name])}
        assert "weights" in moved and ("architecture" in moved) == how.get("learn_alphas", False), still
        for name, value in metrics[-1].items():
            assert value.shape == () and value.isfinite() and not value.requires_grad, name


def test_a_first_bad_number_is_noted_in_place():
    state, _, _ = tiny.training(tiny.search_config())
    health = state.health
    step, term = health.step, health.term
    health.check("weights", "gradient", torch.tensor(7), torch.tensor([1.0, torch.nan]))
    health.check("weights", "training loss", torch.tensor(8), torch.tensor(torch.inf))
    assert health.step is step and health.term is term and (int(step), int(term)) == (7, 5)


def test_metrics_may_be_overwritten_by_the_next_step():
    state, _, _ = tiny.training(RETRAIN)
    for dtype in (torch.float32, torch.float64):
        place = torch.tensor(1.0, dtype=dtype)
        state.meters.add({"loss": place})
        place.fill_(3.0)
        state.meters.add({"loss": place})
        place.fill_(100.0)
        assert state.meters.read() == {"loss": 2.0}


# It waits for nothing, and everything it computes with is on the device


class Listing(TorchDispatchMode):
    """Notes what a graph would hold: operations, the shapes of their tensors, and their numbers."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        leaves = [
            x for x in tree_leaves((args, kwargs or {})) if not isinstance(x, (torch.Generator, torch.ScriptObject))
        ]
        told = [(x.shape, x.dtype) if isinstance(x, torch.Tensor) else x for x in leaves]
        self.calls.append((str(func), repr(told)))
        return func(*args, **(kwargs or {}))


@every_step
def test_a_step_waits_for_nothing_and_is_always_the_same(config):
    """The same operations with the same numbers: one of Python's that changes from step to step would stand still in a graph."""
    state, feeds, step = tiny.training(config)
    advance(state, feeds, step, 1)
    for how in ways(config):
        lists = []
        for _ in range(2):
            for feed in feeds:
                feed.load(state.clock.done)
            with tiny.NoSync(), Listing() as listing:
                step(state, **how)
            with tiny.NoSync():
                state.clock.tick()
            lists.append(listing.calls)
        assert len(lists[0]) > 100
        assert [pair for pair in zip(*lists, strict=True) if pair[0] != pair[1]] == []


class OnlyOn(TorchDispatchMode):
    """Fails, unless `warm`, on an operation that takes or makes a tensor anywhere but on `device`. A generator of the CPU draws."""

    def __init__(self, device, *, warm=False):
        super().__init__()
        self.device, self.warm = device, warm

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        elsewhere = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.device != self.device]
        assert self.warm or not elsewhere, (func, elsewhere)
        if kwargs.get("generator") is not None:
            if not any(
                argument.name == "device" for argument in func._schema.arguments
            ):  # numbers for a tensor that is there
                return args[0] if func._schema.is_mutable else torch.empty_like(args[0])
            return torch.empty_like(func(*args, **(kwargs | {"device": "cpu"})), device=self.device)
        if func is torch.ops.aten._standard_gamma_grad.default:  # has no way on `meta`
            return torch.empty_like(args[0])
        made = func(*args, **kwargs)
        assert self.warm or all(t.device == self.device for t in tree_leaves(made) if isinstance(t, torch.Tensor)), func
        return made


@pytest.fixture
def without_memory(monkeypatch):
    """The meta device."""
    return counting.without_memory(monkeypatch)


@pytest.fixture(params=["kernels", "torch"])
def way(request, without_memory, monkeypatch):
    """Both ways in which a GPU computes a cell."""
    if request.param == "kernels":
        pytest.importorskip("triton")
    counting.take_way(monkeypatch, request.param)
    return request.param


@every_step
def test_a_step_brings_no_tensor_from_the_host(config, way, without_memory):
    """But the first one, which is a warm step: kernels have tables."""
    state, feeds, step = tiny.training(config, without_memory)
    for feed in feeds:
        feed.load(0)
    if way == "kernels":
        with OnlyOn(without_memory, warm=True):
            step(state)
    for how in ways(config):
        with OnlyOn(without_memory):
            metrics = step(state, **how)
        assert {value.device for value in metrics.values()} == {without_memory}
    with pytest.raises(AssertionError, match="lift_fresh"), OnlyOn(without_memory):
        torch.tensor(0.5)


def published_step(device):
    """A first-order step of the supernet of the paper, to be called; one has been."""
    config = tiny.search_config(cells=8, channels=16, space=SpaceConfig(), edge_weights=False)
    state, feeds, step = tiny.training(config, device)
    for feed in feeds:
        feed.load(0)
    with OnlyOn(device, warm=True):
        step(state, learn_alphas=True)
    return partial(step, state, learn_alphas=True)


class Normalizing(TorchDispatchMode):
    """Notes of every backward pass of a BatchNorm whether its gradient and its input are dense in channels_last."""

    def __init__(self):
        super().__init__()
        self.dense = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.native_batch_norm_backward.default:
            self.dense.append(all(t.is_contiguous(memory_format=torch.channels_last) for t in args[:2]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("large", [1, float("inf")])
def test_a_gpu_normalizes_dense_tensors(large, way, without_memory, monkeypatch):
    """Slices of channels, as the gradient of a concatenation is one, leave the fast kernels of CUDA's BatchNorm."""
    monkeypatch.setattr(LARGE, "value", large)
    step = published_step(without_memory)
    with OnlyOn(without_memory), tiny.CudaLayouts(), Normalizing() as normalizing:
        step()
    assert len(normalizing.dense) > {"kernels": 25, "torch": 500}[way] and all(normalizing.dense), Counter(
        normalizing.dense
    )


class Together(TorchDispatchMode):
    """Notes how the tensors of each operator on lists lie in memory: where two lists differ, CUDA takes one tensor after the other."""

    def __init__(self):
        super().__init__()
        self.lists = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if str(func).startswith("aten._foreach"):
            self.lists.append([self._steps(argument) for argument in args if isinstance(argument, list)])
        return func(*args, **(kwargs or {}))

    def _steps(self, tensors):
        return [[(n, step) for n, step in zip(t.shape, t.stride(), strict=True) if n > 1] for t in tensors]


@pytest.mark.parametrize("solver", ["unrolled", "unrolled_exact"])
def test_many_weights_are_moved_together(solver, way, without_memory):
    config = tiny.search_config(cells=3, channels=4, space=SpaceConfig(), solver=solver)
    state, feeds, step = tiny.training(config, without_memory)
    for feed in feeds:
        feed.load(0)
    with OnlyOn(without_memory, warm=True):
        step(state, learn_alphas=True)
    with OnlyOn(without_memory), tiny.CudaLayouts(), Together() as together:
        step(state, learn_alphas=True)
    large = [
        lists for lists in together.lists if len(lists) == 2 and len(lists[0]) == len(state.weight_optimizer.weights)
    ]
    assert len(large) >= 3
    assert all(one == other for one, other in large)


# Warm steps leave no trace


class Waiting(TorchDispatchMode):
    """What torch.cuda.set_sync_debug_mode("error") does on a GPU, for a step that reads a number."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError(graph.WAITS)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def without_a_gpu(monkeypatch):
    """Everything around a graph happens as on a GPU; the graph is the step itself. Returns what was recorded."""
    recorded = []

    def capture(step, stream, pool, *, generator):
        recorded.append(step.keywords)
        return step

    monkeypatch.setattr(graph, "wanted", lambda config, device: config.cuda_graph)
    monkeypatch.setattr(graph, "own_stream", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(graph, "_waits_are_errors", Waiting)
    monkeypatch.setattr(graph, "new_pool", lambda: "pool")
    monkeypatch.setattr(graph, "capture", capture)
    return recorded


@every_step
def test_warm_steps_are_undone(config):
    state, feeds, step = tiny.training(config)
    other = tiny.training(config)
    for how in ways(config):
        before, standing = tiny.frozen(dict(tensors_of(state))), places(state, feeds)
        with state_restored(state):
            for feed in feeds:
                feed.load(0)
            step(state, **how)
            state.health.check("weights", "gradient", torch.tensor(7), torch.tensor(torch.nan))
            assert tiny.frozen(dict(tensors_of(state))) != before
        assert tiny.frozen(dict(tensors_of(state))) == before
        assert all(tensor.data_ptr() == standing[name].data_ptr() for name, tensor in places(state, []).items())
        assert tiny.frozen(advance(state, feeds, step, 2, **how)) == tiny.frozen(advance(*other, 2, **how))


def compared(run):
    """The trace of a run, without the settings that it may differ in."""
    trace = tiny.trace(run)
    trace["checkpoint"].pop("config"), trace.pop("config.yaml")
    return trace


class Drifting(Stateful):
    """A perturbation that remembers how often it was called."""

    def __init__(self, in_place=True):
        self.calls, self.in_place = torch.zeros(()), in_place

    def __call__(self, mixing, tables, loss, progress, generator):
        self.calls = self.calls.add_(1) if self.in_place else self.calls + 1
        return tiny.scaled(mixing, 1 + 0.01 * self.calls * torch.rand((), generator=generator))

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls.copy_(state["calls"])


RUNS = {
    "search": lambda: tiny.search_config(
        solver="unrolled", epochs=3, warmup_epochs=1, perturbation=Drifting(), space=SMALL
    ),
    "retrain": lambda: RETRAIN,
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_does_not_notice_where_its_step_is_recorded(name, without_a_gpu, monkeypatch):
    """Called; recorded before the first step; and again where a run was interrupted and goes on."""
    tiny.run(RUNS[name](), run_dir="called", cuda_graph=False)
    assert not without_a_gpu
    tiny.run(RUNS[name](), run_dir="whole")
    assert without_a_gpu == ways(RUNS[name]())[::-1]  # one for each way, the one with frozen alphas first

    after_step = Steps.after_step
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(
            Steps,
            "after_step",
            lambda steps, state, metrics: (
                after_step(steps, state, metrics),
                state.clock.done == 4 and os.kill(os.getpid(), signal.SIGTERM),
            ),
        )
        tiny.run(RUNS[name](), run_dir="resumed")
    assert tiny.newest("resumed")["step"] == 4
    tiny.run(RUNS[name](), resume="resumed", run_dir=None)
    expected = compared("called")
    for run in ("whole", "resumed"):
        tiny.assert_same(compared(run) | {"status": None}, expected | {"status": None})


@pytest.mark.parametrize("order", ["warm-up", "every third"])
def test_every_variant_of_a_step_is_recorded_once(order, without_a_gpu):
    """Not anew when the steps go to and fro; another state is recorded anew, and so is one whose settings have changed."""
    state, feeds, recorded = recorder(tiny.search_config(), tiny.Report())
    called, others, step = tiny.training(tiny.search_config())
    for number in range(9):
        learn = number > 3 if order == "warm-up" else number % 3 == 2
        made = advance(state, feeds, recorded, 1, learn_alphas=learn)
        assert tiny.frozen(made) == tiny.frozen(advance(called, others, step, 1, learn_alphas=learn))
    assert without_a_gpu == [{"learn_alphas": False}, {"learn_alphas": True}] and len(recorded.graphs) == 2
    recorded.forget()
    advance(state, feeds, recorded, 2, learn_alphas=True)
    assert len(without_a_gpu) == 3 and len(recorded.graphs) == 1
    other, feeds, _ = tiny.training(tiny.search_config())
    advance(other, feeds, recorded, 2, learn_alphas=True)
    assert len(without_a_gpu) == 4 and recorded.state is other and len(recorded.graphs) == 1


def test_graphs_of_a_state_share_their_memory(without_a_gpu, monkeypatch):
    pools, numbers = [], iter(range(9))

    def capture(step, stream, pool, *, generator):
        pools.append(pool)
        return step

    monkeypatch.setattr(graph, "new_pool", lambda: ("pool", next(numbers)))
    monkeypatch.setattr(graph, "capture", capture)
    state, feeds, recorded = recorder(tiny.search_config(), tiny.Report())
    for learn in (False, True):
        advance(state, feeds, recorded, 1, learn_alphas=learn)
    state, feeds, _ = tiny.training(tiny.search_config())
    advance(state, feeds, recorded, 1, learn_alphas=True)
    assert pools == [("pool", 0), ("pool", 0), ("pool", 1)]


def test_the_key_cannot_change_a_result():
    for kind in (SearchConfig, RetrainConfig):
        assert "cuda_graph" in configuration.without_effect(kind) and "cuda_graph" in schema.leaves(kind)


# What cannot be recorded


class Sparse(Softmax):
    sparse = True


class Deciding(SOLVERS["first_order"]):
    capturable = False


OBSTACLES = {
    "sparse": ({"relaxation": Sparse}, "the relaxation runs only the operations that it draws"),
    "said": ({"solver": Deciding}, "the solver cannot be captured"),
    "profile": ({"debug": lambda: "profile"}, "debug=profile looks into a step, and a replay has no parts"),
    "moved": (
        {"perturbation": lambda: Drifting(in_place=False)},
        "the step makes parts.perturbation.calls anew, instead of writing into it",
    ),
}


def recorder(config, report):
    state, feeds, step = tiny.training(config)
    obstacle = state.method.obstacle() if hasattr(state, "method") else None
    return state, feeds, GraphedStep(step, config, state.device, report, obstacle)


@pytest.mark.parametrize(("parts", "why"), OBSTACLES.values(), ids=OBSTACLES)
def test_what_cannot_be_recorded_is_called_and_one_line_says_why(parts, why, without_a_gpu):
    def config():
        return tiny.search_config(**{key: make() for key, make in parts.items()})

    report = tiny.Report()
    made = advance(*recorder(config(), report), 3)
    assert report.lines == [f"no CUDA graph, so steps take longer: {why}"] and not report.warnings
    assert not without_a_gpu
    assert tiny.frozen(made) == tiny.frozen(advance(*tiny.training(config()), 3))


class Reading(SOLVERS["first_order"]):
    """A solver that waits for the device."""

    def __call__(self, problem):
        loss, gradients = super().__call__(problem)
        assert self.value(loss) > 0
        return loss, gradients

    def value(self, loss):
        return loss.item()


class Complaining(Reading):
    def value(self, loss):
        try:
            return loss.item()
        except RuntimeError:
            raise ValueError("no number")  # noqa: B904


@pytest.mark.parametrize("solver", [Reading, Complaining])
def test_a_part_that_waits_is_found_before_a_capture(solver, without_a_gpu):
    """In the last warm step, which ends where it waits, and leaves no trace."""
    report = tiny.Report()
    made = advance(*recorder(tiny.search_config(solver=solver()), report), 3)
    (line,) = report.lines
    why = "no CUDA graph, so steps take longer: the step cannot be captured: it waits for the device in test_graph.py:"
    assert line.startswith(why)
    assert not without_a_gpu
    assert tiny.frozen(made) == tiny.frozen(advance(*tiny.training(tiny.search_config()), 3))


@pytest.mark.parametrize("inside_torch", [False, True])
def test_the_line_that_waits_is_said(inside_torch, monkeypatch):
    """That of a part, not one of torch's own; the error is one that torch raises without a GPU."""
    monkeypatch.setattr(graph, "_waits_are_errors", contextlib.nullcontext)
    monkeypatch.setattr(graph, "WAITS", "shape '[3]' is invalid")

    def step():
        if inside_torch:
            torch.nn.Unflatten(0, (3,))(torch.empty(2).expand(2))
        torch.empty(2).view(3)

    if inside_torch:
        monkeypatch.setattr(graph, "WAITS", "unflatten")
    place, _, code = graph.waiting(step).rpartition(" in ")[2].partition(" ")
    first = step.__code__.co_firstlineno
    assert place == f"test_graph.py:{first + 2 if inside_torch else first + 3}"
    assert code == (
        "(torch.nn.Unflatten(0, (3,))(torch.empty(2).expand(2)))" if inside_torch else "(torch.empty(2).view(3))"
    )


def test_another_error_of_the_last_warm_step_is_passed_on(without_a_gpu):
    state, _, _ = tiny.training(tiny.search_config())
    left = [1, 1]

    def step(state):
        left.pop()

    with pytest.raises(IndexError):
        GraphedStep(step, tiny.search_config(), state.device, tiny.Report())(state)


def test_waits_are_errors_and_then_what_they_were(monkeypatch):
    modes = [1]

    def change(mode):
        modes.append(mode)
        warnings.warn("a prototype", stacklevel=2)  # as torch does, where a user would see it

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", change)
    monkeypatch.setattr(warnings, "showwarning", lambda *warning: pytest.fail("a warning"))
    warnings.simplefilter("always")
    assert graph.waiting(lambda: None) is None and modes == [1, "error", 1]
    with pytest.raises(KeyError):
        graph.waiting(lambda: {}[0])
    assert modes == [1, "error", 1, "error", 1]


class FallenGraph:
    """A CUDA graph, and torch.cuda.graph around its capture, whose end raises."""

    capturing = False

    def __init__(self, *_, **settings):
        pass

    def register_generator_state(self, generator):
        generator.captured = True

    def __enter__(self):
        FallenGraph.capturing = True

    def __exit__(self, *error):
        FallenGraph.capturing = False
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture\nmore")


class Draws(torch.Generator):
    """Of torch 2.11: after a capture that failed, it stays in the middle of it."""

    captured = False


class Noise:
    """A perturbation that draws, which a generator in the middle of a capture does not let it do."""

    def __call__(self, mixing, tables, loss, progress, generator):
        if generator.captured:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        return tiny.scaled(mixing, torch.rand((), generator=generator))


@pytest.mark.parametrize(
    ("version", "cleaned"),
    [
        ("2.11.0+cu130", ["end", "release", "default"]),
        ("2.12.1", ["end", "release"]),
        ("2.13.0", []),
        ("2.14.1", []),
    ],
)
@pytest.mark.parametrize("ended", [False, True])
def test_a_capture_that_fails_leaves_nothing_behind(version, cleaned, ended, monkeypatch):
    """The allocator goes on as before, the generators draw, the steps have the numbers of a run without a graph."""
    done, pool, default = [], (0, 7), SimpleNamespace()

    def end(index, given):
        done.append("end")
        assert (index, given) == (1, pool)
        if ended:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

    default.clone_state = lambda: "like it"
    default.graphsafe_set_state = lambda state: done.append("default") if state == "like it" else None
    for module, name, value in (
        (graph, "wanted", lambda config, device: config.cuda_graph),
        (graph, "own_stream", lambda device: contextlib.nullcontext("stream")),
        (graph, "_waits_are_errors", contextlib.nullcontext),
        (graph, "_failed", []),
        (clock, "Generator", Draws),
        (torch, "__version__", version),
        (torch.cuda, "CUDAGraph", FallenGraph),
        (torch.cuda, "graph", FallenGraph),
        (torch.cuda, "graph_pool_handle", lambda: pool),
        (torch.cuda, "current_device", lambda: 1),
        (torch.cuda, "default_generators", (None, default)),
        (torch._C, "_cuda_endAllocateToPool", end),
        (torch._C, "_cuda_releasePool", lambda index, given: done.append("release")),
    ):
        monkeypatch.setattr(module, name, value, raising=False)
    report, config = tiny.Report(), tiny.search_config(perturbation=Noise())
    state, feeds, step = tiny.training(config)

    def forbidden(state):
        if FallenGraph.capturing:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        return step(state)

    before = state.clock.generator
    made = advance(state, feeds, GraphedStep(forbidden, config, state.device, report), 3)
    why = "the step cannot be captured: CUDA error: operation not permitted when stream is capturing"
    assert report.lines == [f"no CUDA graph, so steps take longer: {why}"]
    assert state.clock.generator is not before
    assert done == [call for call in cleaned if not (ended and call == "release")]
    assert len(graph._failed) == ("release" in done), "the allocator of pinned memory may look at it"
    assert tiny.frozen(made) == tiny.frozen(advance(*tiny.training(config), 3))


def test_an_arm_that_cannot_be_captured_gives_its_pool_back(monkeypatch):
    """Graphs of an arm share it."""
    given = []
    monkeypatch.setattr(measure, "own_stream", lambda device: contextlib.nullcontext("stream"))
    monkeypatch.setattr(graph, "_clean_up", lambda graph, pool: given.append(pool))
    for name in ("CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, FallenGraph)
    with pytest.raises(RuntimeError, match="during capture"):
        measure.Recorded(lambda: None, torch.device("cuda"), (0, 3))()
    assert given == [(0, 3)]


def test_what_fails_first_is_said(without_a_gpu, monkeypatch):
    def capture(step, stream, pool, *, generator):
        try:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        except RuntimeError:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904

    monkeypatch.setattr(graph, "capture", capture)
    report = tiny.Report()
    config = tiny.search_config()
    made = advance(*recorder(config, report), 3)
    why = "the step cannot be captured: CUDA error: operation not permitted when stream is capturing"
    assert report.lines == [f"no CUDA graph, so steps take longer: {why}"]
    assert tiny.frozen(made) == tiny.frozen(advance(*tiny.training(config), 3))


def test_out_of_memory_is_passed_on(without_a_gpu, monkeypatch):
    def capture(step, stream, pool, *, generator):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        except RuntimeError:
            raise RuntimeError("CUDA error: operation failed due to a previous error")  # noqa: B904

    monkeypatch.setattr(graph, "capture", capture)
    with pytest.raises(torch.OutOfMemoryError) as error:
        advance(*recorder(tiny.search_config(), tiny.Report()), 1)
    assert out_of_memory(error.value)


def test_on_a_cpu_nothing_is_recorded_and_nothing_said():
    report = tiny.Report()
    for config in (tiny.search_config(relaxation=Sparse()), tiny.retrain_config()):
        assert not recorder(config, report)[2].records
    assert not report.lines
    assert graph.wanted(tiny.search_config(), torch.device("cuda"))
    assert not graph.wanted(replace(tiny.search_config(), cuda_graph=False), torch.device("cuda"))
