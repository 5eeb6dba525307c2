"""What the parts of a method are given: each place is tried with a dummy part that looks at all of it."""

import pytest
import tiny
import torch
from torch.func import functional_call

from darts_lite.errors import UserError
from darts_lite.methods.architecture import flatten, unflatten
from darts_lite.methods.build import build_method
from darts_lite.methods.phases import Phase
from darts_lite.methods.solvers import SOLVERS
from darts_lite.methods.solvers.bilevel import Bilevel, Lookahead
from darts_lite.training.search_step import alpha_gradient, alpha_step, move_alphas, weight_step

pytestmark = pytest.mark.usefixtures("tiny_folder")
RATE = torch.tensor(0.1)


def ready(**changes):
    """The state of a search before its first step, and its two batches."""
    state, feeds, _ = tiny.training(tiny.search_config(edge_weights=True, **changes))
    return state, [tiny.fed(feed, 0, state.clock.generator) for feed in feeds]


def smooth(state):
    """The mixing of a state, moved a little."""
    mixing = state.architecture.expected(state.clock.progress)
    return unflatten(mixing, tuple(0.9 * tensor.detach() for tensor in flatten(mixing)))


def buffers(state):
    return tiny.frozen({name: tensor.clone() for name, tensor in state.supernet.named_buffers()})


# Regularizations


class Spy:
    """Keeps what it is given."""

    def __call__(self, *given):
        self.given = given
        return given[0]


def test_a_regularization_gets_every_weight_by_its_name():
    """One that the loss does not depend on has no gradient, and none of the others takes its place."""
    spy = Spy()
    state, (train, _) = ready(regularization=spy)
    state.supernet.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
    state.weight_optimizer = type(state.weight_optimizer)(state.supernet, state.config)
    weight_step(state, train, RATE)
    gradients, _, mixing, progress = spy.given
    assert list(gradients) == [name for name, _ in state.supernet.named_parameters()]
    assert all(weight is state.supernet.get_parameter(name) for name, (weight, _) in gradients.items())
    assert [name for name, (_, gradient) in gradients.items() if gradient is None] == ["unused"]
    assert mixing.keys() == {"normal", "reduce"} and progress is state.clock.progress


class AlignmentGradient:
    """Adds the difference of the weights' gradients at two mixings, as Lambda-DARTS does."""

    def __call__(self, gradients, loss, mixing, progress):
        weights = [weight for weight, gradient in gradients.values() if gradient is not None]
        self.found = []
        for factor in (1.01, 0.99):
            self.found.append(torch.autograd.grad(loss(tiny.scaled(mixing, factor)), weights))
        for (_, gradient), plus, minus in zip(gradients.values(), *self.found, strict=True):
            gradient.add_(plus - minus, alpha=10.0)


def test_a_regularization_may_differentiate_the_loss_at_other_mixings():
    part = AlignmentGradient()
    (state, (train, _)), (plain, _) = ready(regularization=part, gradient_clip=None), ready(gradient_clip=None)
    weight_step(state, train, RATE)
    weight_step(plain, train, RATE)
    pairs = zip(state.supernet.parameters(), plain.supernet.parameters(), *part.found, strict=True)
    for ours, theirs, plus, minus in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad + 10.0 * (plus - minus), rtol=1e-4, atol=1e-6)
    assert any((plus - minus).abs().max() > 1e-5 for plus, minus in zip(*part.found, strict=True))
    assert buffers(state) == buffers(plain), "statistics move once a step"


# Perturbations


class Attack:
    """Looks at the loss, then gives the mixing back."""

    def __call__(self, mixing, tables, loss, progress, generator):
        self.tables, tensors = tables, tuple(tensor.clone().requires_grad_() for tensor in flatten(mixing))
        self.mixing, value = mixing, loss(unflatten(mixing, tensors))
        self.loss, self.gradients = value.detach(), torch.autograd.grad(value, tensors)
        self.again = loss(mixing)
        return mixing


