"""Proof that a device computes what a search needs: small cases, forward and gradients, against float64 on the CPU.

    operations   every candidate, stride 1 and 2, as the weights, the alphas and a retraining see it
    cells        all candidates of a cell together, mixed and summed into nodes
    steps        a search step of every solver
    graph        a recorded step is a called one, bit for bit

Operations and cells are computed in fp32 and bf16, in several layouts, at both sides of each row of `operations.thresholds`.

An error is the largest difference of a tensor, divided by the tensor's largest value. So that rounding cannot look like a fault,

    images and weights are numbers that bf16 holds, and no two pixels of a 3x3 window are equal: a pool chooses the same one everywhere;
    networks are smooth (SiLU), or, with ReLU, their weights are near the identity: what ReLU reads stays away from its kink;
    the gradient of the output leans towards the output: sums of it over the image do not cancel.

A right CPU then errs by up to 6e-6 in fp32 and 0.0135 in bf16 (torch 2.14.1). With normal numbers and ReLU it would by 0.3 in bf16: kinks.
Steps are compared in fp32 alone: in bf16 a right CPU is off by 0.02 in the alphas' gradient and 0.04 in that of some weights.
cuDNN chooses its algorithms without a trial here, and deterministic ones: a trial of each convolution would take minutes.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from darts_lite.errors import Exit, UserError, out_of_memory
from darts_lite.hardware.device import run_settings
from darts_lite.hardware.graph import GraphedStep, tensors_of
from darts_lite.hardware.precision import call, computing, full_float32, resolve_precision
from darts_lite.methods.build import build_method, build_space
from darts_lite.methods.solvers import SOLVERS
from darts_lite.operations import NOISE, NONE, OPERATIONS
from darts_lite.operations.candidates import Activation
from darts_lite.operations.kernels.thresholds import CHANNELS, TABLE, Threshold
from darts_lite.operations.layers import FORMS, tracking_statistics
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces import SPACES
from darts_lite.spaces.cell import Cell
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.plan import CellPlan
from darts_lite.spaces.stem import choose
from darts_lite.spaces.table import Mixing
from darts_lite.training.search_state import SearchState
from darts_lite.training.search_step import search_step

ALLOWED = {"fp32": 1e-4, "bf16": 2e-2}  # of the largest value
CPU = torch.device("cpu")
WIDTHS = (12, 36, 70)  # channels beside those of the thresholds: whole vectors and blocks of no size
IMAGES = (
    (4, 9, 7),
    (4, 8, 8),
    (6, 5, 6),
    (12, 4, 3),
)  # batch, height, width; the last one is smaller than a 5 wide kernel
LEARNING = ("weights", "alphas", "final")  # roles, see `_candidates`
LAYOUTS = ("channels_last", "slice of channels_last", "contiguous")
ACTIVATIONS: tuple[Activation, ...] = (nn.SiLU, nn.ReLU)
SIDES = {"cifar": 6, "imagenet": 16}  # pixels of the images of steps, by stem
REAL = (16, 16, 32, 32)  # channels, batch, height, width: two copies are 1 MiB in bf16
KINKED = ("max_pool_3x3",)  # candidates that choose: smooth steps leave them out
# With ReLU in float64 none reads less than this, and no pool's two largest pixels are closer, at these seeds; fp32 errs by 1e-6 there.
CELL_SEED, CELL_MARGIN = 63, 5e-4  # two nodes
STEP_SEED, STEP_MARGIN = 57, 1e-5
CONSTANT = ("drop-path",)  # inputs of which no run needs a gradient
SCALES = "the gradient of scales and biases"
Tensors = dict[str, Tensor]
Setting = dict[Threshold, Any]  # values of thresholds


@dataclass(frozen=True)
class Fault:
    """One comparison that failed."""

    part: str  # operations | cells | steps | graph
    case: str
    what: str  # such as "the gradient of a weight (first.depthwise.weight) is off by 0.3 (0.02 allowed)"

    @property
    def kind(self) -> tuple[str, str]:
        """Equal for faults that probably have one cause; what is made of operations is off wherever one of them is."""
        return self.part, self.what.split(" (")[0].split(" is off")[0] if self.part == "operations" else ""


def _raised(part: str, case: str, error: Exception) -> Fault:
    said = (str(error) or type(error).__name__).splitlines()[0]
    return Fault(part, case, f"raises {type(error).__name__} ({said})")


@dataclass
class Proof:
    """What was compared, and what was off."""

    device: torch.device
    number: int = 0  # comparisons
    largest: dict[str, float] = field(default_factory=dict)  # error of each precision, and of the steps
    faults: list[Fault] = field(default_factory=list)
    graphs: str = "no graph on a CPU"

    def compare(
        self, part: str, case: str, allowed: float, measure: str, find: Callable[[], Tensors], expected: Tensors
    ) -> None:
        """Compare what `find` returns, or note what it raises."""
        self.number += 1
        try:
            errors = {name: _error(value, expected[name]) for name, value in find().items()}
        except Exception as error:
            if out_of_memory(error):
                raise
            self.faults.append(_raised(part, case, error))
            return
        self.largest[measure] = max(self.largest.get(measure, 0.0), *errors.values())
        name = max(errors, key=lambda name: errors[name])
        if errors[name] > allowed:
            self.faults.append(Fault(part, case, f"{name} is off by {errors[name]:.2g} ({allowed:g} allowed)"))

    def line(self) -> str:
        """All is well, in one line."""
        errors = ", ".join(f"{name} within {error:.1g}" for name, error in self.largest.items())
        return f"{self.number:,} comparisons of {self.device} with float64 on the CPU: {errors}; {self.graphs}"

    def problems(self) -> Iterator[UserError]:
        """One for each kind of fault: the first, and how many there are."""
        kinds: dict[tuple[str, str], list[Fault]] = {}
        for fault in self.faults:
            kinds.setdefault(fault.kind, []).append(fault)
        name = self.device.type
        means = f": torch or a driver is wrong here, and searches on {name} would learn from wrong numbers"
        other = "another torch or another machine" if name == "cpu" else "device=cpu, or another torch or driver"
        for faults in kinds.values():
            more = f", and {len(faults) - 1} more such" if len(faults) > 1 else ""
            graph = faults[0].part == "graph"
            reason = f"{faults[0].what}{more}{'' if graph else means}"
            yield UserError(faults[0].case, reason, "cuda_graph=false" if graph else other, code=Exit.ENVIRONMENT)


def prove(config: Any, device: torch.device) -> Proof:
    """Compute everything on `device`; `config` is that of a search, whose steps are tried on a small network."""
    proof = Proof(device)
    with run_settings(device, True), full_float32(), _one_thread():
        for subject, settings in _operations(device):
            _compare(proof, "operations", subject, settings)
        for subject, settings in _cells(device):
            _compare(proof, "cells", subject, settings)
        _steps(proof, config)
        if device.type == "cuda":
            _graphs(proof, config)
    return proof


# Modules


@dataclass
class Subject:
    """A module with drawn weights, and what it is called with; float64, on the CPU."""

    case: str
    module: nn.Module
    inputs: Tensors  # by the name of the argument
    layout: str
    learns: bool  # weights have gradients, and running statistics move
    precisions: tuple[str, ...] = tuple(ALLOWED)
    moved: nn.Module | None = None
    drawn: list[Tensor] = field(default_factory=list)  # buffers

    def compute(self, device: torch.device, precision: str, upstream: list[Tensor]) -> Tensors:
        """Output, gradients and running statistics; `upstream`, the gradient of the output, is made where it is empty."""
        dtype = torch.float64 if precision == "fp64" else torch.float32
        images = torch.bfloat16 if precision == "bf16" else dtype

        def moved(tensor: Tensor) -> Tensor:
            tensor = tensor.detach().to(device, images if tensor.dim() == 4 else dtype, copy=True)
            return _laid_out(tensor, self.layout) if tensor.dim() == 4 else tensor

        module = self._moved_module(device, dtype)
        inputs = {name: moved(tensor).requires_grad_() for name, tensor in self.inputs.items()}
        names = [name for name, _ in module.named_parameters()]
        weights = [weight.detach().requires_grad_(self.learns) for weight in module.parameters()]
        tracking = tracking_statistics(module) if self.learns else nullcontext()
        with computing(device, precision), tracking, torch.set_grad_enabled(module.training):
            output = call(module, precision, names, weights, **inputs) if names else module(**inputs)
        if not module.training:
            return {"the output": output}
        if not upstream:
            upstream.append(_leaning(output))
        wanted = {f"the gradient of the {name}": tensor for name, tensor in inputs.items() if name not in CONSTANT}
        if self.learns:
            wanted |= {_gradient_of(name, weight): weight for name, weight in zip(names, weights, strict=True)}
        gradients = torch.autograd.grad(output, list(wanted.values()), moved(upstream[0]), materialize_grads=True)
        found = dict(zip(wanted, gradients, strict=True))
        # As one tensor: a BatchNorm makes what is before it, such as the scales of another one, matter little.
        terms = [found.pop(name) for name in list(found) if name.startswith(SCALES)]
        found |= {SCALES: torch.cat(terms)} if terms else {}
        found |= {"the output": output.detach()}
        if self.learns:
            floating = ((name, value) for name, value in module.named_buffers() if value.is_floating_point())
            found |= {f"a running statistic ({name})": value for name, value in floating}
        return found

    def _moved_module(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The module on a device, made once; its running statistics as they were drawn."""
        module = self.module
        if dtype != torch.float64:
            if self.moved is None:
                self.moved = copy.deepcopy(module).to(device, dtype)
                self.moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            module = self.moved
        self.drawn = self.drawn or [buffer.clone() for buffer in module.buffers()]
        for buffer, drawn in zip(module.buffers(), self.drawn, strict=True):
            buffer.copy_(drawn)
        return module


