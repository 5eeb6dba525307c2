"""Random numbers of a forward pass are drawn once a step, and every pass of it gets the same ones."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from darts_lite.methods.solvers.unrolled import Unrolled
from darts_lite.spaces.network import Network
from darts_lite.spaces.table import Mixing
from darts_lite.training.search_step import alpha_gradient, search_step

pytestmark = pytest.mark.usefixtures("tiny_folder")
RATE = torch.tensor(0.1, dtype=torch.float64)


class NoisyNetwork(nn.Module):
    """Smooth; a fraction of the mixing goes to noise of the features' shape. `redraw`: anew in every pass, whatever was drawn."""

    def __init__(self, classes, redraw=False):
        super().__init__()
        self.first, self.second = nn.Linear(64, 8), nn.Linear(8, classes)
        self.redraw, self.passes = redraw, []

    def draw(self, generator, n):
        return {"noise": torch.randn(n, 8, generator=generator, dtype=torch.float64)}

    def forward(self, images, mixing, *, draws, drawn=None):
        noise = torch.randn(len(images), 8, dtype=torch.float64) if self.redraw else draws["noise"]
        self.passes.append(noise)
        weights = mixing["normal"].operations[0]
        x = F.silu(self.first(images.double().flatten(1)))
        x = weights[0] * noise * x + weights[1] * torch.tanh(x) + weights[2] * x + weights[3] * noise
        return self.second(x)


def prepared(solver, network):
    state, feeds, _ = tiny.training(tiny.search_config(solver=solver, momentum=0.0, weight_decay=0.0))
    batches = [tiny.fed(feed, 0, state.clock.generator) for feed in feeds]
    state.supernet = network.double()
    state.weight_optimizer = type(state.weight_optimizer)(state.supernet, state.config)
    state.architecture.double()
    return state, batches


def hypergradient(solver, redraw=False):
    """That of the logits, with the network and noise of one seed."""
    torch.manual_seed(0)
    state, batches = prepared(solver, NoisyNetwork(3, redraw))
    draws = state.supernet.draw(torch.Generator().manual_seed(1), len(batches[0][0]))
    return torch.cat([one.flatten() for one in alpha_gradient(state, *batches, RATE, draws).gradients])


def test_unrolled_is_as_exact_with_noise_as_without():
    """Its two probes see the same numbers; drawn anew, their difference is noise."""
    exact = hypergradient("unrolled_exact")
    first = hypergradient("first_order")
    error, term = (hypergradient("unrolled") - exact).norm(), (exact - first).norm()
    assert term > 1e-4 and error < 1e-3 * term
    fine = (hypergradient(Unrolled(radius=0.001)) - exact).norm()
    assert fine < 0.05 * error, "what is left is the error of the differences, which falls with the square of eps"
    assert (hypergradient("unrolled", redraw=True) - exact).norm() > 2 * term


@pytest.mark.parametrize(("solver", "passes"), [("first_order", 2), ("unrolled", 5), ("unrolled_exact", 3)])
def test_a_step_draws_once(solver, passes, monkeypatch):
    """The numbers depend on the step alone."""
    drawn, given = [], []
    forward = Network.forward

    def draw(self, generator, n):
        drawn.append({"noise": torch.randn(n, generator=generator)})
        return drawn[-1]

    def spied(self, images, mixing, *, draws, drawn):
        assert len(draws["noise"]) == len(images)
        given.append(draws)
        return forward(self, images, mixing)

    monkeypatch.setattr(Network, "draw", draw)
    monkeypatch.setattr(Network, "forward", spied)
    for _ in range(2):
        state, feeds, step = tiny.training(tiny.search_config(solver=solver))
        [feed.load(0) for feed in feeds]
        step(state)
    assert len(drawn) == 2 and torch.equal(drawn[0]["noise"], drawn[1]["noise"])
    assert [one is drawn[0] for one in given] == [True] * passes + [False] * passes
    assert all(one is drawn[1] for one in given[passes:])
    state.clock.tick()
    step(state)
    assert not torch.equal(drawn[2]["noise"], drawn[1]["noise"])


def test_a_network_without_noise_draws_nothing():
    state, feeds, _ = tiny.training(tiny.search_config())
    batches = [tiny.fed(feed, 0, state.clock.generator) for feed in feeds]
    before = state.clock.generator.get_state()
    assert state.supernet.draw(state.clock.generator, 16) is None
    assert torch.equal(state.clock.generator.get_state(), before)
    assert search_step(state, *batches, learn_alphas=True)["train/loss"].isfinite()
    assert isinstance(state.architecture.expected(state.clock.progress)["normal"], Mixing)


def test_an_evaluation_draws_for_itself_and_always_alike(monkeypatch):
    drawn = []
    forward = Network.forward

    def draw(self, generator, n):
        drawn.append(torch.rand(n, generator=generator))
        return {"noise": drawn[-1]}

    monkeypatch.setattr(Network, "draw", draw)
    monkeypatch.setattr(Network, "forward", lambda self, images, mixing, *, draws, **_: forward(self, images, mixing))
    state, feeds, _ = tiny.training(tiny.search_config())
    state.validation = feeds[1].part
    mixing = state.architecture.expected(state.clock.progress)
    before = state.clock.generator.get_state()
    assert state.judge(mixing) == state.judge(mixing)
    half = len(drawn) // 2
    assert half and all(map(torch.equal, drawn[:half], drawn[half:]))
    assert torch.equal(state.clock.generator.get_state(), before), "the next step draws what it would have drawn"
