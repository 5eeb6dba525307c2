"""One contract for every alpha optimizer; plain gradient descent as exponentiated gradient."""

from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

from darts_lite.hardware.gated import gated_step, load_optimizer_state, optimizer_state
from darts_lite.methods.alpha_optimizers import ALPHA_OPTIMIZERS
from darts_lite.settings.configs import SearchConfig
from darts_lite.training.search_step import alpha_step

CONFIG = SearchConfig(alpha_weight_decay=0.01, alpha_betas=[0.5, 0.9])
FINE, BAD = torch.tensor(0.0), torch.tensor(1.0)
every_optimizer = pytest.mark.parametrize("name", ALPHA_OPTIMIZERS)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def logits():
    return [nn.Parameter(draw(3, 4)), nn.Parameter(draw(5, seed=1))]


def advance(optimizer, parameters, steps, bad=FINE, lr=0.1):
    for step in steps:
        for number, one in enumerate(parameters):
            one.grad = draw(*one.shape, seed=10 * step + number)
        gated_step(optimizer, torch.tensor(lr), bad)


def bits(optimizer, parameters):
    return tiny.frozen({"logits": [one.detach() for one in parameters], "state": optimizer_state(optimizer)})


@every_optimizer
def test_it_moves_against_the_gradient_at_the_given_rate(name):
    parameters = logits()
    before = [one.detach().clone() for one in parameters]
    optimizer = ALPHA_OPTIMIZERS[name]()(parameters, replace(CONFIG, alpha_weight_decay=0.0))
    advance(optimizer, parameters, [0], lr=0.0)
    assert all(map(torch.equal, parameters, before))
    advance(optimizer, parameters, [0])
    for one, old in zip(parameters, before, strict=True):
        assert ((one - old) * one.grad < 0).all()


@every_optimizer
def test_nothing_moves_once_a_number_was_not_finite(name):
    parameters = logits()
    optimizer = ALPHA_OPTIMIZERS[name]()(parameters, CONFIG)
    advance(optimizer, parameters, [0])
    before = bits(optimizer, parameters)
    parameters[0].grad.fill_(torch.nan)
    gated_step(optimizer, torch.tensor(0.1), BAD)
    advance(optimizer, parameters, [1], BAD)
    assert bits(optimizer, parameters) == before
    advance(optimizer, parameters, [1])
    assert bits(optimizer, parameters) != before


@every_optimizer
def test_its_state_goes_on_in_another_one(name):
    """In the same tensors, which a graph may hold; a state that does not fit is refused."""
    whole, resumed = logits(), logits()
    first, second = (ALPHA_OPTIMIZERS[name]()(one, CONFIG) for one in (whole, resumed))
    places = [t.data_ptr() for tensors in optimizer_state(second).values() for t in tensors.values()]
    advance(first, whole, [0, 1])
    with torch.no_grad():
        for one, other in zip(resumed, whole, strict=True):
            one.copy_(other)
    load_optimizer_state(second, optimizer_state(first))
    advance(first, whole, [2, 3]), advance(second, resumed, [2, 3])
    assert bits(first, whole) == bits(second, resumed)
    assert places == [t.data_ptr() for tensors in optimizer_state(second).values() for t in tensors.values()]


def test_adam_is_that_of_torch():
    ours, theirs = logits(), logits()
    reference = torch.optim.Adam(theirs, 0.1, betas=(0.5, 0.9), weight_decay=0.01)
    optimizer = ALPHA_OPTIMIZERS["adam"]()(ours, CONFIG)
    for step in range(3):
        advance(optimizer, ours, [step])
        for one, other in zip(ours, theirs, strict=True):
            other.grad = one.grad.clone()
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_sgd_by_hand():
    one, _ = parameters = logits()
    before = one.detach().clone()
    advance(ALPHA_OPTIMIZERS["sgd"]()(parameters, CONFIG), parameters, [0])
    torch.testing.assert_close(one.detach(), before - 0.1 * (one.grad + 0.01 * before), rtol=0, atol=1e-7)
    assert not optimizer_state(ALPHA_OPTIMIZERS["sgd"]()(parameters, CONFIG))


def test_with_an_identity_backward_sgd_is_exponentiated_gradient():
    """theta <- theta exp(-rate g), normalized (GAEA), where theta = softmax(logits) and g is taken as the gradient of the logits."""
    one, gradient = nn.Parameter(draw(3, 4)), draw(3, 4, seed=1)
    theta = one.detach().softmax(-1)
    optimizer = ALPHA_OPTIMIZERS["sgd"]()([one], replace(CONFIG, alpha_weight_decay=0.0))
    one.grad = gradient.clone()
    gated_step(optimizer, torch.tensor(0.1), FINE)
    moved = theta * (-0.1 * gradient).exp()
    torch.testing.assert_close(one.detach().softmax(-1), moved / moved.sum(-1, keepdim=True), rtol=0, atol=1e-6)


class OwnOptimizer:
    """Sign descent: an optimizer of the user's own, with the gate."""

    class Sign(torch.optim.Optimizer):
        def __init__(self, logits):
            super().__init__(logits, {"lr": torch.zeros(())})

        @torch.no_grad()
        def step(self):
            for one in self.param_groups[0]["params"]:
                one -= (1 - self.found_inf) * self.param_groups[0]["lr"] * one.grad.sign()

    def __call__(self, logits, config):
        return self.Sign(logits)


@pytest.mark.usefixtures("tiny_folder")
@pytest.mark.parametrize("optimizer", [*ALPHA_OPTIMIZERS, OwnOptimizer()], ids=[*ALPHA_OPTIMIZERS, "own"])
def test_a_search_with_it(optimizer):
    config = tiny.search_config(alpha_optimizer=optimizer, alpha_lr=0.05)
    state, feeds, _ = tiny.training(config)
    train, validation = (tiny.fed(feed, 0, state.clock.generator) for feed in feeds)
    before = [one.detach().clone() for one in state.architecture.parameters()]
    alpha_step(state, train, validation, torch.tensor(0.1))
    moves = [(old - new).detach() for old, new in zip(before, state.architecture.parameters(), strict=True)]
    assert all(move.abs().max() > 0 for move in moves)
    if isinstance(optimizer, OwnOptimizer):
        assert {round(float(size), 4) for move in moves for size in move.abs().unique()} <= {0.0, 0.05}
    assert tiny.run(config)["steps"] == tiny.STEPS
