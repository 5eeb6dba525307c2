"""The operation `noise`: its numbers are drawn once, and every pass that is given them is the same."""

import pytest
import tiny
import torch
from torch.nn import functional as F

from darts_lite.genotypes.genotype import Cell, Edge, Genotype, from_json, to_json
from darts_lite.methods.solvers.bilevel import gradients
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces import SPACES
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.table import Mixing

SKELETON = Skeleton(3, 4, 5, image_size=(7, 6))


def supernet(partial=1):
    space = SPACES["darts"](SpaceConfig(nodes=2, candidates=["noise", "sep_conv_3x3"]))
    tables = space.tables()
    torch.manual_seed(0)
    mixing = {cell: Mixing(torch.rand(table.alive.shape)) for cell, table in tables.items()}
    return space.supernet(SKELETON, tables, partial=partial), mixing


def images(n=3):
    return torch.randn(n, 3, 7, 6, generator=torch.Generator().manual_seed(1))


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("partial", [1, 2])
def test_equal_draws_are_equal_outputs(partial):
    network, mixing = supernet(partial)
    first, again, other = (network.draw(generator(seed), 3) for seed in (0, 0, 1))
    outputs = [network(images(), mixing, draws=draws) for draws in (first, again, other)]
    assert torch.equal(outputs[0], outputs[1]) and not torch.allclose(outputs[0], outputs[2])
    state = torch.get_rng_state()
    assert torch.equal(network(images(), mixing), outputs[0]), "without draws: those of seed 0"
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(network(images(), mixing, generator=generator(1)), outputs[2]), "or those of a generator"


def test_draws_are_standard_normal_and_of_the_shape_of_the_outputs():
    network, _ = supernet()
    draws = network.draw(generator(0), 200)
    sizes, widths = SKELETON.sizes()[1:], SKELETON.widths()
    assert set(draws) == {0, 1, 2}
    for cell, stages in draws.items():
        assert {stage: tuple(numbers.shape) for stage, numbers in stages.items()} == {
            0: (200, 4 * widths[cell], *sizes[cell]),
            1: (200, widths[cell], *sizes[cell]),
        }
    numbers = torch.cat([one.flatten() for stages in draws.values() for one in stages.values()])
    assert abs(float(numbers.mean())) < 0.02 and abs(float(numbers.std()) - 1) < 0.02


def test_nothing_is_drawn_where_nothing_is_random():
    space = SPACES["darts"](SpaceConfig(nodes=1))
    network = space.supernet(SKELETON, space.tables())
    assert network.draw(generator(0), 3) is None and not network.random


def test_an_edge_adds_its_factor_times_its_numbers():
    """One node, both edges: noise alone is what the classifier sees."""
    space = SPACES["darts"](SpaceConfig(nodes=1, candidates=["noise"]))
    skeleton = Skeleton(1, 4, 5, image_size=(7, 6), reductions=(0,))
    network = space.supernet(skeleton, space.tables())
    draws = network.draw(generator(2), 3)
    factors = torch.tensor([[0.5], [-2.0]], requires_grad=True)
    outputs = network(images(), {"reduce": Mixing(factors)}, draws=draws)
    first, second = draws[0][0].split(8, dim=1)
    expected = network._classify(0.5 * first - 2 * second)
    torch.testing.assert_close(outputs, expected)
    (found,) = torch.autograd.grad(outputs[:, 0].sum(), factors)
    weight = network.classifier.weight[0]
    slopes = [float((weight.detach() * one.mean((2, 3))).sum()) for one in (first, second)]
    torch.testing.assert_close(found.flatten(), torch.tensor(slopes))


def test_a_mixed_derivative_by_differences_is_exact_with_equal_draws():
    """Redrawn between two probes the noise would be the signal."""
    network, mixing = supernet()
    network.double()
    x, labels = images().double(), torch.arange(3)
    draws = network.draw(generator(0), 3)
    factors = {cell: Mixing(one.operations.double().requires_grad_()) for cell, one in mixing.items()}
    leaf = factors["normal"].operations
    weight = network.classifier.weight

    def slope(draws):
        return gradients(F.cross_entropy(network(x, factors, draws=draws), labels), (leaf,), create_graph=True)[0]

    direction = torch.randn(weight.shape, dtype=torch.float64, generator=generator(3))
    (exact,) = torch.autograd.grad((torch.autograd.grad(
        F.cross_entropy(network(x, factors, draws=draws), labels), weight, create_graph=True
    )[0] * direction).sum(), leaf)  # fmt: skip
    probes = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * 1e-4 * direction)
        probes.append(slope(draws).detach())
        with torch.no_grad():
            weight.sub_(sign * 1e-4 * direction)
    torch.testing.assert_close((probes[0] - probes[1]) / 2e-4, exact, rtol=1e-5, atol=1e-8)


def test_a_genotype_with_noise_is_a_network_that_learns_and_evaluates():
    cell = Cell((Edge("noise", 0, 2), Edge("sep_conv_3x3", 1, 2)), (2,))
    genotype = Genotype("darts", {"normal": cell, "reduce": cell})
    assert from_json(to_json(genotype)) == genotype
    network = tiny.network(genotype, SKELETON)
    draws = network.draw(generator(0), 3)
    network(images(), draws=draws).square().sum().backward()
    assert all(weight.grad is not None for name, weight in network.named_parameters() if "stages" in name)
    network.eval()
    assert torch.equal(network(images()), network(images()))