def _gradient_of(name: str, weight: Tensor) -> str:
    return f"the gradient of a weight ({name})" if weight.dim() > 1 else f"{SCALES} ({name})"


def _compare(proof: Proof, part: str, subject: Subject, settings: list[Setting]) -> None:
    """Compare in each precision, with each setting of the thresholds."""
    upstream: list[Tensor] = []
    expected = subject.compute(CPU, "fp64", upstream)
    for precision in _precisions(proof.device, subject.precisions):
        for setting in settings:
            with _set(setting) as text:
                find = partial(subject.compute, proof.device, precision, upstream)
                case = f"{subject.case}{text}, {precision}"
                proof.compare(part, case, ALLOWED[precision], precision, find, expected)


@contextmanager
def _set(setting: Setting) -> Iterator[str]:
    """Inside, thresholds lie elsewhere; the text says where."""
    with ExitStack() as held:
        for threshold, value in setting.items():
            held.enter_context(threshold.at(value))
        yield "".join(f", {threshold.name}={value}" for threshold, value in setting.items())


def _precisions(device: torch.device, wanted: tuple[str, ...]) -> list[str]:
    """Those that the device has in hardware; a CPU has all."""
    has = device.type == "cpu" or resolve_precision("auto", device) == "bf16"
    return [name for name in wanted if name == "fp32" or has]


