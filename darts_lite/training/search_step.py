"""One step of the search: first the architecture, on validation data, then the weights, on training data (Liu et al. 2019, algorithm 1)."""

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.profiler import record_function

from darts_lite.hardware.precision import full_float32
from darts_lite.methods.architecture import flatten, unflatten
from darts_lite.methods.penalties import ArchitectureView
from darts_lite.methods.solvers.bilevel import Bilevel, Tensors
from darts_lite.spaces.table import Mixing
from darts_lite.training.optimizers import cosine, gated_step
from darts_lite.training.search_state import Batch, SearchState


def search_step(state: SearchState, train: Batch, validation: Batch, *, learn_alphas: bool) -> dict[str, Tensor]:
    """Move alphas (unless the weights are warming up) and weights once; returns 0-d metrics. Nothing in it waits for the device."""
    learning_rate = cosine(state.clock.progress, state.config.lr, state.config.lr_min)
    metrics = alpha_step(state, train, validation, learning_rate) if learn_alphas else {}
    return metrics | weight_step(state, train, learning_rate)


@record_function("alphas")
def alpha_step(state: SearchState, train: Batch, validation: Batch, learning_rate: Tensor) -> dict[str, Tensor]:
    """One sample of the mixing, one hypergradient, one step of Adam on alpha."""
    method, clock = state.method, state.clock
    mixing = state.architecture.sample(clock.progress, clock.generator)
    sampled = flatten(mixing)
    problem = Bilevel(
        inner=state.loss(train, mixing),
        outer=state.loss(validation, mixing),
        probe=state.loss(train, mixing, "fp32"),
        weights=tuple(weight.detach() for weight in state.descent.weights),
        mixing=tuple(tensor.detach() for tensor in sampled),
        lookahead=state.descent.lookahead(learning_rate),
    )
    with full_float32() if method.solver.precise else nullcontext():
        outer_loss, hypergradient = method.solver(problem)

    # The rest of the chain: back through the relaxation with the same noise; penalties are functions of alpha themselves.
    state.alpha_optimizer.zero_grad(set_to_none=True)
    penalties = [penalty(_view(state, mixing)) for penalty in method.penalties]
    torch.autograd.backward([*sampled, *penalties], [*hypergradient, *[None] * len(penalties)])
    gradients = [logits.grad for logits in state.architecture.parameters() if logits.grad is not None]
    state.health.check("alphas", "validation loss", clock.step, outer_loss)
    state.health.check("alphas", "penalty", clock.step, *penalties)
    state.health.check("alphas", "gradient", clock.step, *gradients)
    gated_step(state.alpha_optimizer, state.alpha_lr, state.health)
    norm = torch.nn.utils.get_total_norm(gradients)
    return {
        "validation/loss": outer_loss,
        "gradient/alphas": norm,
        "lr/alphas": state.alpha_optimizer.param_groups[0]["lr"].clone(),
    }


@record_function("weights")
def weight_step(state: SearchState, train: Batch, learning_rate: Tensor) -> dict[str, Tensor]:
    """A fresh sample from the moved architecture, one step of SGD on the weights."""
    method, clock = state.method, state.clock
    with torch.no_grad():
        mixing = state.architecture.sample(clock.progress, clock.generator)

    def loss_of(tensors: Tensors) -> Tensor:
        return state.loss(train, mixing)(state.descent.weights, tensors)

    mixing = unflatten(mixing, method.perturbation(flatten(mixing), loss_of, clock.progress, clock.generator))

    def forward() -> tuple[Tensor, Tensor]:
        return state.forward(train, state.descent.weights, mixing)

    def regularize(gradients: list[Tensor]) -> None:
        method.regularization(state.descent.weights, gradients, clock.progress)

    return state.descent.step(forward, train[1], learning_rate, state.health, clock.step, regularize)


def _view(state: SearchState, mixing: dict[str, Mixing]) -> ArchitectureView:
    architecture = state.architecture
    return ArchitectureView(
        logits=dict(architecture.operations),
        mixing={cell: one.operations for cell, one in mixing.items()},
        expected={cell: one.operations for cell, one in architecture.expected(state.clock.progress).items()},
        progress=state.clock.progress,
    )
