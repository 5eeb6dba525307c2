"""Methods against plain loops: three steps in float64 over a supernet with one module an edge and operation, its own SGD, no parts."""

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from darts_lite.benchmarking.gate import taken_apart
from darts_lite.benchmarking.reference import ReferenceCell, ReferenceSupernet
from darts_lite.settings.parts import PartConfig
from darts_lite.spaces.table import Mixing
from darts_lite.training import search_state
from darts_lite.training.search_step import AlphaGradient, alpha_gradient, move_alphas, search_step

pytestmark = pytest.mark.usefixtures("tiny_folder")
METHODS = ("gaea", "drnas", "beta_darts", "gdas", "single_path")
OPERATIONS = tuple(tiny.SPACE.candidates)


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def begun(composed, method, **changes):
    """The state of a tiny search with a method before its first step, and its two feeds; images are float32."""
    small = tiny.search_config()
    size = {key: getattr(small, key) for key in ("dataset", "space", "cells", "channels", "epochs", "batch_size")}
    config = replace(composed("search", [f"method={method}"]), warmup_epochs=0, **size)
    state, feeds, _ = tiny.training(replace(config, **changes))
    return state, feeds


def batches(state, feeds):
    """Those of the step that is next."""
    for feed in feeds:
        feed.load(state.clock.done)
    return [(images.double(), labels) for images, labels in (feed.batch(state.clock.generator) for feed in feeds)]


class DrawnCell(ReferenceCell):
    """A cell that calls one operation an edge, so that nothing else has a gradient, and SGD passes over what has none."""

    def mix(self, edge, x, weights):
        (column,) = weights.nonzero().flatten().tolist()
        stride = self.strides[edge]
        if OPERATIONS[column] == "none":
            return torch.zeros_like(x[:, :, ::stride, ::stride])
        return weights[column] * self.edges[edge][OPERATIONS[column]](x)


# Mixings, written down a second time: (logits (E, O), progress, generator) -> (E, O)


def gumbel(logits, progress, generator):
    noise = -torch.empty_like(logits).exponential_(generator=generator).log()
    soft = torch.softmax((torch.log_softmax(logits, -1) + noise) / (10 - 9.9 * progress), -1)
    return F.one_hot(soft.argmax(-1), len(OPERATIONS)) * (1 - soft.detach() + soft)


def dirichlet(logits, progress, generator):
    concentration = F.elu(logits) + 1
    gamma = torch._standard_gamma(concentration + 1, generator=generator)
    uniform = torch.exp(-torch.empty_like(logits).exponential_(generator=generator))
    share = gamma * uniform ** (1 / concentration)  # Gamma(c) samples (Marsaglia & Tsang)
    return share / share.sum(-1, keepdim=True)


def uniform(logits, progress, generator):
    return F.one_hot(torch.empty_like(logits).exponential_(generator=generator).argmax(-1), len(OPERATIONS)).double()


def plain(logits, progress, generator):
    return torch.softmax(logits, -1)


SAMPLES = {"gaea": plain, "drnas": dirichlet, "beta_darts": plain, "gdas": gumbel, "single_path": uniform}