def _settings(*levels: str) -> list[Setting]:
    """The thresholds as they are, and one after the other on its other side."""
    return [{}, *({row: row.other} for row in TABLE if row.level in levels and row.unit != CHANNELS)]


def _widths() -> set[int]:
    """Channels at both sides of the thresholds."""
    return {width for row in TABLE if row.unit == CHANNELS for width in (row.value, row.value + 1)}


def _shapes() -> list[tuple[int, tuple[int, int, int], str]]:
    """Channels, image and layout: with each number of channels others."""
    return [
        (channels, IMAGES[number % len(IMAGES)], LAYOUTS[number % len(LAYOUTS)])
        for number, channels in enumerate(sorted({*WIDTHS, *_widths()}))
    ]


def _operations(device: torch.device) -> Iterator[tuple[Subject, list[Setting]]]:
    """Every candidate: with each number of channels another image, layout and activation."""
    settings, widths = _settings("operation"), _widths()
    bytes_only = [setting for setting in settings if all(row.unit == "bytes" for row in setting)]
    for number, (channels, image, layout) in enumerate(_shapes()):
        activation = ACTIVATIONS[number % len(ACTIVATIONS)]
        roles = LEARNING if channels in widths or number == 0 else ("weights", LEARNING[1 + number % 2])
        for subject in _candidates((channels, *image), layout, activation, roles):
            yield subject, settings if number == 0 else bytes_only
    for subject in _candidates((WIDTHS[0], *IMAGES[0]), LAYOUTS[0], ACTIVATIONS[0], ("evaluated",)):
        yield subject, [{}]
    if device.type != "cpu":  # in float64 these take seconds
        for subject in _candidates(REAL, LAYOUTS[0], ACTIVATIONS[0], LEARNING):
            yield subject, [{}]


