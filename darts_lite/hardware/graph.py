"""A step as one CUDA graph: recorded once, then replayed by a single launch. Anywhere else a step is simply called.

A search step is thousands of short kernels: while a host launches them one by one, a GPU waits for most of the time. A graph
holds the kernels and their arguments, and no Python; so what a step reads and writes has to lie in the same tensors at every step, and
a step must not wait for the device. tests/test_graph.py proves both; the first is looked at once more before a step is recorded.

Random numbers are those of a step that is called. There each draw takes seed and offset from the generator, and moves the offset on by
what its kernel uses. In a graph it takes them from two tensors, and adds what the draws before it in the graph have used; a replay first
fills these tensors with seed and offset of the generator, which `Clock.tick` has set to those of the step. (torch: CUDAGeneratorImpl.h)

Warm steps come before the recording: kernels are chosen in them, and workspaces taken. They are undone by what a resumed run starts from,
the `state_dict`, so it does not matter at which step a graph is recorded.

What cannot be recorded is best found before: a capture that fails leaves generators and the allocator in its middle (torch 2.11, 2.12). So
in the last warm step waiting for the device is an error. What fails all the same, such as another library's call, is cleaned up after.
"""

import copy
import gc
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.torch_version import TorchVersion

from darts_lite.errors import out_of_memory
from darts_lite.settings.configs import RetrainConfig, SearchConfig

WARM_STEPS = 3
WAITS = "called a synchronizing CUDA operation"  # how torch's error of a step that waits for the device begins
Metrics = dict[str, Tensor]


class GraphedStep:
    """Calls `step(state, **how)`, or replays it. Every `how` of the current state has a graph; another state records anew.

    `obstacle`: why the steps of this run cannot be recorded, if so; one line says it.
    """

    def __init__(
        self,
        step: Callable[..., Metrics],
        config: SearchConfig | RetrainConfig,
        device: torch.device,
        report: Any,
        obstacle: str | None = None,
    ):
        self.step, self.device, self.report = step, device, report
        self.records = wanted(config, device)
        self.state: Any = None  # whose steps the graphs hold
        self.graphs: dict[tuple, Callable[[], Metrics]] = {}  # `how`, sorted -> replay
        self.pool: Any = None  # memory of all graphs of a state, of which one is replayed at a time
        if config.debug == "profile":
            obstacle = "debug=profile looks into a step, and a replay has no parts"
        if self.records and obstacle:
            self._without(obstacle)

    def __call__(self, state: Any, **how: Any) -> Metrics:
        """Do the step. Its metrics are valid until the next one."""
        step, variant = partial(self.step, state, **how), tuple(sorted(how.items()))
        if self.records and state is not self.state:
            self.forget()  # the memory of the old graphs is free for the new ones
            self.state = state
        if self.records and variant not in self.graphs:
            replay = self._record(step, state)
            if replay is not None:
                self.graphs[variant] = replay
        return self.graphs.get(variant, step)()

    def forget(self) -> None:
        """Record anew from here on: numbers of Python that the steps compute with have changed."""
        self.state, self.graphs, self.pool = None, {}, None

    def _record(self, step: Callable[[], Metrics], state: Any) -> Callable[[], Metrics] | None:
        """The graph of `step`; None where there is none, which is said."""
        with own_stream(self.device) as stream:
            with state_restored(state):
                places = dict(tensors_of(state))  # kept, so that no new tensor can take their place
                for _ in range(WARM_STEPS - 1):
                    step()
                obstacle = waiting(step)
                for name, tensor in tensors_of(state):
                    if tensor.data_ptr() != places[name].data_ptr():
                        obstacle = obstacle or f"the step makes {name} anew, instead of writing into it"
                del places
            if obstacle is not None:
                self._without(obstacle)
                return None
            self.pool = self.pool or new_pool()
            try:
                return capture(step, stream, self.pool, generator=state.clock.generator)
            except RuntimeError as error:  # of what is no wait that torch knows of
                state.clock.renew_generator()
                self._without(f"the step cannot be captured: {_cause(error)}")
                return None

    def _without(self, why: str) -> None:
        self.records = False
        self.forget()
        self.report.line(f"no CUDA graph, so steps take longer: {why}")


def new_pool() -> Any:
    """A place in the device's memory for graphs."""
    return torch.cuda.graph_pool_handle()


def wanted(config: SearchConfig | RetrainConfig, device: torch.device) -> bool:
    """Whether a run on this device is to have a graph."""
    return config.cuda_graph and device.type == "cuda"


