"""One contract for every relaxation; tables; the architecture that owns the logits; mixing as a tuple of tensors."""

from dataclasses import replace

import pytest
import torch

from darts_lite.methods.architecture import Architecture, flatten, unflatten
from darts_lite.methods.relaxations import RELAXATIONS
from darts_lite.methods.relaxations.softmax import softmax_over_groups
from darts_lite.spaces.table import Mixing, Table

EDGES = ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
OPERATIONS = ("none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5")
ALIVE = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
HALF = torch.tensor(0.5)

every_relaxation = pytest.mark.parametrize("name", RELAXATIONS)
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


@every_relaxation
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


@every_relaxation
@every_mask
def test_a_shift_of_a_row_changes_nothing(name, alive):
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


@every_relaxation
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
