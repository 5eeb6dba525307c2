"""Solvers against closed forms and finite differences, in float64: no network's shortcut can hide an error here.

`unrolled` is an approximation whose error falls with the square of its radius on a smooth network; on a ReLU network it
does not, and there the error is recorded (`record_property`, and printed under -s) rather than judged.
"""

from types import SimpleNamespace

import pytest
import tiny
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from darts_lite.benchmarking.reference import CANDIDATES, ReferenceSupernet
from darts_lite.methods.solvers import SOLVERS
from darts_lite.methods.solvers.bilevel import Bilevel, Lookahead
from darts_lite.methods.solvers.unrolled import Unrolled
from darts_lite.operations.layers import BatchNorm, tracking_statistics

FIRST_ORDER, UNROLLED, EXACT = SOLVERS["first_order"], SOLVERS["unrolled"], SOLVERS["unrolled_exact"]
MOMENTUM, WEIGHT_DECAY = 0.9, 3e-4


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lookahead(weights, learning_rate=0.1):
    """A step from nonzero momentum, with weight decay."""
    velocity = tuple(0.1 * draw(*w.shape, seed=100 + i).to(w) for i, w in enumerate(weights))
    return Lookahead(weights[0].new_tensor(learning_rate), MOMENTUM, WEIGHT_DECAY, velocity)


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def difference(a, b):
    """||a - b|| / ||b||."""
    return float((flat(a) - flat(b)).norm() / flat(b).norm())


# A quadratic with a closed form -----------------------------------------------


def quadratic():
    """A problem, its outer loss and hypergradient of each order; weights w (10,) and mixing m (5,), two tensors each.

    inner(w, m) = 1/2 w'A w + w'B m + sum_k m_k 1/2 w'D_k w,      outer(w, m) = 1/2 |w - C m|^2 + m_0 e'w + 1/2 |m|^2
    """
    n, p = 10, 5
    a, b, c, d = draw(n, n), draw(n, p, seed=1), draw(n, p, seed=2), draw(p, n, n, seed=3)
    a, d, e = a @ a.T / n, (d + d.mT) / 2, draw(n, seed=4)
    weights, mixing = (draw(2, 3, seed=5), draw(4, seed=6)), (draw(3, seed=7), draw(1, 2, seed=8))

    def inner(weights, mixing):
        w, m = flat(weights), flat(mixing)
        return w @ a @ w / 2 + w @ b @ m + torch.einsum("k,kij,i,j->", m, d, w, w) / 2

    def outer(weights, mixing):
        w, m = flat(weights), flat(mixing)
        return (w - c @ m).square().sum() / 2 + m[0] * (w @ e) + m.square().sum() / 2

    def direct(w, m):
        gradient = -c.T @ (w - c @ m) + m
        gradient[0] += w @ e
        return gradient

    step = lookahead(weights)
    w, m, v = flat(weights), flat(mixing), flat(step.velocity)
    g = a @ w + b @ m + torch.einsum("k,kij,j->i", m, d, w)
    ahead = w - step.learning_rate * (MOMENTUM * v + g + WEIGHT_DECAY * w)
    d_ahead = -step.learning_rate * (b + torch.einsum("kij,j->ik", d, w))  # (n, p)
    d_outer = ahead - c @ m + m[0] * e
    problem = Bilevel(inner, outer, inner, weights, mixing, step)
    value = {"first_order": outer((w,), (m,)), "unrolled": outer((ahead,), (m,))}
    return problem, value, {"first_order": direct(w, m), "unrolled": direct(ahead, m) + d_ahead.T @ d_outer}


@pytest.mark.parametrize("name", SOLVERS)
def test_closed_form(name):
    problem, values, gradients = quadratic()
    key = "first_order" if name == "first_order" else "unrolled"
    loss, found = SOLVERS[name]()(problem)
    # The mixed derivative is linear in w, so the differences of `unrolled` are exact but for rounding: 1e-16 / eps.
    tolerance = 1e-11 if name == "unrolled" else 1e-12
    torch.testing.assert_close(loss, values[key], rtol=1e-12, atol=0)
    torch.testing.assert_close(flat(found), gradients[key], rtol=0, atol=tolerance)


def test_the_two_hypergradients_of_the_quadratic_differ():
    gradients = quadratic()[2]
    assert difference([gradients["first_order"]], [gradients["unrolled"]]) > 0.1