def test_a_perturbation_gets_the_loss_of_the_network_in_eval_mode_with_frozen_weights():
    part = Attack()
    (state, (train, _)), (plain, _) = ready(perturbation=part), ready()
    for network in (state.supernet, plain.supernet):
        for number, buffer in enumerate(network.buffers()):
            if buffer.is_floating_point():
                torch.nn.init.uniform_(buffer, 0.5, 1.5, generator=torch.Generator().manual_seed(number))
    plain.supernet.eval()
    weights = {name: weight.detach() for name, weight in plain.supernet.named_parameters()}

    def loss(mixing):
        logits = functional_call(plain.supernet, weights, (train[0], mixing))
        return torch.nn.functional.cross_entropy(logits, train[1])

    weight_step(state, train, RATE)
    assert part.tables is state.architecture.tables
    tensors = tuple(tensor.clone().requires_grad_() for tensor in flatten(part.mixing))
    value = loss(unflatten(part.mixing, tensors))
    torch.testing.assert_close(part.loss, value.detach(), rtol=1e-6, atol=0)
    for ours, theirs in zip(part.gradients, torch.autograd.grad(value, tensors), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert not part.again.requires_grad, "neither weights nor mixing need a gradient"
    assert state.supernet.training
    plain.supernet.train()
    weight_step(plain, train, RATE)
    assert tiny.frozen(state.state_dict()["weights"]) == tiny.frozen(plain.state_dict()["weights"]), "as if not asked"


# Penalties


class MacsPenalty:
    """Expected multiply-accumulates, in millions."""

    def __call__(self, view):
        self.view = view
        return sum((view.mixing[cell] * costs.macs).sum() / 1e6 for cell, costs in view.costs.items())


def test_a_penalty_sees_what_each_operation_costs_on_each_edge():
    part = MacsPenalty()
    state, batches = ready(penalties=[part])
    alpha_step(state, *batches, RATE)
    assert part.view.tables is state.architecture.tables
    for cell, costs in part.view.costs.items():
        table = part.view.tables[cell]
        assert costs.macs.shape == costs.parameters.shape == table.alive.shape
        for free in ("none", "max_pool_3x3"):
            assert not costs.macs[:, table.operations.index(free)].any()
        assert (costs.parameters[:, table.operations.index("sep_conv_3x3")] > 0).all()
    skip = part.view.tables["reduce"].operations.index("skip_connect")  # a convolution where it halves the image
    assert [bool(value) for value in part.view.costs["reduce"].macs[:, skip]] == [True, True, True, True, False]


def test_a_penalty_on_costs_lowers_them():
    def expected(factor):
        class Weighted(MacsPenalty):
            def __call__(self, view):
                return factor * super().__call__(view)

        state, feeds, step = tiny.training(tiny.search_config(penalties=[Weighted()], alpha_lr=0.1))
        for number in range(4):
            [feed.load(number) for feed in feeds]
            step(state)
            state.clock.tick()
        mixing = state.architecture.expected(state.clock.progress)
        return sum(float((mixing[cell].operations.detach() * costs.macs).sum()) for cell, costs in state.costs.items())

    assert expected(100.0) < 0.95 * expected(0.0)


# The gradient of alpha


class Noisy:
    """A relaxation with noise that is as large as the mixing."""

    def sample(self, logits, table, progress, generator):
        return torch.softmax(logits + torch.randn(logits.shape, generator=generator), -1)

    def expected(self, logits, table, progress):
        return torch.softmax(logits, -1)


def test_a_gradient_is_taken_several_times_before_a_step():
    """At moved logits, with the same batches and the same noise; nothing moves but by `move_alphas`."""
    state, batches = ready(relaxation=Noisy())
    start = state.clock.generator.get_state()
    before = tiny.frozen({name: state.state_dict()[name] for name in ("weights", "architecture", "alpha_optimizer")})

    def gradient():
        state.clock.generator.set_state(start)
        return alpha_gradient(state, *batches, RATE)

    first, same = gradient(), gradient()
    assert tiny.frozen(first.gradients) == tiny.frozen(same.gradients)
    other = alpha_gradient(state, *batches, RATE)
    assert tiny.frozen(first.gradients) != tiny.frozen(other.gradients), "other noise"
    logits = list(state.architecture.parameters())
    standing, direction, epsilon = (
        [one.detach().clone() for one in logits],
        [one.sign() for one in first.gradients],
        1e-2,
    )
    with torch.no_grad():
        torch._foreach_add_(logits, direction, alpha=epsilon)
    moved = gradient()
    with torch.no_grad():
        torch._foreach_copy_(logits, standing)
    slope = sum(float((g * d).sum()) for g, d in zip(first.gradients, direction, strict=True))
    assert float(moved.loss - first.loss) == pytest.approx(epsilon * slope, rel=0.1)
    assert tiny.frozen({name: state.state_dict()[name] for name in before}) == before
    move_alphas(state, first)
    assert tiny.frozen(state.state_dict()["architecture"]) != before["architecture"]


class Fixed(Noisy):
    """A relaxation that learns nothing."""

    def sample(self, logits, table, progress, generator):
        return torch.full_like(logits, 0.25, requires_grad=False)


@pytest.mark.parametrize("solver", ["first_order", "unrolled", "unrolled_exact"])
def test_where_the_loss_does_not_depend_on_the_mixing_its_gradient_is_zeros(solver):
    weights, mixing = (torch.ones(2),), (torch.ones(3), torch.ones(2, 2))
    ahead = Lookahead(RATE, 0.9, 0.0, (torch.zeros(2),))
    losses = [lambda w, m: w[0].square().sum()] * 3
    loss, found = SOLVERS[solver]()(Bilevel(*losses, weights, mixing, ahead))
    assert loss.isfinite() and tiny.frozen(found) == tiny.frozen(tuple(map(torch.zeros_like, mixing)))


@pytest.mark.parametrize("penalties", [[], [MacsPenalty()]])
def test_a_relaxation_that_learns_nothing_has_zeros_for_its_gradient(penalties):
    state, batches = ready(relaxation=Fixed(), penalties=penalties, alpha_weight_decay=0.0)
    found = alpha_gradient(state, *batches, RATE)
    operations = found.gradients[: len(state.architecture.operations)]
    assert tiny.frozen(operations) == tiny.frozen(tuple(map(torch.zeros_like, operations)))
    assert found.loss.isfinite() and alpha_step(state, *batches, RATE)["gradient/alphas"].isfinite()


# Phases


def test_a_phase_has_learning_rates_and_candidates_of_its_own():
    """`alive` sees the whole state of the phase before, and may ask its judge."""
    seen = {}

    def best(state):
        mixing = state.architecture.expected(state.clock.progress)
        seen.update(done=state.clock.done, judged=state.judge(mixing), lr=state.config.lr)
        return {cell: table.alive & (costs.macs == 0) for (cell, table), costs in zip(
            state.architecture.tables.items(), state.costs.values(), strict=True)}  # fmt: skip

    def phases(config):
        return [Phase(1), Phase(1, keeps="weights", alive=best, settings={"lr": 0.5, "lr_min": 0.4, "alpha_lr": 0.03})]

    tiny.run(tiny.search_config(phases=phases, log_every=1, alpha_lr=0.1, lr=0.025, lr_min=0.001))
    assert seen["done"] == 3 and 0 <= seen["judged"][0] <= 1 and seen["judged"][1] > 0 and seen["lr"] == 0.025
    steps = [line["values"] for line in tiny.read_lines("run/metrics.jsonl") if line["kind"] == "step"]
    assert [values["lr/alphas"] for values in steps] == pytest.approx([0.1] * 3 + [0.03] * 3)
    assert steps[0]["lr/weights"] == pytest.approx(0.025) and steps[3]["lr/weights"] == pytest.approx(0.5)
    operations = tiny.read_lines("run/alphas.jsonl")[-1]["mixing"]["normal"]["operations"]
    assert all(row[tiny.SPACE.candidates.index("sep_conv_3x3")] is None for row in operations)


def test_a_phase_changes_nothing_else():
    def phases(config):
        return [Phase(1, settings={"epochs": 3})]

    with pytest.raises(UserError, match="phases: unknown name"):
        build_method(tiny.search_config(phases=phases))