def _candidates(
    shape: tuple[int, int, int, int], layout: str, activation: Activation, roles: tuple[str, ...]
) -> Iterator[Subject]:
    """Each operation with each stride and role: weights, alphas (weights are frozen), final, evaluated (final, with running statistics)."""
    channels, batch, height, width = shape
    for name, candidate in OPERATIONS.items():
        if name == NOISE:  # reads no image
            continue
        for stride in (1, 2):
            for role in roles:
                form = "search" if role in ("weights", "alphas") else "final"
                copies = 2 if form == "search" else 1
                draws = Generator().manual_seed(channels)
                operation = candidate.build(channels, stride, copies, FORMS[form], activation).double()
                kinked = activation is nn.ReLU and bool(_early(operation))
                _fill(operation, draws, kinked=kinked)
                inputs = {"input": image(draws, (batch, copies * channels, height, width), kinked=kinked)}
                if form == "search" and not candidate.shared(stride):
                    inputs["mixing factor"] = 0.5 + _exact(torch.rand(copies, generator=draws))
                case = f"{name}, stride {stride}, {role}, {layout}, {batch}x{copies * channels}x{height}x{width}"
                module = _Operation(operation).train(role != "evaluated")
                yield Subject(case, module, inputs, layout, role in ("weights", "final"))


class _Operation(nn.Module):
    """An operation, called with names for its arguments."""

    def __init__(self, operation: nn.Module):
        super().__init__()
        self.operation = operation

    def forward(self, **inputs: Tensor) -> Tensor:
        """(N, copies * C, H, W) -> the same, divided by the stride."""
        return self.operation(inputs["input"], inputs.get("mixing factor"))


def _cells(device: torch.device) -> Iterator[tuple[Subject, list[Setting]]]:
    """All candidates of each space on all edges of both cell types, summed into nodes; with ReLU, as published.

    One node in both precisions. Two nodes in fp32, of few pixels: what the second one reads of the first has been rounded, so that in bf16
    other pixels would pass ReLU and pools. A CPU makes cells of operations, so there one width is enough; on a GPU kernels are compiled for
    several, and one image is as large as those of a search.
    """
    settings = _settings("cell")
    settings.append({row: row.other for row in TABLE if row.level in ("operation", "cell") and row.unit != CHANNELS})
    beyond = {row.value + 1 for row in TABLE if row.unit == CHANNELS}
    shapes = [(channels, *image) for channels, image, _ in _shapes() if channels not in beyond]
    shapes = shapes[:1] if device.type == "cpu" else [*shapes, REAL]
    for name, create in SPACES.items():
        for shape in shapes:
            for nodes in (1, 2) if shape is shapes[0] else (1,):
                space = create(SpaceConfig(name, nodes=nodes))
                kinds = space.supernet(_skeleton(nn.ReLU, (8, 8)), space.tables()).cells
                for kind in kinds:
                    roles = LEARNING[:2] if nodes == 2 else LEARNING[::2] if shape is REAL else (*LEARNING, "evaluated")
                    for role in roles:
                        whole = shape is shapes[0] and role in ("weights", "final")
                        yield _cell(kind.plan, kind.reduction, shape, role), settings if whole else [{}]


