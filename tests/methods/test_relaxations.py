"""One contract for every relaxation; tables; the architecture that owns the logits; mixing as a tuple of tensors."""

from dataclasses import replace

import pytest
import tiny
import torch

from darts_lite.methods.architecture import Architecture, flatten, unflatten
from darts_lite.methods.build import build_method
from darts_lite.methods.method import said
from darts_lite.methods.relaxations import RELAXATIONS
from darts_lite.methods.relaxations.softmax import softmax_over_groups
from darts_lite.spaces.table import Mixing, Table

EDGES = ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
OPERATIONS = ("none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5")
ALIVE = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
HALF = torch.tensor(0.5)

LEARNING = [name for name, one in RELAXATIONS.items() if said(one(), "learns")]
every_relaxation = pytest.mark.parametrize("name", RELAXATIONS)
every_learning_one = pytest.mark.parametrize("name", LEARNING)
every_mask = pytest.mark.parametrize("alive", [ALIVE, torch.ones_like(ALIVE)], ids=["some dead", "all alive"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def table(alive=ALIVE, **settings):
    return Table(EDGES, OPERATIONS, alive, **settings)


# Every relaxation -----------------------------------------------------------------


def both(name, logits, alive, progress=HALF, seed=0):
    """What training and what selection sees."""
    relaxation = RELAXATIONS[name]()
    return (
        relaxation.sample(logits, table(alive), progress, generator(seed)),
        relaxation.expected(logits, table(alive), progress),
    )


@every_relaxation
@every_mask
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
def test_rows_are_weights_of_the_live_candidates(name, alive, progress, scale):
    for weights in both(name, scale * draw(5, 4), alive, torch.tensor(progress)):
        assert weights.shape == (5, 4) and weights.dtype == torch.float64
        assert (weights >= 0).all()
        assert (weights[~alive] == 0).all(), "exactly"
        torch.testing.assert_close(weights.sum(-1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)


@every_learning_one
@every_mask
def test_gradients_are_finite_and_none_for_the_dead(name, alive):
    logits = draw(5, 4).requires_grad_()
    sample, _ = both(name, logits, alive)
    (gradient,) = torch.autograd.grad((sample * draw(5, 4, seed=1)).sum(), logits)
    assert gradient.isfinite().all()
    assert (gradient[~alive] == 0).all()
    contested = alive & (alive.sum(1, keepdim=True) > 1)
    assert (gradient[contested] != 0).all()


@every_relaxation
@every_mask
def test_dead_logits_do_not_matter(name, alive):
    logits, other = draw(5, 4), draw(5, 4, seed=1)
    other = torch.where(alive, logits, 100 * other)
    for weights, same in zip(both(name, logits, alive), both(name, other, alive), strict=True):
        assert torch.equal(weights, same)


@pytest.mark.parametrize("name", [name for name in RELAXATIONS if name != "dirichlet"])
@every_mask
def test_a_shift_of_a_row_changes_nothing(name, alive):
    """Of a Dirichlet distribution it changes the spread."""
    logits, shifts = draw(5, 4), torch.tensor([[100.0], [-100.0], [3.0], [0.0], [1.0]])
    for weights, same in zip(both(name, logits, alive), both(name, logits + shifts, alive), strict=True):
        torch.testing.assert_close(weights, same, rtol=0, atol=1e-12)


@every_relaxation
def test_expected_has_no_noise_and_sample_only_that_of_its_generator(name):
    state = torch.get_rng_state()
    sample, expected = both(name, draw(5, 4), ALIVE)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    again, same = both(name, draw(5, 4), ALIVE)
    assert torch.equal(sample, again) and torch.equal(expected, same)
    assert torch.equal(both(name, draw(5, 4), ALIVE, seed=1)[1], expected)


@every_relaxation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_limits_nothing_overflows_and_the_sample_is_one_hot(name, dtype):
    """Logits so far apart that the choice is certain; where nothing is learned, any sample is one-hot."""
    logits = torch.full((5, 4), -1e4, dtype=dtype)
    best = torch.tensor([3, 2, 2, 1, 0])  # live ones
    if name in LEARNING:
        logits = logits.scatter(1, best[:, None], 1e4)
    logits.requires_grad_()
    sample, expected = both(name, logits, ALIVE, torch.tensor(1.0))
    if name in LEARNING:
        for weights in (sample, expected):
            torch.testing.assert_close(weights, torch.nn.functional.one_hot(best).to(dtype), rtol=0, atol=1e-4)
        (gradient,) = torch.autograd.grad((sample * draw(5, 4).to(dtype)).sum(), logits)
        assert gradient.isfinite().all()
    else:
        assert not sample.requires_grad and torch.equal(sample, sample.round())


@every_relaxation
def test_a_sparse_sample_is_exactly_one_hot(name):
    """At any temperature: what is not exactly zero would be computed, and one that is not 1 would scale its operation."""
    for progress in (0.0, 0.5, 1.0):
        sample, _ = both(name, draw(5, 4), ALIVE, torch.tensor(progress))
        exact = torch.equal(sample, sample.round()) and torch.equal(sample.sum(1), torch.ones(5, dtype=torch.float64))
        assert exact == said(RELAXATIONS[name](), "sparse")


@pytest.mark.usefixtures("tiny_folder")
@every_relaxation
def test_a_cuda_graph_is_refused_with_the_reason_where_the_host_has_to_know_what_is_drawn(name):
    selection = "darts" if name in LEARNING else "best_of"
    method = build_method(tiny.search_config(relaxation=name, selection=selection))
    reason = method.obstacle()
    assert reason == ("the relaxation runs only the operations that it draws" if method.sparse else None)


@every_learning_one
def test_the_better_logit_is_expected_more(name):
    logits = draw(5, 4)
    expected = RELAXATIONS[name]().expected(logits, table(torch.ones_like(ALIVE)), HALF)
    assert torch.equal(expected.argsort(-1), logits.argsort(-1))


@every_relaxation
def test_float32_stays_float32(name):
    assert [weights.dtype for weights in both(name, draw(5, 4).float(), ALIVE)] == [torch.float32] * 2


# Softmax --------------------------------------------------------------------------


def test_softmax_by_hand():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]] * 5, dtype=torch.float64)
    e = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64).exp()
    expected = torch.stack([torch.where(row, e, 0) / e[row].sum() for row in ALIVE])
    for weights in both("softmax", logits, ALIVE):
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("groups", [[2, 2, 3, 3, 3], [2, 3, 2, 3, 3], [2], [5, 4, 3, 2, 1]])
def test_softmax_over_groups_is_a_softmax_of_each_group(groups, scale):
    groups, logits = torch.tensor(groups), scale * draw(len(groups))
    expected = torch.empty_like(logits)
    for group in groups.unique():
        expected[groups == group] = torch.softmax(logits[groups == group], 0)
    torch.testing.assert_close(softmax_over_groups(logits, groups), expected, rtol=0, atol=1e-12)


