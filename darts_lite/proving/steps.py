"""Steps of a small search, with every solver: compared with float64, and recorded steps with called ones."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from darts_lite.errors import out_of_memory
from darts_lite.hardware.graph import GraphedStep, tensors_of
from darts_lite.hardware.precision import resolve_precision
from darts_lite.methods.build import build_method, build_space
from darts_lite.methods.solvers import SOLVERS
from darts_lite.operations import NONE, OPERATIONS
from darts_lite.operations.candidates import Activation
from darts_lite.proving.cases import KINKED, Setting, at_thresholds, settings_of, skeleton_of
from darts_lite.proving.findings import ALLOWED, Fault, Proof, Tensors, raised
from darts_lite.proving.subject import CPU, gradient_of
from darts_lite.settings.configs import SearchConfig, SpaceConfig
from darts_lite.settings.parts import PartConfig
from darts_lite.spaces.stem import choose
from darts_lite.training.search_state import SearchState
from darts_lite.training.search_step import search_step

SIDES = {"cifar": 6, "imagenet": 16}  # pixels of the images, by stem
# With ReLU in float64 none reads less than this, and no pool's two largest pixels are closer, at this seed; fp32 errs by 1e-6 there.
STEP_SEED, STEP_MARGIN = 57, 1e-5


def small_state(
    config: SearchConfig,
    device: torch.device,
    precision: str,
    activation: Activation,
    stored: dict[str, Any] | None = None,
) -> SearchState:
    """A small search before its first step; `stored`: from there."""
    method, space = build_method(config), build_space(config.space)
    with default_type(torch.float64 if precision == "fp64" else torch.float32):
        stem = choose("auto", (SIDES["cifar"], SIDES["cifar"]))
        skeleton = skeleton_of(activation, (SIDES[stem], SIDES[stem]), stem)
        state = SearchState(config, space, skeleton, method, device, precision, epoch_steps=10)
    if stored is not None:
        state.load_state_dict(stored)
    return state


def small_batches(state: SearchState) -> list[tuple[Tensor, Tensor]]:
    """(images (12, 3, H, W), labels (12,)) for training and for validation."""
    draws, dtype, shape = Generator().manual_seed(0), state.alpha_lr.dtype, (12, 3, *state.supernet.skeleton.image_size)
    labels = torch.arange(12, device=state.device) % 3
    return [
        (torch.randn(shape, generator=draws, dtype=torch.float32).to(state.device, dtype), labels) for _ in range(2)
    ]


def _step_values(
    config: SearchConfig, activation: Activation, stored: dict[str, Any], device: torch.device, precision: str
) -> Tensors:
    """Losses and gradients of one step."""
    state = small_state(config, device, precision, activation, stored)
    with default_type(state.alpha_lr.dtype):
        metrics = search_step(state, *small_batches(state), learn_alphas=True)
    values = {"the validation loss": metrics["validation/loss"], "the training loss": metrics["train/loss"]}
    values |= {f"the gradient of alpha ({cell})": alpha.grad for cell, alpha in state.architecture.operations.items()}
    weights = zip(state.weight_optimizer.names, state.weight_optimizer.weights, strict=True)
    return values | {gradient_of(name, w): w.grad for name, w in weights if w.grad is not None}


def small_config(config: SearchConfig, solver: str, activation: Activation, **changes: Any) -> SearchConfig:
    """The configuration of a small search whose alphas are far from each other; with a smooth activation, without pools that choose."""
    usual = SpaceConfig().candidates  # which the kernels of a GPU serve
    candidates = [name for name in OPERATIONS if name in usual and (name not in KINKED or activation is nn.ReLU)]
    space = replace(config.space, nodes=2, candidates=[*candidates, NONE], edge_candidates=None)
    return replace(
        config, solver=PartConfig(solver), space=space, alpha_init_std=0.5, seed=STEP_SEED, debug=None, **changes
    )


def prove_steps(proof: Proof, config: SearchConfig) -> None:
    """Compare a step of each solver on a smooth network; of the first solver also across the networks' thresholds, and with ReLU."""
    first = next(iter(SOLVERS), "")
    walked: list[tuple[str, Activation, Setting]] = [(solver, nn.SiLU, {}) for solver in SOLVERS]
    walked += [(first, nn.SiLU, setting) for setting in settings_of("network")[1:]] + [(first, nn.ReLU, {})]
    for solver, activation, setting in walked if SOLVERS else []:
        with at_thresholds(setting) as text:
            small = small_config(config, solver, activation)
            stored = copy.deepcopy(small_state(small, CPU, "fp32", activation).state_dict())
            find = partial(_step_values, small, activation, stored)
            expected = find(CPU, "fp64")
            case = f"a step of solver={solver}, {activation.__name__}{text}"
            proof.compare("steps", case, ALLOWED["fp32"], "steps", partial(find, proof.device, "fp32"), expected)


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    """Inside, new tensors have this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _Said:
    """A reporter that remembers why there is no graph."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        """Remember it."""
        self.lines.append(text)

    warning = line


def prove_graphs(proof: Proof, config: SearchConfig) -> None:
    """A step of each solver, recorded and called, in the precision of a run."""
    precision = resolve_precision("auto", proof.device)
    for solver in SOLVERS:
        case, said = f"a step of solver={solver}, {precision}", _Said()
        proof.number += 1
        try:
            called, replayed = (
                _after_steps(small_config(config, solver, nn.ReLU, cuda_graph=recorded), proof.device, precision, said)
                for recorded in (False, True)
            )
        except Exception as error:
            if out_of_memory(error):
                raise
            proof.faults.append(raised("graph", case, error))
            continue
        differs = [name for name in called if not torch.equal(called[name], replayed[name])]
        if said.lines:
            proof.faults.append(Fault("graph", case, f"cannot be recorded ({said.lines[0]})"))
        elif differs:
            what = f"is another one when it is replayed ({len(differs)} of {len(called)} tensors differ: {differs[0]})"
            proof.faults.append(Fault("graph", case, what))
    proof.graphs = "replayed steps are called ones, bit for bit"


def _after_steps(config: SearchConfig, device: torch.device, precision: str, report: Any) -> Tensors:
    """The state after some steps, through a recorder."""
    state = small_state(config, device, precision, nn.ReLU)
    batches = small_batches(state)

    def step(state: SearchState) -> Tensors:
        generator = state.clock.generator
        varied = [(x + 0.1 * torch.randn(x.shape, device=device, generator=generator), y) for x, y in batches]
        return search_step(state, *varied, learn_alphas=True)

    recorder = GraphedStep(step, config, device, report, state.method.obstacle())
    for _ in range(3):
        recorder(state)
        state.clock.tick()
    return {name: tensor.clone() for name, tensor in tensors_of(state)}