def _cell(plan: CellPlan, reduction: bool, shape: tuple[int, int, int, int], role: str) -> Subject:
    """A cell whose two states are given, for its preprocessing would round them."""
    channels, batch, height, width = shape
    draws, form = Generator().manual_seed(CELL_SEED), "search" if role in ("weights", "alphas") else "final"
    cell = Cell(
        *(plan, (channels, channels), channels),
        reduction=reduction,
        previous_reduces=False,
        form=FORMS[form],
        activation=nn.ReLU,
    ).double()
    cell.preprocess = nn.ModuleList([nn.Identity(), nn.Identity()])
    for stage in cell.stages:
        for operation in stage.operations.values():
            _fill(operation, draws, kinked=True)
    size = (batch, channels, height, width)
    inputs = {name: image(draws, size, kinked=True) for name in ("first state", "second state")}
    if form == "search":
        mixing = 0.25 + _exact(torch.rand(len(plan.edges), len(plan.columns), generator=draws))
        # The largest of nine pixels varies little, so BatchNorm makes the gradient large, and all others' would drown in its rounding.
        mixing[:, [column for column, name in enumerate(plan.columns) if name in KINKED]] /= 16
        inputs["mixing"] = mixing
    elif role == "final":
        inputs["drop-path"] = 0.25 + _exact(torch.rand(batch, len(plan.edges), generator=draws))
    nodes = f"{plan.nodes} node{'s' if plan.nodes > 1 else ''}"
    case = f"{'reduction' if reduction else 'normal'} cell of {nodes}, {role}, {batch}x{channels}x{height}x{width}"
    precisions = tuple(ALLOWED) if plan.nodes == 1 else ("fp32",)
    module = _Cell(cell).train(role != "evaluated")
    return Subject(case, module, inputs, LAYOUTS[0], role in ("weights", "final"), precisions)


class _Cell(nn.Module):
    """A cell, called with names for its arguments."""

    def __init__(self, cell: Cell):
        super().__init__()
        self.cell = cell

    def forward(self, **inputs: Tensor) -> Tensor:
        """Two images (N, C, H, W) -> (N, nodes * C, H, W), halved by a reduction."""
        first, keep = inputs["first state"], inputs.get("drop-path")
        keep = None if keep is None else keep.to(first.dtype)
        mixing = Mixing(inputs["mixing"]) if "mixing" in inputs else None
        return self.cell((first, inputs["second state"]), mixing, keep)


# Numbers


def image(draws: Generator, shape: tuple[int, ...], *, kinked: bool) -> Tensor:
    """(N, C, H, W) of numbers that bf16 holds, of which a 3x3 window has none twice: -2 to 2, or, `kinked`, +- 1.5 to 2."""
    rows, columns = (torch.arange(side) % 3 for side in shape[2:])
    window = 3 * rows[:, None] + columns
    if not kinked:
        return (9 * torch.randint(28, shape, generator=draws) + window - 126).double() / 64
    sign = 2 * torch.randint(2, shape, generator=draws) - 1
    return (sign * (192 + 9 * torch.randint(7, shape, generator=draws) + window)).double() / 128


def _early(operation: nn.Module) -> Sequence[Tensor]:
    """Filters of the convolutions before the last two, where there may be an activation inside of an operation."""
    return [weight for weight in operation.parameters() if weight.dim() > 1][:-2]