def test_softmax_over_groups_has_the_right_gradient():
    groups = torch.tensor([2, 3, 2, 3, 3])
    assert torch.autograd.gradcheck(lambda logits: softmax_over_groups(logits, groups), draw(5).requires_grad_())


# GAEA -----------------------------------------------------------------------------


def test_the_gradient_of_the_mixing_is_handed_to_the_logits_as_it_is():
    """Also that of edge factors."""
    owner = architecture("identity_softmax")
    mixing = owner.sample(HALF, generator())
    for cell, one in mixing.items():
        plain = owner.operations[cell].masked_fill(~TABLES[cell].alive, -torch.inf).softmax(-1)
        torch.testing.assert_close(one.operations, plain, rtol=0, atol=1e-7)
    given = [draw(*tensor.shape, seed=seed).float() for seed, tensor in enumerate(flatten(mixing))]
    parameters = [owner.operations["normal"], owner.edges["normal"], owner.operations["reduce"]]
    found = torch.autograd.grad(flatten(mixing), parameters, given)
    given[0] = given[0] * ALIVE
    assert all(map(torch.equal, found, given))


def test_no_operation_is_lost_below_the_floor():
    logits = torch.tensor([[0.0, -100.0, 1.0, -100.0]] * 5, dtype=torch.float64)
    theta, _ = both("identity_softmax", logits, torch.ones_like(ALIVE))
    e = torch.tensor(1.0, dtype=torch.float64).exp()
    expected = torch.tensor([1 / (1 + e), 1e-5, e / (1 + e), 1e-5], dtype=torch.float64) / (1 + 2e-5)
    torch.testing.assert_close(theta, expected.expand(5, 4), rtol=0, atol=1e-12)


# Dirichlet ------------------------------------------------------------------------

ROW = torch.tensor([[-1.0, 0.0, 0.5, 2.0]], dtype=torch.float64)
CONCENTRATIONS = torch.tensor([torch.tensor(-1.0, dtype=torch.float64).exp(), 1.0, 1.5, 3.0], dtype=torch.float64)
MANY = 20_000


def many(name, row, **options):
    """(MANY, 4) samples of one row of logits, and the logits, which have a gradient; a table with as many rows is drawn at once."""
    logits = row.expand(MANY, 4).clone().requires_grad_()
    wide = Table(((0, 2),) * MANY, OPERATIONS, torch.ones(MANY, 4, dtype=torch.bool))
    return RELAXATIONS[name](**options).sample(logits, wide, torch.tensor(0.0), generator()), logits


