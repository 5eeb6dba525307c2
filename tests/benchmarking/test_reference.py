"""The per-edge supernet: its published size, its shapes, and its arithmetic against hand-written functional code."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from darts_lite.benchmarking.reference import CANDIDATES, FactorizedReduce, ReferenceSupernet, create_operation


def mixing(nodes=2, candidates=8, leading=(), edges=False, seed=0):
    """Random weights of both cell types, float64."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(range(2, 2 + nodes))

    def draw(*shape):
        return torch.rand(*leading, *shape, dtype=torch.float64, generator=generator)

    return {
        name: SimpleNamespace(operations=draw(count, candidates), edges=draw(count) if edges else None)
        for name in ("normal", "reduce")
    }


def supernet(**settings):
    torch.manual_seed(0)
    return ReferenceSupernet(**{"channels": 4, "cells": 3, "nodes": 2, "classes": 10, **settings}).double()


def images(size=8, batch=4, channels=3):
    return torch.randn(batch, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def norm(x):
    """BatchNorm without affine parameters, in training mode."""
    return F.batch_norm(x, None, None, training=True)


def test_published_parameter_count():
    with torch.device("meta"):
        network = ReferenceSupernet(channels=16, cells=8, nodes=4, classes=10)
    assert sum(p.numel() for p in network.parameters()) == 1_930_618
    assert len(list(network.parameters())) == 1399  # 1,401 with the two tables of alphas
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 929
    assert [i for i, name in enumerate(network.types) if name == "reduce"] == [2, 5]


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("channels", [3, 4])
def test_sizes_are_rounded_up_at_reductions(size, channels):
    network = supernet(channels=channels, cells=4, reductions=(1, 2))
    shapes = []
    for cell in network.cells:
        cell.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    assert network(images(size), mixing()).shape == (4, 10)
    half, quarter = (size + 1) // 2, ((size + 1) // 2 + 1) // 2
    c = channels
    assert shapes == [
        (4, 2 * c, size, size),
        (4, 4 * c, half, half),
        (4, 8 * c, quarter, quarter),
        (4, 8 * c, quarter, quarter),
    ]


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", CANDIDATES)
def test_every_operation_keeps_channels_and_rounds_up(name, stride, size):
    x = images(size, channels=5)
    y = create_operation(name, 5, stride, nn.ReLU).double()(x)
    assert y.shape == (4, 5, -(-size // stride), -(-size // stride))


def test_operations_against_functional_code():
    x = images(6, channels=4)
    for stride in (1, 2):
        built = {name: create_operation(name, 4, stride, nn.ReLU).double() for name in CANDIDATES}
        ones = torch.ones(1, 1, 6, 6, dtype=torch.float64)
        inside = F.avg_pool2d(ones, 3, stride, padding=1)
        average = F.avg_pool2d(x, 3, stride, padding=1) / inside  # padding does not count
        padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
        expected = {
            "none": torch.zeros_like(x[:, :, ::stride, ::stride]),
            "avg_pool_3x3": norm(average),
            "max_pool_3x3": norm(padded.unfold(2, 3, stride).unfold(3, 3, stride).amax((-2, -1))),
        }
        for kernel in (3, 5):
            sep, dil = built[f"sep_conv_{kernel}x{kernel}"], built[f"dil_conv_{kernel}x{kernel}"]
            y = F.conv2d(x.relu(), sep[1].weight, stride=stride, padding=kernel // 2, groups=4)
            y = norm(F.conv2d(y, sep[2].weight)).relu()
            y = F.conv2d(y, sep[5].weight, padding=kernel // 2, groups=4)
            expected[f"sep_conv_{kernel}x{kernel}"] = norm(F.conv2d(y, sep[6].weight))
            y = F.conv2d(x.relu(), dil[1].weight, stride=stride, padding=kernel - 1, dilation=2, groups=4)
            expected[f"dil_conv_{kernel}x{kernel}"] = norm(F.conv2d(y, dil[2].weight))
        skip = built["skip_connect"]
        if stride == 1:
            expected["skip_connect"] = x
        else:
            even, odd = x.relu()[:, :, ::2, ::2], x.relu()[:, :, 1::2, 1::2]
            halves = [F.conv2d(even, skip.first.weight), F.conv2d(odd, skip.second.weight)]
            expected["skip_connect"] = norm(torch.cat(halves, 1))
        assert expected.keys() == built.keys()
        for name, operation in built.items():
            torch.testing.assert_close(operation(x), expected[name], rtol=0, atol=1e-12, msg=f"{name}, stride {stride}")


def test_factorized_reduce_sees_zeros_beyond_an_odd_border():
    reduce = FactorizedReduce(4, 5, nn.ReLU).double()
    x = images(5, channels=4)
    assert (reduce.first.out_channels, reduce.second.out_channels) == (2, 3)
    padded = F.pad(x, (0, 1, 0, 1)).relu()
    halves = [F.conv2d(padded[:, :, ::2, ::2], reduce.first.weight)]
    halves += [F.conv2d(padded[:, :, 1::2, 1::2], reduce.second.weight)]
    torch.testing.assert_close(reduce(x), norm(torch.cat(halves, 1)), rtol=0, atol=1e-12)


def test_one_cell_by_hand():
    """Two edges into one node, with a factor for each edge: the whole network in a few lines."""
    candidates = ("none", "skip_connect", "avg_pool_3x3")
    network = supernet(cells=1, nodes=1, candidates=candidates, reductions=())
    weights = mixing(nodes=1, candidates=3, edges=True)
    x = images()
    stem = F.conv2d(x, network.stem[0].weight, padding=1)
    stem = norm(stem) * network.stem[1].weight.view(1, -1, 1, 1) + network.stem[1].bias.view(1, -1, 1, 1)
    cell, w = network.cells[0], weights["normal"]
    node = 0
    for edge, project in enumerate(cell.preprocess):
        state = norm(F.conv2d(stem.relu(), project[1].weight))
        pooled = norm(F.avg_pool2d(state, 3, 1, 1, count_include_pad=False))
        node = node + w.edges[edge] * (w.operations[edge, 1] * state + w.operations[edge, 2] * pooled)
    logits = F.linear(node.mean((2, 3)), network.classifier.weight, network.classifier.bias)
    torch.testing.assert_close(network(x, weights), logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("edges", [False, True])
def test_a_cell_of_one_node_is_linear_in_the_mixing(edges):
    network = supernet(cells=1, nodes=1, reductions=())
    x = images()

    def output(operations, factors):
        return network.cells[0](network.stem(x), network.stem(x), operations, factors)

    a, b = (mixing(nodes=1, edges=True, seed=seed)["normal"] for seed in (0, 1))
    factors = a.edges if edges else None
    together = output(2 * a.operations - 3 * b.operations, factors)
    apart = 2 * output(a.operations, factors) - 3 * output(b.operations, factors)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-11)


def test_later_nodes_follow_the_node_major_order_of_edges():
    """Edge 4, (2->3), alone feeds node 3 from node 2."""
    network = supernet(cells=1, reductions=(), candidates=("skip_connect",))
    operations = torch.zeros(5, 1, dtype=torch.float64)
    operations[0], operations[4] = 2.0, 3.0  # node 2 = 2 * state 0, node 3 = 3 * node 2
    stem = network.stem(images())
    output = network.cells[0](stem, stem, operations, None)
    state = norm(F.conv2d(stem.relu(), network.cells[0].preprocess[0][1].weight))
    torch.testing.assert_close(output, torch.cat([2 * state, 6 * state], 1), rtol=0, atol=1e-12)


def test_zero_mixing_leaves_the_bias_of_the_classifier():
    network = supernet()
    weights = mixing()
    for w in weights.values():
        w.operations.zero_()
    logits = network(images(), weights)
    assert torch.equal(logits, network.classifier.bias.expand_as(logits))


def test_dead_candidates_have_no_module_and_an_empty_edge_gives_zeros():
    alive = torch.ones(5, 8, dtype=torch.bool)
    alive[0] = False
    alive[1, 4] = False
    network = supernet(alive={"normal": alive, "reduce": alive})
    for cell in network.cells:
        assert len(cell.edges[0]) == 0
        assert list(cell.edges[1]) == [name for name in CANDIDATES if name != "sep_conv_3x3"]
    x, weights = images(7), mixing()
    logits = network(x, weights)
    for w in weights.values():  # what is dead does not matter
        w.operations[0] = 5.0
        w.operations[1, 4] = 5.0
    assert torch.equal(network(x, weights), logits)

    full = supernet()
    full.load_state_dict(network.state_dict(), strict=False)
    for w in weights.values():
        w.operations.mul_(alive)
    torch.testing.assert_close(full(x, weights), logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("edges", [False, True])
def test_mixing_of_each_cell(edges):
    network = supernet(cells=4, reductions=(1, 3))
    x = images()
    shared = mixing(edges=edges)
    tiled = mixing(leading=(2,), edges=edges)
    for name, w in shared.items():
        tiled[name].operations[:] = w.operations
        if edges:
            tiled[name].edges[:] = w.edges
    assert torch.equal(network(x, shared), network(x, tiled))

    # The index counts the cells of the type: the second reduction is the last cell, so only the classifier sees it.
    outputs = []
    for cell in network.cells:
        cell.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    network(x, tiled)
    (tiled["reduce"].edges if edges else tiled["reduce"].operations)[1] *= 2
    network(x, tiled)
    same = [torch.equal(before, after) for before, after in zip(outputs[:4], outputs[4:], strict=True)]
    assert same == [True, True, True, False]


def test_factors_of_one_change_nothing():
    network, plain = supernet(), mixing()
    factored = {
        name: SimpleNamespace(operations=w.operations, edges=torch.ones(5, dtype=torch.float64))
        for name, w in plain.items()
    }
    assert torch.equal(network(images(), plain), network(images(), factored))


def test_activation_is_a_constructor_argument():
    network = supernet(activation=nn.SiLU)
    modules = list(network.modules())
    assert any(isinstance(m, nn.SiLU) for m in modules)
    assert not any(isinstance(m, nn.ReLU) for m in modules)