def _fill(operation: nn.Module, draws: Generator, *, kinked: bool) -> None:
    """Draw weights and running statistics of an operation.

    `kinked`: all its convolutions but the last two pass on their middle pixel, and a 20th of what is around it, so that what an activation
    between them reads is far from zero.
    """
    with torch.no_grad():
        for name, weight in operation.named_parameters():
            drawn = 2 * torch.rand(weight.shape, generator=draws, dtype=torch.float64) - 1
            if weight.dim() == 1:
                drawn = drawn / 8 + name.endswith("weight")
            else:
                drawn *= (3 / weight[0].numel()) ** 0.5
            if kinked and any(weight is early for early in _early(operation)):
                rows, middle = torch.arange(len(weight)), weight.shape[-1] // 2
                drawn *= 0.05
                drawn[rows, rows % weight.shape[1], middle, middle] += 1
            weight.copy_(_exact(drawn))
        for name, buffer in operation.named_buffers():
            if buffer.is_floating_point():
                drawn = torch.rand(buffer.shape, generator=draws, dtype=torch.float64)
                buffer.copy_(_exact(drawn / 2 + name.endswith("var")))


def _exact(tensor: Tensor) -> Tensor:
    """The nearest numbers that bf16 holds, in float64."""
    return tensor.bfloat16().double()


def _leaning(output: Tensor) -> Tensor:
    """A gradient for an output: noise that leans towards the output."""
    draws = Generator().manual_seed(0)
    y, noise = output.detach(), torch.randn(output.shape, generator=draws, dtype=torch.float64)
    return _exact(0.1 + 0.1 * y / y.abs().mean() + noise)


def _laid_out(images: Tensor, layout: str) -> Tensor:
    if layout == "contiguous":
        return images.contiguous()
    if layout == "channels_last":
        return images.contiguous(memory_format=torch.channels_last)
    wide = torch.cat([images, images], dim=1).contiguous(memory_format=torch.channels_last)
    return wide[:, : images.shape[1]]