def close_on_average(values, truth):
    """The mean of (MANY, ...) independent values is `truth` within five of its standard errors."""
    error = values.std(0) / MANY**0.5
    assert ((values.mean(0) - truth).abs() < 5 * error + 1e-12).all(), (values.mean(0), truth, error)


def test_dirichlet_samples_have_the_moments_of_the_distribution():
    """Mean c / s and variance m (1 - m) / (s + 1), where s is the sum of the concentrations elu(alpha) + 1."""
    sample, _ = many("dirichlet", ROW)
    sample, total = sample.detach(), CONCENTRATIONS.sum()
    mean = CONCENTRATIONS / total
    close_on_average(sample, mean)
    close_on_average((sample - mean).square(), mean * (1 - mean) / (total + 1))


def test_pathwise_gradients_of_dirichlet_are_those_of_its_moments():
    """d E[sum of w theta^2] / d alpha, from the closed form E[theta_i^2] = c_i (c_i + 1) / (s (s + 1))."""
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    sample, logits = many("dirichlet", ROW)
    (found,) = torch.autograd.grad((weights * sample.square()).sum(), logits)
    row = ROW.clone().requires_grad_()
    c = torch.nn.functional.elu(row) + 1
    truth = (weights * c * (c + 1)).sum() / (c.sum() * (c.sum() + 1))
    close_on_average(found, *torch.autograd.grad(truth, row))


def test_small_concentrations_do_not_underflow():
    """At c = 1e-4 and below: one-hot samples, each operation with the chance c / s."""
    row = torch.tensor([[-9.0, -10.0, -12.0, -9.5]])
    sample, logits = many("dirichlet", row)
    (gradient,) = torch.autograd.grad(sample.square().sum(), logits)
    assert sample.isfinite().all() and gradient.isfinite().all()
    torch.testing.assert_close(sample.sum(1), torch.ones(MANY))
    close_on_average(sample.detach().double(), row.double().softmax(-1))


# Gumbel ---------------------------------------------------------------------------


def test_drawn_operations_have_the_chances_of_the_softmax():
    sample, _ = many("gumbel", ROW)
    close_on_average(sample.detach(), ROW.softmax(-1))


@pytest.mark.parametrize("hard", [True, False])
def test_gumbel_by_hand(hard):
    """theta = softmax((log softmax(alpha) + g) / temperature), with its derivative; the temperature falls in a straight line."""
    progress, logits = torch.tensor(0.25, dtype=torch.float64), draw(5, 4).requires_grad_()
    relaxation = RELAXATIONS["gumbel"](start=4.0, end=2.0, hard=hard)
    sample = relaxation.sample(logits, table(torch.ones_like(ALIVE)), progress, generator(3))
    noise = -torch.empty(5, 4, dtype=torch.float64).exponential_(generator=generator(3)).log()
    soft = ((logits.log_softmax(-1) + noise) / 3.5).softmax(-1)
    values = torch.nn.functional.one_hot(soft.argmax(-1), 4).double() if hard else soft
    assert torch.equal(sample.detach(), values.detach()) if hard else torch.allclose(sample, soft, rtol=0, atol=1e-14)
    weights = draw(5, 4, seed=1)
    gradients = [torch.autograd.grad((weights * one).sum(), logits)[0] for one in (sample, soft)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-14)


def test_pathwise_gradients_of_the_gumbel_softmax_are_those_of_its_mean():
    """Against the change of the mean of other samples between alpha + h and alpha - h, for h in each direction."""
    weights, step = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64), 0.05
    options = {"hard": False, "start": 1.0}
    sample, logits = many("gumbel", ROW, **options)
    (found,) = torch.autograd.grad((weights * sample.square()).sum(), logits)
    for column in range(4):
        moved = step * torch.nn.functional.one_hot(torch.tensor([column]), 4)
        plus, minus = (weights * many("gumbel", ROW + h, **options)[0].square() for h in (moved, -moved))
        slope = (plus - minus).sum(1).detach() / (2 * step)
        error = (found[:, column] - slope).std() / MANY**0.5
        assert (found[:, column] - slope).mean().abs() < 5 * error + 0.01, (
            "the same noise: also the difference is small"
        )


# Uniform paths --------------------------------------------------------------------


def test_every_live_operation_is_drawn_as_often():
    logits = torch.full((MANY, 4), torch.nan, dtype=torch.float64)  # they do not matter
    wide = Table(((0, 2),) * MANY, OPERATIONS, ALIVE[3].expand(MANY, 4))
    relaxation = RELAXATIONS["uniform_path"]()
    chances = torch.tensor([0.0, 1 / 3, 1 / 3, 1 / 3], dtype=torch.float64)
    close_on_average(relaxation.sample(logits, wide, HALF, generator()), chances)
    assert torch.equal(relaxation.expected(logits, wide, HALF)[0], chances)