class ByHand:
    """A method as one would write it down without parts, over the reference with the weights of a state."""

    def __init__(self, method, state):
        self.method, self.config = method, state.config
        self.steps = state.clock.steps
        self.network = ReferenceSupernet(2, 3, 2, 3, 1, OPERATIONS).double()
        self.network.load_state_dict(taken_apart(state.supernet, state.supernet.state_dict()), strict=False)
        for cell in self.network.cells if method in ("gdas", "single_path") else ():
            cell.__class__ = DrawnCell
        self.sgd = torch.optim.SGD(self.network.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
        logits = state.architecture.operations.items()
        self.logits = {cell: nn.Parameter(one.detach().clone()) for cell, one in logits}
        rate = {"drnas": 6e-4}.get(method, 3e-4)
        self.adam = torch.optim.Adam(self.logits.values(), rate, betas=(0.5, 0.999), weight_decay=1e-3)

    def sample(self, progress, generator):
        return {cell: SAMPLES[self.method](one, progress, generator) for cell, one in self.logits.items()}

    def loss(self, batch, mixing):
        mixed = {cell: Mixing(one) for cell, one in mixing.items()}
        return F.cross_entropy(self.network(batch[0], mixed), batch[1])

    def step(self, number, train, validation, generator):
        progress = number / self.steps
        if self.method != "single_path":
            self.alpha_step(progress, validation, self.sample(progress, generator))
        with torch.no_grad():
            mixing = self.sample(progress, generator)
        self.sgd.param_groups[0]["lr"] = 0.001 + 0.012 * (1 + math.cos(math.pi * progress))
        self.sgd.zero_grad()
        loss = self.loss(train, mixing)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.sgd.step()
        return loss.detach()

    def alpha_step(self, progress, validation, mixing):
        loss = self.loss(validation, mixing)
        if self.method == "beta_darts":
            rows = torch.cat(list(self.logits.values()))
            loss = loss + 50 * progress * rows.exp().sum(-1).log().mean()
        if self.method == "gaea":
            thetas = list(mixing.values())
            gradients = torch.autograd.grad(loss, thetas)
            with torch.no_grad():
                for logits, theta, gradient in zip(self.logits.values(), thetas, gradients, strict=True):
                    moved = theta * (-0.1 * gradient).exp()
                    logits.copy_((moved / moved.sum(-1, keepdim=True)).log())
            return
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("method", METHODS)
def test_three_steps_are_those_of_a_plain_loop(method, seed, composed, in_float64):
    state, feeds = begun(composed, method, seed=seed)
    state.clock.steps = 10  # progress that counts after three steps: else beta decay would weigh nothing
    by_hand = ByHand(method, state)
    start = {cell: one.detach().clone() for cell, one in state.architecture.operations.items()}
    for number in range(3):
        train, validation = batches(state, feeds)
        generator = torch.Generator().set_state(state.clock.generator.get_state())
        metrics = search_step(state, train, validation, learn_alphas=True)
        loss = by_hand.step(number, train, validation, generator)
        torch.testing.assert_close(metrics["train/loss"], loss, rtol=0, atol=1e-10)
        state.clock.tick()
    for cell, logits in state.architecture.operations.items():
        assert torch.equal(logits, start[cell]) == (method == "single_path")
        ours, theirs = logits.detach(), by_hand.logits[cell].detach()
        if method == "gaea":  # which have another origin
            ours, theirs = ours.softmax(-1), theirs.softmax(-1)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    expected = by_hand.network.state_dict()
    for name, tensor in taken_apart(state.supernet, state.supernet.state_dict()).items():
        if "running" not in name:
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-9, msg=name)


# Steps that learn of the architecture, and what they ask of the device ---------------


READS = {
    ("gaea", "first_order"): 0,
    ("drnas", "first_order"): 0,
    ("gdas", "first_order"): 2,
    ("gdas", "unrolled"): 2,
    ("single_path", "first_order"): 1,
}


@pytest.mark.parametrize(("method", "solver"), READS)
def test_what_was_drawn_is_read_once_for_each_sample(method, solver, composed, monkeypatch):
    """Not in every pass of a solver; where nothing is drawn, nothing waits for the device."""
    reads = READS[method, solver]
    state, feeds = begun(composed, method, solver=PartConfig(solver))
    asked, read = [], search_state.drawn_pairs
    monkeypatch.setattr(search_state, "drawn_pairs", lambda *given: asked.append(1) or read(*given))
    for feed in feeds:
        feed.load(0)
    train, validation = (feed.batch(state.clock.generator) for feed in feeds)
    with nullcontext() if reads else tiny.NoSync():
        metrics = search_step(state, train, validation, learn_alphas=True)
    assert len(asked) == reads
    assert ("validation/loss" in metrics) == state.method.learns, "no pass for alphas where there is nothing to learn"


def test_none_has_no_gradient_of_its_own_in_gaea(composed):
    """It has no share in the output; a softmax would push it up or down with its edge."""
    state, feeds = begun(composed, "gaea")
    for feed in feeds:
        feed.load(0)
    found = alpha_gradient(state, *(feed.batch(state.clock.generator) for feed in feeds), torch.tensor(0.1))
    for gradient in found.gradients:
        assert not gradient[:, OPERATIONS.index("none")].any() and gradient.abs().amax(1).all()


def test_gaea_on_a_linear_loss(composed):
    """theta <- theta exp(-rate g), each row normalized, step after step; starting from equal shares."""
    state, _ = begun(composed, "gaea")
    architecture, generator = state.architecture, torch.Generator().manual_seed(0)
    gradients = {cell: torch.randn(one.shape, generator=generator) for cell, one in architecture.operations.items()}
    for _ in range(5):
        mixing = architecture.sample(state.clock.progress, generator)
        loss = sum((gradients[cell] * one.operations).sum() for cell, one in mixing.items())
        found = torch.autograd.grad(loss, list(architecture.parameters()))
        move_alphas(state, AlphaGradient(loss.detach(), [], found))
    for cell, one in architecture.expected(state.clock.progress).items():
        expected = torch.softmax(-5 * 0.1 * gradients[cell], -1)
        torch.testing.assert_close(one.operations.detach(), expected, rtol=0, atol=1e-6)