def waiting(step: Callable[[], Any]) -> str | None:
    """Do `step`; why it cannot be captured, if it waits for the device, with the line of code that does. It then ends there."""
    try:
        with _waits_are_errors():
            step()
    except Exception as error:
        for one in _chain(error):  # whatever a part makes of it
            if WAITS in str(one):
                return f"the step cannot be captured: it waits for the device in {_line(one)}"
        raise
    return None


@contextmanager
def _waits_are_errors() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    _treat_waits("error")
    try:
        yield
    finally:
        _treat_waits(before)


def _treat_waits(mode: int | str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a prototype that does not find every wait: the capture finds the others
        torch.cuda.set_sync_debug_mode(mode)


def _line(error: BaseException) -> str:
    """The last line that led to an error and is not torch's own: `part.py:12 (loss.item())`."""
    torchs = os.path.dirname(torch.__file__) + os.sep
    frames = traceback.extract_tb(error.__traceback__)
    frame = [frame for frame in frames if not frame.filename.startswith(torchs)][-1]
    return f"{os.path.basename(frame.filename)}:{frame.lineno}" + (f" ({frame.line})" if frame.line else "")


def capture(
    step: Callable[[], Any], stream: Any, pool: Any, *, generator: Generator | None = None
) -> Callable[[], Any]:
    """A function that does what `step` does, without Python, and returns what it returned, always in the same tensors.

    `stream`: where `step` has been warmed up, so that it finds its workspaces there. `pool`: memory that graphs share; the replay of one
    overwrites what another has returned. After an error `generator` cannot be used any more (torch 2.11).
    """
    graph = torch.cuda.CUDAGraph()
    if generator is not None and TorchVersion(torch.__version__) < "2.14":
        graph.register_generator_state(generator)  # later ones do it themselves, and warn of the call
    gc.collect()  # what Python would collect meanwhile, such as an older graph, is not to be destroyed while this one is captured
    try:
        # thread_local: a thread that pins the memory of streamed images may do meanwhile what this one must not.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            returned = step()
    except BaseException:
        _clean_up(graph, pool)
        raise

    def replay() -> Any:
        graph.replay()
        return returned

    return replay


_failed: list[Any] = []  # graphs of which the allocator of pinned memory may still hold the address


def _clean_up(graph: Any, pool: Any) -> None:
    """After a capture that failed, put right what older versions of torch leave in its middle (pull requests 176752 and 180395 of PyTorch).

    If `capture_end` raises, the allocator goes on as if there were a capture, and its next `empty_cache` fails, of which cuDNN's next
    trial of a shape makes one; and the device's default generator draws no more. The functions are private.
    """
    index = torch.cuda.current_device()
    if TorchVersion(torch.__version__) < "2.13":
        with suppress(RuntimeError):
            # The first raises where the capture was ended after all: then the graph itself gives its memory back.
            torch._C._cuda_endAllocateToPool(index, pool)
            torch._C._cuda_releasePool(index, pool)
            _failed.append(graph)
    if TorchVersion(torch.__version__) < "2.12":
        default = torch.cuda.default_generators[index]
        default.graphsafe_set_state(default.clone_state())


@contextmanager
def own_stream(device: torch.device) -> Iterator[Any]:
    """Inside, work goes to another stream of the device, after all that came before: the usual one cannot be captured."""
    with torch.cuda.device(device):
        stream, usual = _side(torch.cuda.current_device()), torch.cuda.current_stream()
        stream.wait_stream(usual)
        with torch.cuda.stream(stream):
            yield stream
        usual.wait_stream(stream)


@cache
def _side(index: int) -> Any:
    """One for all graphs: cuBLAS keeps 30 MiB and more for every stream that it has worked in."""
    return torch.cuda.Stream(index)


@contextmanager
def state_restored(state: Any) -> Iterator[None]:
    """Afterwards all that a checkpoint holds of `state`, and its health, are as they were before."""
    health = state.health.step, state.health.term
    before = copy.deepcopy((state.state_dict(), health))
    yield
    state.load_state_dict(before[0])
    for tensor, value in zip(health, before[1], strict=True):
        tensor.copy_(value)


def tensors_of(state: Any) -> Iterator[tuple[str, Tensor]]:
    """What a step moves and is read elsewhere, by name."""
    return _named("", state.state_dict() | {"health": vars(state.health)})


def _named(name: str, tree: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield name, tree
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    for key, branch in branches:
        yield from _named(f"{name}.{key}" if name else str(key), branch)


def _cause(error: BaseException) -> str:
    """The first line of what went wrong first: later errors are about the end of the capture. Raises what is out of memory."""
    for one in _chain(error):
        if out_of_memory(one):
            raise one
        first = one
    return str(first).splitlines()[0]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, then the one that it was raised in the handling of, and so on to the first."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__context__