def _error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a part of the largest value; infinite where a number is not finite."""
    expected, found = expected.detach().double(), found.detach().cpu().double()
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return error if error < float("inf") else float("inf")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Inside, a CPU computes on one: for tensors this small, threads wait for each other (a busy machine took ten times as long)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Steps


def _skeleton(activation: Activation, size: tuple[int, int], stem: str = "cifar") -> Skeleton:
    """A normal and a reduction cell."""
    return Skeleton(2, 4, 3, 3, size, (1,), activation=activation, stem=stem)


def _state(
    config: Any, device: torch.device, precision: str, activation: Activation, stored: dict[str, Any] | None = None
) -> SearchState:
    """A small search before its first step; `stored`: from there."""
    method, space = build_method(config), build_space(config.space)
    with _default(torch.float64 if precision == "fp64" else torch.float32):
        stem = choose("auto", (SIDES["cifar"], SIDES["cifar"]))
        skeleton = _skeleton(activation, (SIDES[stem], SIDES[stem]), stem)
        state = SearchState(config, space, skeleton, method, device, precision, epoch_steps=10)
    if stored is not None:
        state.load_state_dict(stored)
    return state


def _batches(state: SearchState) -> list[tuple[Tensor, Tensor]]:
    """Of training and validation images, each with labels."""
    draws, dtype, shape = Generator().manual_seed(0), state.alpha_lr.dtype, (12, 3, *state.supernet.skeleton.image_size)
    labels = torch.arange(12, device=state.device) % 3
    return [
        (torch.randn(shape, generator=draws, dtype=torch.float32).to(state.device, dtype), labels) for _ in range(2)
    ]


def _step_values(
    config: Any, activation: Activation, stored: dict[str, Any], device: torch.device, precision: str
) -> Tensors:
    """Losses and gradients of one step."""
    state = _state(config, device, precision, activation, stored)
    with _default(state.alpha_lr.dtype):
        metrics = search_step(state, *_batches(state), learn_alphas=True)
    values = {"the validation loss": metrics["validation/loss"], "the training loss": metrics["train/loss"]}
    values |= {f"the gradient of alpha ({cell})": alpha.grad for cell, alpha in state.architecture.operations.items()}
    weights = zip(state.weight_optimizer.names, state.weight_optimizer.weights, strict=True)
    return values | {_gradient_of(name, w): w.grad for name, w in weights if w.grad is not None}


def _small(config: Any, solver: str, activation: Activation, **changes: Any) -> Any:
    """The configuration of a small search whose alphas are far from each other; with a smooth activation, without pools that choose."""
    usual = SpaceConfig().candidates  # which the kernels of a GPU serve
    candidates = [name for name in OPERATIONS if name in usual and (name not in KINKED or activation is nn.ReLU)]
    space = replace(config.space, nodes=2, candidates=[*candidates, NONE], edge_candidates=None)
    return replace(config, solver=solver, space=space, alpha_init_std=0.5, seed=STEP_SEED, debug=None, **changes)


def _steps(proof: Proof, config: Any) -> None:
    """Of each solver with a smooth network; of the first one also at both sides of the thresholds of networks, and as published."""
    first = next(iter(SOLVERS), "")
    walked: list[tuple[str, Activation, Setting]] = [(solver, nn.SiLU, {}) for solver in SOLVERS]
    walked += [(first, nn.SiLU, setting) for setting in _settings("network")[1:]] + [(first, nn.ReLU, {})]
    for solver, activation, setting in walked if SOLVERS else []:
        with _set(setting) as text:
            small = _small(config, solver, activation)
            stored = copy.deepcopy(_state(small, CPU, "fp32", activation).state_dict())
            find = partial(_step_values, small, activation, stored)
            expected = find(CPU, "fp64")
            case = f"a step of solver={solver}, {activation.__name__}{text}"
            proof.compare("steps", case, ALLOWED["fp32"], "steps", partial(find, proof.device, "fp32"), expected)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Inside, new tensors have this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# Graphs


class _Said:
    """A reporter that remembers why there is no graph."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        """Remember it."""
        self.lines.append(text)

    warning = line


def _graphs(proof: Proof, config: Any) -> None:
    """A step of each solver, recorded and called, in the precision of a run."""
    precision = resolve_precision("auto", proof.device)
    for solver in SOLVERS:
        case, said = f"a step of solver={solver}, {precision}", _Said()
        proof.number += 1
        try:
            called, replayed = (
                _after_steps(_small(config, solver, nn.ReLU, cuda_graph=recorded), proof.device, precision, said)
                for recorded in (False, True)
            )
        except Exception as error:
            if out_of_memory(error):
                raise
            proof.faults.append(_raised("graph", case, error))
            continue
        differs = [name for name in called if not torch.equal(called[name], replayed[name])]
        if said.lines:
            proof.faults.append(Fault("graph", case, f"cannot be recorded ({said.lines[0]})"))
        elif differs:
            what = f"is another one when it is replayed ({len(differs)} of {len(called)} tensors differ: {differs[0]})"
            proof.faults.append(Fault("graph", case, what))
    proof.graphs = "replayed steps are called ones, bit for bit"


def _after_steps(config: Any, device: torch.device, precision: str, report: Any) -> Tensors:
    """The state after some steps, through a recorder."""
    state = _state(config, device, precision, nn.ReLU)
    batches = _batches(state)

    def step(state: SearchState) -> Tensors:
        generator = state.clock.generator
        varied = [(x + 0.1 * torch.randn(x.shape, device=device, generator=generator), y) for x, y in batches]
        return search_step(state, *varied, learn_alphas=True)

    recorder = GraphedStep(step, config, device, report, state.method.obstacle())
    for _ in range(3):
        recorder(state)
        state.clock.tick()
    return {name: tensor.clone() for name, tensor in tensors_of(state)}