def test_without_a_step_all_solvers_agree():
    problem = quadratic()[0]
    still = Lookahead(torch.zeros((), dtype=torch.float64), MOMENTUM, WEIGHT_DECAY, problem.lookahead.velocity)
    problem = Bilevel(problem.inner, problem.outer, problem.probe, problem.weights, problem.mixing, still)
    expected = FIRST_ORDER()(problem)
    for create in SOLVERS.values():
        loss, found = create()(problem)
        assert torch.equal(loss, expected[0])
        torch.testing.assert_close(flat(found), flat(expected[1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SOLVERS)
def test_an_outer_loss_at_its_optimum_gives_zero_not_nan(name):
    """v = 0 is a division by the norm of v in `unrolled`."""
    problem = quadratic()[0]
    problem = Bilevel(
        problem.inner,
        lambda weights, mixing: 0 * flat(weights).sum() + flat(mixing).square().sum(),
        problem.probe,
        problem.weights,
        problem.mixing,
        problem.lookahead,
    )
    found = SOLVERS[name]()(problem)[1]
    torch.testing.assert_close(flat(found), 2 * flat(problem.mixing), rtol=0, atol=1e-12)


# Small convolutional supernets ------------------------------------------------


SMOOTH = tuple(name for name in CANDIDATES if name != "max_pool_3x3")


def supernet(activation, candidates, dtype=torch.float64):
    """A bilevel problem over a per-edge supernet of two cells, two edges each; the normal cell has edge factors."""
    torch.manual_seed(0)
    network = ReferenceSupernet(
        4, 2, 1, classes=3, input_channels=1, candidates=candidates, reductions=(0,), activation=activation
    ).double()
    names = tuple(name for name, _ in network.named_parameters())
    weights = tuple(p.detach().to(dtype) for p in network.parameters())
    operations = (draw(2, len(candidates), seed=i).softmax(-1) for i in (1, 2))
    mixing = tuple(m.to(dtype) for m in (*operations, 1 + 0.1 * draw(2, seed=3)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None

    def loss(seed):
        images = draw(8, 1, 6, 6, seed=seed).to(dtype)
        labels = torch.arange(8) % 3

        def function(weights, mixing):
            normal, reduce, edges = mixing
            cells = {
                "normal": SimpleNamespace(operations=normal, edges=edges),
                "reduce": SimpleNamespace(operations=reduce, edges=None),
            }
            state = dict(zip(names, weights, strict=True))
            return F.cross_entropy(functional_call(network, state, (images, cells)), labels)

        return function

    inner, outer = loss(10), loss(11)
    return Bilevel(inner, outer, inner, weights, mixing, lookahead(weights))


@pytest.fixture(scope="module")
def smooth():
    """Twice differentiable: no ReLU, no max-pool."""
    return supernet(nn.SiLU, SMOOTH)


def central_differences(problem, step=1e-5):
    """Of the whole map mixing -> outer(lookahead(w, d inner / d w), mixing), one element of the mixing at a time."""

    def value(mixing):
        weights = tuple(w.clone().requires_grad_() for w in problem.weights)
        gradients = torch.autograd.grad(problem.inner(weights, mixing), weights, materialize_grads=True)
        with torch.no_grad():
            return float(problem.outer(problem.lookahead(problem.weights, gradients), mixing))

    found = []
    for i, tensor in enumerate(problem.mixing):
        for j in range(tensor.numel()):
            values = []
            for sign in (1, -1):
                moved = [t.clone() for t in problem.mixing]
                moved[i].view(-1)[j] += sign * step
                values.append(value(tuple(moved)))
            found.append((values[0] - values[1]) / (2 * step))
    return [torch.tensor(found, dtype=torch.float64)]


def test_unrolled_exact_against_central_differences(smooth, record_property):
    found = EXACT()(smooth)[1]
    error = difference(found, central_differences(smooth))
    record_property("error", error)
    print(f"unrolled_exact against central differences: {error:.1e}")
    assert error < 1e-6


def test_unrolled_error_falls_with_the_square_of_its_radius(smooth, record_property):
    exact = EXACT()(smooth)[1]
    coarse, fine = (difference(Unrolled(radius)(smooth)[1], exact) for radius in (0.01, 0.001))
    record_property("errors", (coarse, fine))
    print(f"unrolled against unrolled_exact: {coarse:.1e} at 0.01, {fine:.1e} at 0.001")
    assert coarse <= 2e-3
    assert 50 <= coarse / fine <= 200
    assert torch.equal(flat(UNROLLED()(smooth)[1]), flat(Unrolled(0.01)(smooth)[1])), "0.01 is the default"


def test_float32_is_enough_for_the_probes(smooth, record_property):
    """Radius 0.01 leaves the differences of float32 well above its rounding, as in a real search."""
    problem = supernet(nn.SiLU, SMOOTH, torch.float32)
    error = difference([g.double() for g in UNROLLED()(problem)[1]], EXACT()(smooth)[1])
    record_property("error", error)
    print(f"unrolled in float32 against unrolled_exact in float64: {error:.1e}")
    assert error < 1e-3


def test_second_order_differs_from_first(smooth):
    first = FIRST_ORDER()(smooth)[1]
    for solver in (UNROLLED(), EXACT()):
        assert difference(solver(smooth)[1], first) > 1e-3


def test_relu_error_is_recorded(record_property):
    """Each ReLU between the probes adds its jump / (2 eps): this is the published algorithm; no bound is promised."""
    problem = supernet(nn.ReLU, CANDIDATES)
    first, exact = FIRST_ORDER()(problem)[1], EXACT()(problem)[1]
    term = (flat(exact) - flat(first)).norm()
    errors = {}
    for radius in (0.01, 0.001, 0.0001):
        found = Unrolled(radius)(problem)[1]
        assert flat(found).isfinite().all()
        errors[radius] = float((flat(found) - flat(exact)).norm() / term)
    record_property("errors", errors)
    print("unrolled on a ReLU network, error relative to the second-order term:", errors)


# What every solver promises ---------------------------------------------------


class SmallNetwork(nn.Module):
    """A convolution, the package's BatchNorm with running statistics, a choice of two branches, a classifier."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = BatchNorm(4, affine=True)
        self.classifier = nn.Linear(4, 3)

    def forward(self, images, mixing):
        x = self.norm(self.convolution(images))
        x = mixing[0] * F.silu(x) + mixing[1] * x
        return self.classifier(x.mean((2, 3)))


def trained_network():
    """A network and its optimizer after three steps, gradients left over, and a problem over the very same tensors."""
    torch.manual_seed(0)
    network = SmallNetwork().double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    images, labels = draw(2, 6, 1, 5, 5), torch.arange(6) % 3
    mixing = (torch.tensor([0.3, 0.7], dtype=torch.float64),)
    for _ in range(3):
        optimizer.zero_grad()
        with tracking_statistics(network):
            F.cross_entropy(network(images[0], mixing[0]), labels).backward()
        optimizer.step()
    names = [name for name, _ in network.named_parameters()]

    def loss(part):
        def function(weights, mixing):
            state = dict(zip(names, weights, strict=True))
            return F.cross_entropy(functional_call(network, state, (images[part], mixing[0])), labels)

        return function

    weights = tuple(p.detach() for p in network.parameters())
    velocity = tuple(optimizer.state[p]["momentum_buffer"] for p in network.parameters())
    step = Lookahead(torch.tensor(0.1, dtype=torch.float64), MOMENTUM, WEIGHT_DECAY, velocity)
    return network, optimizer, Bilevel(loss(0), loss(1), loss(0), weights, mixing, step)


@pytest.mark.parametrize("name", SOLVERS)
def test_contract(name):
    """Detached results of the mixing's shapes, in the order of the mixing, and the same twice."""
    problem = quadratic()[0]
    solver = SOLVERS[name]()
    assert isinstance(solver.needs_float32, bool)
    loss, found = solver(problem)
    assert loss.shape == () and not loss.requires_grad
    assert isinstance(found, tuple)
    assert [g.shape for g in found] == [m.shape for m in problem.mixing]
    assert not any(g.requires_grad for g in found)
    assert not any(t.requires_grad or t.grad is not None for t in (*problem.weights, *problem.mixing))
    again = solver(problem)
    assert torch.equal(again[0], loss) and torch.equal(flat(again[1]), flat(found))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("training", [True, False])
def test_no_side_effect(name, training):
    network, optimizer, problem = trained_network()
    network.train(training)

    def state():
        tensors = [*network.state_dict().values(), *(p.grad for p in network.parameters()), *problem.mixing]
        tensors += [s["momentum_buffer"] for s in optimizer.state.values()]
        return [t.clone() for t in (*tensors, torch.get_rng_state())]

    before = state()
    assert network.norm.running_mean.abs().min() > 0
    SOLVERS[name]()(problem)
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    assert all(p.requires_grad for p in network.parameters())
    assert problem.mixing[0].grad is None


def test_passes():
    """How often each solver evaluates each loss: what it costs, and that differences are taken of `probe` alone."""
    problem, counts = quadratic()[0], {}
    for name, create in SOLVERS.items():
        calls = []

        def counted(key, calls=calls):
            return lambda weights, mixing: calls.append(key) or getattr(problem, key)(weights, mixing)

        losses = (counted(key) for key in ("inner", "outer", "probe"))
        create()(Bilevel(*losses, problem.weights, problem.mixing, problem.lookahead))
        counts[name] = sorted(calls)
    assert counts["first_order"] == ["outer"]
    assert counts["unrolled"] == ["inner", "outer", "probe", "probe"]
    assert counts["unrolled_exact"] == ["outer", "probe"]


@pytest.mark.parametrize("name", SOLVERS)
def test_what_the_loss_ignores_has_gradient_zero(name):
    """A weight or mixing that reaches neither loss, as in a cell type that the network does not have."""
    problem = quadratic()[0]
    weights, mixing = (*problem.weights, draw(2)), (*problem.mixing, draw(3))
    padded = Bilevel(
        lambda w, m: problem.inner(w[:2], m[:2]),
        lambda w, m: problem.outer(w[:2], m[:2]),
        lambda w, m: problem.probe(w[:2], m[:2]),
        weights,
        mixing,
        lookahead(weights),
    )
    found = SOLVERS[name]()(padded)[1]
    assert torch.equal(found[2], torch.zeros_like(found[2]))
    torch.testing.assert_close(flat(found[:2]), flat(SOLVERS[name]()(problem)[1]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["unrolled", "unrolled_exact"])
def test_few_kernels_move_many_weights(name):
    """The step ahead and both probes treat all weights together: a kernel for each of them would take longer than the passes."""

    def loss(weights, mixing):
        together = flat(weights)  # so that the loss and its gradient have no sum or product for each weight
        return (together * together).sum() * mixing[0].square().sum()

    def kernels(number):
        weights = tuple(draw(3, seed=seed) for seed in range(number))
        problem = Bilevel(loss, loss, loss, weights, (draw(2),), lookahead(weights))
        with tiny.Counting() as counting:
            SOLVERS[name]()(problem)
        return sum(counting.calls[operator] for operator in ("mul", "add", "sub", "neg"))

    few, many = kernels(3), kernels(300)
    if name == "unrolled":
        assert few == many < 100
    else:  # the gradient through the step is torch's own
        assert many - few < 4 * 300


def test_the_step_ahead_is_the_formula_bit_by_bit():
    weights, gradients = (tuple(draw(4, 3, seed=10 * i + j) for j in range(3)) for i in (1, 2))
    step = lookahead(weights)
    expected = [
        w - step.learning_rate * (step.momentum * v + g + step.weight_decay * w)
        for w, g, v in zip(weights, gradients, step.velocity, strict=True)
    ]
    assert all(map(torch.equal, step(weights, gradients), expected))


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 3e-4), (0.9, 0.0), (0.0, 3e-4)])
def test_lookahead_is_one_step_of_sgd(momentum, weight_decay):
    """At every one of several steps, the first included: there torch has no buffer yet, and we have zeros."""
    parameters = [nn.Parameter(draw(3, 2)), nn.Parameter(draw(4, seed=1))]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=momentum, weight_decay=weight_decay)
    for i in range(5):
        for p in parameters:
            p.grad = draw(*p.shape, seed=10 + i)
        velocity = tuple(optimizer.state[p].get("momentum_buffer") for p in parameters)
        velocity = tuple(torch.zeros_like(p) if v is None else v for p, v in zip(parameters, velocity, strict=True))
        step = Lookahead(torch.tensor(0.05, dtype=torch.float64), momentum, weight_decay, velocity)
        ahead = step(tuple(p.detach() for p in parameters), tuple(p.grad for p in parameters))
        optimizer.step()
        torch.testing.assert_close(flat(ahead), flat([p.detach() for p in parameters]), rtol=0, atol=1e-12)