# Tables ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alive",
    [
        pytest.param(torch.ones(4, 4, dtype=torch.bool), id="a row too few"),
        pytest.param(torch.ones(5, 3, dtype=torch.bool), id="a column too few"),
        pytest.param(torch.ones(20, dtype=torch.bool), id="flat"),
        pytest.param(torch.ones(5, 4), id="float"),
        pytest.param(torch.ones(5, 4, dtype=torch.uint8), id="uint8"),
        pytest.param(torch.arange(5)[:, None].ne(3).expand(5, 4), id="an edge without candidates"),
    ],
)
def test_table_refuses_bad_masks(alive):
    with pytest.raises(ValueError, match="alive"):
        table(alive)


def test_live_candidates_row_by_row():
    assert table().live() == [
        *((0, name) for name in OPERATIONS),
        (1, "none"),
        (1, "sep_conv_3x3"),
        (2, "sep_conv_3x3"),
        *((3, name) for name in OPERATIONS[1:]),
        (4, "none"),
    ]


# Architecture ---------------------------------------------------------------------

TABLES = {"normal": table(weighs_edges=True), "reduce": table(torch.ones_like(ALIVE))}


def architecture(name="softmax", tables=TABLES, seed=0, **settings):
    return Architecture(tables, RELAXATIONS[name](), generator=generator(seed), **settings)


@every_relaxation
def test_architecture_maps_its_logits_to_mixing(name):
    owner = architecture(name)
    relaxation = owner.relaxation
    for found, by_hand in (
        (
            owner.sample(HALF, generator(1)),
            lambda cell, g: relaxation.sample(owner.operations[cell], TABLES[cell], HALF, g),
        ),
        (owner.expected(HALF), lambda cell, _: relaxation.expected(owner.operations[cell], TABLES[cell], HALF)),
    ):
        noise = generator(1)
        assert list(found) == ["normal", "reduce"]
        for cell, one in found.items():
            torch.testing.assert_close(one.operations, by_hand(cell, noise), rtol=0, atol=0)
        groups = torch.tensor([2, 2, 3, 3, 3])
        assert torch.equal(found["normal"].edges, softmax_over_groups(owner.edges["normal"], groups))
        assert found["reduce"].edges is None


@every_learning_one
def test_every_logit_has_a_gradient(name):
    owner = architecture(name)
    loss = sum((t * torch.arange(t.numel()).view_as(t)).sum() for t in flatten(owner.sample(HALF, generator())))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in owner.parameters())


def test_parameters_are_the_logits_and_nothing_else():
    owner = architecture()
    shapes = {name: tuple(parameter.shape) for name, parameter in owner.named_parameters()}
    assert shapes == {"operations.normal": (5, 4), "operations.reduce": (5, 4), "edges.normal": (5,)}
    assert owner.state_dict().keys() == shapes.keys()


def test_logits_start_as_small_noise_of_the_given_generator():
    state = torch.get_rng_state()
    owner = architecture(init_std=1e-3)
    assert torch.equal(torch.get_rng_state(), state)
    logits = torch.cat([parameter.detach().flatten() for parameter in owner.parameters()])
    assert 0 < logits.abs().max() < 5e-3
    assert logits.unique().numel() == 45

    def equal(other):
        return all(torch.equal(a, b) for a, b in zip(owner.parameters(), other.parameters(), strict=True))

    assert equal(architecture()) and not equal(architecture(seed=1))
    assert all(not parameter.any() for parameter in architecture(init_std=0.0).parameters())
    wide = Architecture(
        {"normal": Table(((0, 2),) * 5000, ("a", "b"), torch.ones(5000, 2, dtype=torch.bool))}, None, init_std=0.5
    )
    assert float(wide.operations["normal"].detach().std()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.cuda
def test_an_architecture_on_a_gpu_is_whole():
    """Masks are made where the logits will be; groups move with them."""
    tables = {cell: replace(one, alive=one.alive.cuda()) for cell, one in TABLES.items()}
    owner = architecture(tables=tables).to("cuda")
    mixing = owner.sample(HALF.cuda(), torch.Generator("cuda"))
    assert {tensor.device.type for tensor in flatten(mixing)} == {"cuda"}


@pytest.mark.parametrize("leading", [(), (3,)])
def test_flatten_and_unflatten(leading):
    mixing = {
        "normal": Mixing(draw(*leading, 5, 4), draw(*leading, 5, seed=1)),
        "reduce": Mixing(draw(*leading, 5, 4, seed=2)),
    }
    tensors = flatten(mixing)
    assert [id(t) for t in tensors] == [
        id(t) for t in (mixing["normal"].operations, mixing["normal"].edges, mixing["reduce"].operations)
    ]
    other = tuple(t + 1 for t in tensors)
    found = unflatten(mixing, other)
    assert list(found) == list(mixing) and found["reduce"].edges is None
    assert all(a is b for a, b in zip(flatten(found), other, strict=True))
