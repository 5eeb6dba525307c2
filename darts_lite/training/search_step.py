"""One step of the search: first the architecture, on validation data, then the weights, on training data (Liu et al. 2019, algorithm 1)."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import record_function

from darts_lite.hardware.gated import gated_step
from darts_lite.hardware.precision import full_float32
from darts_lite.methods.architecture import flatten, unflatten
from darts_lite.methods.seams import Mixed
from darts_lite.methods.solvers.bilevel import Bilevel, Loss, Tensors
from darts_lite.methods.views import ArchitectureView
from darts_lite.operations.layers import tracking_statistics
from darts_lite.spaces.transfer import undrawn_kept
from darts_lite.training.evaluation import evaluating
from darts_lite.training.optimizers import cosine, weight_metrics
from darts_lite.training.search_state import Batch, Draws, SearchState


def search_step(state: SearchState, train: Batch, validation: Batch, *, learn_alphas: bool) -> dict[str, Tensor]:
    """Move alphas (unless the weights are warming up) and weights once; returns 0-d metrics.

    Nothing in it waits for the device, but of a sparse relaxation: once for each sample, to know what is drawn.
    """
    learning_rate = cosine(state.clock.progress, state.config.lr, state.config.lr_min)
    draws = state.supernet.draw(state.clock.generator, len(train[0]))
    learn_alphas = learn_alphas and state.method.learns
    metrics = alpha_step(state, train, validation, learning_rate, draws) if learn_alphas else {}
    return metrics | weight_step(state, train, learning_rate, draws)


@dataclass(frozen=True)
class AlphaGradient:
    """What one evaluation of the outer loss gives."""

    loss: Tensor  # 0-d, without penalties
    penalties: list[Tensor]  # each 0-d
    gradients: Tensors  # of loss and penalties, one for each parameter of the architecture; zeros where they do not depend on it


@record_function("alphas")
def alpha_step(
    state: SearchState, train: Batch, validation: Batch, learning_rate: Tensor, draws: Draws = None
) -> dict[str, Tensor]:
    """One gradient of alpha and one step along it; `learning_rate` (0-d) is that of the weights, which solvers look ahead with."""
    found = alpha_gradient(state, train, validation, learning_rate, draws)
    move_alphas(state, found)
    return {
        "validation/loss": found.loss,
        "gradient/alphas": torch.nn.utils.get_total_norm(found.gradients),
        "lr/alphas": state.alpha_optimizer.param_groups[0]["lr"].clone(),
    }


def alpha_gradient(
    state: SearchState, train: Batch, validation: Batch, learning_rate: Tensor, draws: Draws = None
) -> AlphaGradient:
    """The gradient at the logits that the architecture has now, with one sample of the mixing; moves nothing but the clock's generator.

    With the generator's state restored between two calls, both see the same noise: a method may compare moved logits so.
    """
    method, clock, optimizer = state.method, state.clock, state.weight_optimizer
    mixing = state.architecture.sample(clock.progress, clock.generator)
    sampled, logits, drawn = flatten(mixing), tuple(state.architecture.parameters()), state.drawn(mixing)

    def loss(batch: Batch, precision: str) -> Loss:
        return lambda weights, tensors: state.forward(
            batch, weights, unflatten(mixing, tensors), draws, precision, drawn=drawn
        )[0]

    problem = Bilevel(
        inner=loss(train, state.precision),
        outer=loss(validation, state.precision),
        probe=loss(train, "fp32"),
        weights=tuple(weight.detach() for weight in optimizer.weights),
        mixing=tuple(tensor.detach() for tensor in sampled),
        lookahead=optimizer.lookahead(learning_rate),
    )
    with full_float32() if method.solver.needs_float32 else nullcontext():
        outer_loss, hypergradient = method.solver(problem)

    # The rest of the chain: back through the relaxation with the same noise; penalties are functions of alpha themselves.
    penalties = [penalty(_view(state, mixing)) for penalty in method.penalties]
    ends = [*zip(sampled, hypergradient, strict=True), *((penalty, None) for penalty in penalties)]
    ends = [(end, gradient) for end, gradient in ends if end.requires_grad]
    if not ends:  # a relaxation that learns nothing
        return AlphaGradient(outer_loss, penalties, tuple(torch.zeros_like(one) for one in logits))
    outputs, of_outputs = zip(*ends, strict=True)
    gradients = torch.autograd.grad(outputs, logits, of_outputs, materialize_grads=True)
    return AlphaGradient(outer_loss, penalties, gradients)


def move_alphas(state: SearchState, found: AlphaGradient) -> None:
    """One step of the alpha optimizer; none once a number was not finite."""
    health, step = state.health, state.clock.step
    for logits, gradient in zip(state.architecture.parameters(), found.gradients, strict=True):
        logits.grad = gradient
    health.check("alphas", "validation loss", step, found.loss)
    health.check("alphas", "penalty", step, *found.penalties)
    health.check("alphas", "gradient", step, *found.gradients)
    gated_step(state.alpha_optimizer, state.alpha_lr, health.bad)


@record_function("weights")
def weight_step(state: SearchState, train: Batch, learning_rate: Tensor, draws: Draws = None) -> dict[str, Tensor]:
    """A fresh sample from the moved architecture, one step of SGD on the weights."""
    method, clock, health, optimizer = state.method, state.clock, state.health, state.weight_optimizer
    frozen = tuple(weight.detach() for weight in optimizer.weights)

    def attacked_loss(moved: Mixed) -> Tensor:
        with evaluating(state.supernet):
            return state.forward(train, frozen, moved, draws, drawn=state.drawn(moved))[0]

    def training_loss(moved: Mixed) -> Tensor:
        return state.forward(train, optimizer.weights, moved, draws, drawn=state.drawn(moved))[0]

    with torch.no_grad():
        mixing = state.architecture.sample(clock.progress, clock.generator)
    mixing = method.perturbation(mixing, state.architecture.tables, attacked_loss, clock.progress, clock.generator)

    drawn, statistics = state.drawn(mixing), optimizer.statistics()
    optimizer.zero_grad()
    with tracking_statistics(state.supernet):  # no other pass of a step moves them
        loss, logits = state.forward(train, optimizer.weights, mixing, draws, drawn=drawn)
    loss.backward()
    method.regularization(optimizer.gradients(), training_loss, mixing, clock.progress)
    norm = optimizer.clip()
    optimizer.check(health, clock.step, loss, norm)
    with undrawn_kept(state.supernet, drawn, optimizer.momentum()):
        optimizer.step(learning_rate, health.bad, statistics)
    return weight_metrics(loss, logits, train[1], norm, learning_rate)


def _view(state: SearchState, mixing: Mixed) -> ArchitectureView:
    architecture = state.architecture
    return ArchitectureView(
        logits=dict(architecture.operations),
        mixing={cell: one.operations for cell, one in mixing.items()},
        expected={cell: one.operations for cell, one in architecture.expected(state.clock.progress).items()},
        tables=architecture.tables,
        costs=state.costs,
        progress=state.clock.progress,
    )
