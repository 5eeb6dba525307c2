"""The stacked supernet against the per-edge reference, in float64: outputs to 1e-12, every gradient to 1e-11.

Every stack is taken apart into the copies that the reference calls its own, so a copy in the wrong place cannot hide.
"""

from dataclasses import dataclass

import pytest
import tiny
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from darts_lite.benchmarking.gate import taken_apart
from darts_lite.benchmarking.reference import CANDIDATES, ReferenceCell, ReferenceSupernet, create_operation
from darts_lite.errors import UserError
from darts_lite.operations import layers
from darts_lite.operations.kernels import depthwise, pointwise
from darts_lite.operations.kernels import pools as pooling
from darts_lite.operations.kernels.thresholds import ALL, CACHE, LARGE
from darts_lite.operations.layers import SEARCH, Form, tracking_statistics
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces import stage as stages
from darts_lite.spaces.darts import DartsSpace, types
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.table import Mixing
from darts_lite.spaces.transfer import transfer

OUTPUT, GRADIENT = {"rtol": 0, "atol": 1e-12}, {"rtol": 0, "atol": 1e-11}
CELLS = ("normal", "reduce")


@dataclass
class Case:
    """A supernet in both forms, and how it is mixed."""

    cells: int = 3
    channels: int = 3
    nodes: int = 2
    size: tuple[int, int] = (8, 8)
    input_channels: int = 3
    stem_multiplier: int = 3
    reductions: tuple[int, ...] | None = None
    candidates: tuple[str, ...] = CANDIDATES
    activation: type = nn.ReLU
    masked: bool = False  # every edge has candidates of its own
    edges: bool = False  # a factor for each edge
    leading: bool = False  # a mixing for each cell
    alive: dict | None = None  # the candidates of each edge, if not all or masked
    partial: int = 1  # one of so many parts of the channels is what operations see
    form: Form = SEARCH

    def __post_init__(self):
        if self.alive is not None:
            return
        rows = sum(range(2, 2 + self.nodes))
        generator = torch.Generator().manual_seed(3)
        self.alive = {}
        for cell in CELLS:
            mask = torch.rand(rows, len(self.candidates), generator=generator) < 0.4
            mask[torch.arange(rows), torch.randint(len(self.candidates), (rows,), generator=generator)] = True
            self.alive[cell] = mask if self.masked else torch.ones_like(mask)

    @property
    def space(self):
        space = DartsSpace(SpaceConfig(nodes=self.nodes, candidates=list(self.candidates)))
        space.forms = {"search": self.form}
        return space

    @property
    def skeleton(self):
        return Skeleton(
            self.cells,
            self.channels,
            classes=5,
            input_channels=self.input_channels,
            image_size=self.size,
            reductions=self.reductions,
            stem_multiplier=self.stem_multiplier,
            activation=self.activation,
        )

    def stacked(self, alive=None, partial=None):
        """The stacked supernet, its weights and running statistics random."""
        tables = self.space.tables(alive=alive or self.alive)
        network = self.space.supernet(self.skeleton, tables, partial=partial or self.partial).double()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                draw = torch.randn(tensor.shape, dtype=torch.float64, generator=generator)
                spread = {"running_var": 0.5 + draw.abs(), "running_mean": 0.5 * draw}
                scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 1.0
                tensor.copy_(spread.get(name.rpartition(".")[2], draw * scale))
        return network

    def both(self):
        """The stacked supernet and the reference with the same weights and running statistics."""
        network = self.stacked()
        reference = ReferenceSupernet(
            self.channels,
            self.cells,
            self.nodes,
            5,
            self.input_channels,
            self.candidates,
            self.alive,
            self.reductions,
            self.activation,
            self.stem_multiplier,
        )
        adapted(reference, self)
        reference.double()
        apart = taken_apart(network, network.state_dict())
        wanted = {name for name in reference.state_dict() if not name.endswith("num_batches_tracked")}
        assert set(apart) == wanted
        reference.load_state_dict(apart, strict=False)
        return network, reference

    def mixing(self, seed=2):
        """Random factors of both signs."""
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()

        mixing = {}
        for cell, count in self.count().items():
            leading = (count,) if self.leading else ()
            rows, columns = self.alive[cell].shape
            mixing[cell] = Mixing(draw(*leading, rows, columns), draw(*leading, rows) if self.edges else None)
        return mixing

    def count(self):
        """Number of cells of each type that occurs."""
        found = types(self.skeleton)
        return {cell: found.count(cell) for cell in CELLS if cell in found}

    def images(self, seed=4, batch=3):
        shape = batch, self.input_channels, *self.size
        return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class PartialCell(ReferenceCell):
    """A reference cell with partial channels, edge by edge (Xu et al. 2020, section 3.2)."""

    parts: int

    def mix(self, edge, x, weights):
        seen = x.shape[1] // self.parts
        rest = x[:, seen:]
        if self.strides[edge] == 2:
            rest = F.max_pool2d(rest, 2, ceil_mode=True)
        both = torch.cat([super().mix(edge, x[:, :seen], weights), rest], dim=1)
        n, c, h, w = both.shape
        return both.view(n, self.parts, c // self.parts, h, w).transpose(1, 2).reshape(n, c, h, w)


def adapted(reference, case):
    """Give a reference the partial channels and the form of a case."""
    for cell, channels in zip(reference.cells, case.skeleton.widths(), strict=True):
        if case.partial > 1:
            cell.__class__, cell.parts = PartialCell, case.partial
            for edge, stride in zip(cell.edges, cell.strides, strict=True):
                for name in edge:
                    edge[name] = create_operation(name, channels // case.partial, stride, case.activation)
        if not case.form.pool_norm:
            for edge in cell.edges:
                for name in edge:
                    edge[name] = edge[name][0] if "pool" in name else edge[name]
        if not case.form.statistics:
            for module in cell.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.track_running_stats, module.running_mean, module.running_var = False, None, None


def close(found, expected, tolerance):
    """Compare two dictionaries of tensors, relative to the largest entry where that is above 1."""
    assert found.keys() == expected.keys()
    largest = max([1.0, *(float(tensor.detach().abs().max()) for tensor in expected.values() if tensor.numel())])
    for name, tensor in found.items():
        torch.testing.assert_close(
            tensor,
            expected[name],
            rtol=0,
            atol=tolerance["atol"] * largest,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def tensors_of(mixing):
    return {
        f"{cell} {part}": tensor
        for cell, one in mixing.items()
        for part, tensor in (("operations", one.operations), ("edges", one.edges))
        if tensor is not None
    }


def gradients(network, images, mixing):
    """Of one scalar that looks at every logit: with respect to the weights, and to the mixing."""
    outputs = network(images, mixing)
    loss = F.cross_entropy(outputs, torch.arange(len(images)) % 5) + outputs.square().sum() / 10
    named = dict(network.named_parameters())
    wanted = {**named, **tensors_of(mixing)}
    found = dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values()), materialize_grads=True), strict=True))
    return outputs, {name: found[name] for name in named}, {name: found[name] for name in found if name not in named}


def agree(network, reference, images, mixing):
    """Outputs, all gradients of the weights and all gradients of the mixing are those of the reference; the outputs."""
    outputs, weights, factors = gradients(network, images, mixing)
    expected_outputs, expected_weights, expected_factors = gradients(reference, images, mixing)
    close({"outputs": outputs}, {"outputs": expected_outputs}, OUTPUT)
    close(taken_apart(network, weights), expected_weights, GRADIENT)
    close(factors, expected_factors, GRADIENT)
    return outputs


CASES = {
    "1 cell": Case(cells=1),
    "2 cells": Case(cells=2, channels=5, nodes=3),
    "3 cells": Case(cells=3, channels=4),
    "5 cells": Case(cells=5, channels=2),
    "8 cells": Case(cells=8, channels=2, size=(9, 9)),
    "4 nodes": Case(cells=2, nodes=4, channels=2),
    "1 node": Case(cells=3, nodes=1),
    "odd size": Case(size=(7, 7)),
    "not square": Case(size=(5, 8), cells=4),
    "tiny images": Case(size=(3, 2)),
    "grey": Case(input_channels=1, stem_multiplier=1),
    "no reduction": Case(reductions=()),
    "reductions in a row": Case(cells=4, reductions=(1, 2), size=(11, 9)),
    "reductions at both ends": Case(cells=3, reductions=(0, 2)),
    "own candidates": Case(cells=4, nodes=3, masked=True),
    "edge factors": Case(edges=True),
    "mixing a cell": Case(cells=5, channels=2, leading=True),
    "all at once": Case(
        cells=5, nodes=3, channels=3, size=(7, 9), masked=True, edges=True, leading=True, activation=nn.SiLU
    ),
    "one operation": Case(candidates=("sep_conv_3x3",)),
    "two operations": Case(candidates=("skip_connect", "none"), reductions=()),
    "partial channels": Case(channels=4, partial=2, cells=4, size=(7, 8)),
    "a quarter of the channels": Case(channels=8, partial=4, edges=True, cells=2, reductions=(0,)),
    "partial channels, all at once": Case(
        cells=4, nodes=3, channels=6, partial=3, size=(5, 8), masked=True, edges=True, leading=True, activation=nn.SiLU
    ),
    "no BatchNorm after pools": Case(form=Form(affine=False, pool_norm=False)),
    "no running statistics": Case(form=Form(affine=False, pool_norm=False, statistics=False), edges=True),
    "another order": Case(candidates=CANDIDATES[::-1]),
}


@pytest.fixture(params=["small", "large", "gpu"])
def tensors(request, monkeypatch):
    """Whether tensors count as large: fewer of them are kept, a CPU computes them a copy at a time, and a GPU together."""
    if request.param == "small":
        return
    monkeypatch.setattr(LARGE, "value", 1)
    if request.param == "large":
        monkeypatch.setattr(CACHE, "value", 1)
    else:
        as_on_a_gpu(monkeypatch)


def as_on_a_gpu(monkeypatch):
    """Torch's operators on a CPU, as they are called on any other device."""
    monkeypatch.setattr(stages, "copies_together", lambda state: ALL.value)
    monkeypatch.setattr(pointwise, "as_product", lambda x: True)
    # In bf16 oneDNN's gradient of dilated weights is garbage (torch 2.14, channels_last, AVX-512), and on_cpu does without it.
    monkeypatch.setattr(depthwise, "on_cpu", lambda x: x.dtype == torch.bfloat16)
    monkeypatch.setattr(pooling, "as_torch", lambda x: False)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_stacks_equal_the_reference(case, training, tensors):
    network, reference = (net.train(training) for net in case.both())
    agree(network, reference, case.images(), case.mixing())


SECOND = ["3 cells", "all at once", "partial channels, all at once", "no running statistics"]


@pytest.mark.parametrize("case", [CASES[name] for name in SECOND], ids=SECOND)
def test_second_derivatives_equal_those_of_the_reference(case, tensors):
    """What `unrolled_exact` needs: gradients of the weights, of a function of the mixing's gradients."""
    mixing, found = case.mixing(), []
    for network in case.both():
        first = torch.autograd.grad(
            network(case.images(), mixing).square().sum(), list(tensors_of(mixing).values()), create_graph=True
        )
        named = dict(network.named_parameters())
        loss = sum(gradient.square().sum() for gradient in first)
        second = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
        found.append((network, dict(zip(named, second, strict=True))))
    (network, stacked), (_, expected) = found
    close(taken_apart(network, stacked), expected, GRADIENT)


@pytest.mark.parametrize("name", ["3 cells", "own candidates", "all at once"])
def test_running_statistics_move_as_in_the_reference(name, tensors):
    case = CASES[name]
    network, reference = case.both()
    mixing = case.mixing()
    with tracking_statistics(network), torch.no_grad():
        for seed in (10, 11):
            close({"": network(case.images(seed), mixing)}, {"": reference(case.images(seed), mixing)}, OUTPUT)

    def buffers(tensors):
        return {name: tensor for name, tensor in tensors.items() if "running" in name}

    close(buffers(taken_apart(network, network.state_dict())), buffers(reference.state_dict()), OUTPUT)
    network.eval(), reference.eval()
    close({"": network(case.images(), mixing)}, {"": reference(case.images(), mixing)}, OUTPUT)


def large(channels, dtype, frozen):
    """What a cell makes of images of 1 MiB and more, and the gradients of its mixing and, unless `frozen`, of all weights; in float64."""
    # Without ReLU and max-pool, whose gradients jump where a rounding decides.
    smooth = {"candidates": ("avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"), "activation": nn.SiLU}
    case = Case(cells=1, nodes=1, channels=channels, size=(32, 32), reductions=(), **smooth)
    network = case.stacked().requires_grad_(not frozen).to(dtype)
    factors = case.mixing()["normal"].operations.detach().to(dtype).requires_grad_()
    features = []
    network.cells[-1].register_forward_hook(lambda *call: features.append(call[-1]))
    network(case.images(batch=64).to(dtype), {"normal": Mixing(factors)})
    upstream = torch.randn(features[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    weights = {} if frozen else {name: tensor for name, tensor in network.named_parameters() if "cells" in name}
    wanted = {"mixing": factors, **weights}
    found = torch.autograd.grad((features[0] * upstream.to(dtype)).sum(), list(wanted.values()))
    return {"features": features[0].detach()} | dict(zip(wanted, found, strict=True))


@pytest.fixture(scope="module")
def exact():
    """The same in float64, by channels; by torch's own layers, as for small images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LARGE, "value", float("inf"))
        patch.setattr(CACHE, "value", float("inf"))
        return {channels: large(channels, torch.float64, frozen=False) for channels in (12, 16)}


@pytest.mark.parametrize("frozen", [False, True], ids=["weights", "alphas"])
@pytest.mark.parametrize(
    ("device", "precision", "channels", "entered", "together"),
    [
        ("cpu", "fp32", 12, "folded", 1),
        ("cpu", "fp32", 16, "pointwise_norm", 1),
        ("cpu", "bf16", 12, "pointwise_norm", 2),
        ("cpu", "bf16", 16, "pointwise_norm", 1),
        ("gpu", "fp32", 12, "pointwise_norm", ALL.value),
        ("gpu", "bf16", 16, "pointwise_norm", ALL.value),
    ],
)
def test_large_tensors_in_every_precision(device, precision, channels, entered, together, frozen, exact, monkeypatch):
    """What begins at 1 MiB is entered, in every precision, and is right; also where operators answer what their masks leave out."""
    calls, at_once = set(), set()
    if device == "gpu":
        as_on_a_gpu(monkeypatch)

    def noting(module, name, note):
        function = getattr(module, name)

        def noted(*arguments, **settings):
            result = function(*arguments, **settings)
            note(result)
            return result

        monkeypatch.setattr(module, name, noted)

    noting(layers, "folded", lambda result: calls.add("folded"))
    noting(layers, "pointwise_norm", lambda result: calls.add("pointwise_norm"))
    noting(stages, "copies_together", at_once.add)
    with tiny.Generous(), torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
        found = large(channels, torch.float32, frozen)
    assert (calls, at_once) == ({entered}, {together})
    for name, tensor in found.items():
        expected = exact[channels][name]
        error = float((tensor.double() - expected).norm() / expected.norm())
        assert error < (1e-4 if precision == "fp32" else 0.03), name


def test_running_statistics_rest_outside_tracking():
    case = Case()
    network = case.stacked()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def moved():
        return [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])]

    gradients(network, case.images(), case.mixing())
    functional_call(network, dict(network.named_parameters()), (case.images(), case.mixing()))
    network.eval()
    with tracking_statistics(network):  # evaluation never moves them
        gradients(network, case.images(), case.mixing())
    network.train()
    with pytest.raises(ZeroDivisionError), tracking_statistics(network):
        raise ZeroDivisionError
    gradients(network, case.images(), case.mixing())
    assert moved() == []
    with tracking_statistics(network):
        network(case.images(), case.mixing())
    assert sorted(moved()) == sorted(name for name in before if "running" in name)


def test_training_output_does_not_depend_on_running_statistics():
    case = Case()
    network = case.stacked()
    before = network(case.images(), case.mixing())
    with tracking_statistics(network):
        assert torch.equal(network(case.images(), case.mixing()), before)
    assert torch.equal(network(case.images(), case.mixing()), before)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_zero_mixing(training, tensors):
    """Every node is zero, so the bias of the classifier is all that remains, and no gradient is NaN."""
    case = Case(edges=True)
    network, reference = (net.train(training) for net in case.both())
    mixing = {
        cell: Mixing(torch.zeros_like(one.operations).requires_grad_(), one.edges)
        for cell, one in case.mixing().items()
    }
    outputs = agree(network, reference, case.images(), mixing)
    assert torch.equal(outputs, network.classifier.bias.expand_as(outputs))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_one_hot_mixing(training, tensors):
    case = Case(nodes=3)
    network, reference = (net.train(training) for net in case.both())
    mixing = {
        cell: Mixing(F.one_hot(one.operations.argmax(-1), len(CANDIDATES)).double())
        for cell, one in case.mixing().items()
    }
    close({"": network(case.images(), mixing)}, {"": reference(case.images(), mixing)}, OUTPUT)


def test_none_only_takes_its_share(tensors):
    """Nothing is computed for `none`: its factor changes nothing, and its gradient is zero."""
    case = Case()
    network, mixing = case.stacked(), case.mixing()
    outputs, _, factors = gradients(network, case.images(), mixing)
    for cell, one in mixing.items():
        assert factors[f"{cell} operations"][:, CANDIDATES.index("none")].count_nonzero() == 0
        with torch.no_grad():
            one.operations[:, CANDIDATES.index("none")] = 9.0
    assert torch.equal(network(case.images(), mixing), outputs)
    assert not any("none" in name for name in network.state_dict())


def test_an_edge_that_only_has_none_brings_nothing(tensors):
    """Nothing enters node 3, which feeds node 4; and from node 2 nothing leaves."""
    mask = torch.ones(9, len(CANDIDATES), dtype=torch.bool)
    mask[[2, 3, 4, 7], 1:] = False
    case = Case(nodes=3, reductions=(1,), alive={cell: mask for cell in CELLS})
    network, reference = case.both()
    agree(network, reference, case.images(), case.mixing())


def test_published_size():
    space = DartsSpace(SpaceConfig())
    tables = space.tables()
    with torch.device("meta"):
        network = space.supernet(Skeleton(8, 16, 10), tables)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_930_618
    assert network.costs().parameters == 1_930_618
    assert round(network.costs().macs / 1e6, 1) == 300.3
    assert len(list(network.parameters())) == 411  # 1,399 in the per-edge network


def test_weights_start_alike_whatever_the_stacking():
    """A stack's convolutions are initialized as those of single edges are: by the fan-in of one copy."""
    torch.manual_seed(0)
    network = Case(channels=8, nodes=4, cells=1, reductions=()).space.supernet(
        Skeleton(1, 8, 5), Case(nodes=4).space.tables()
    )
    for name, tensor in network.named_parameters():
        if tensor.dim() == 4:
            bound = tensor[0].numel() ** -0.5
            assert 0.85 * bound < tensor.abs().max() <= bound, name


# Carrying weights over ---------------------------------------------------------


@dataclass(frozen=True)
class Pruning:
    """A supernet, its successor with fewer candidates, and a mixing in which what dies has no weight."""

    case: Case
    alive: dict

    @classmethod
    def create(cls, case):
        generator = torch.Generator().manual_seed(5)
        alive = {}
        for cell, mask in case.alive.items():
            left = mask & (torch.rand(mask.shape, generator=generator) < 0.5)
            alive[cell] = torch.where(left.any(1, keepdim=True), left, mask)
        return cls(case, alive)

    def mixing(self):
        return {
            cell: Mixing((one.operations * self.alive[cell]).detach().requires_grad_(), one.edges)
            for cell, one in self.case.mixing().items()
        }


PRUNINGS = {
    name: Pruning.create(case)
    for name, case in {
        "all candidates": Case(nodes=3, cells=4, channels=4),
        "own candidates": Case(nodes=3, masked=True),
        "edge factors, a cell each": Case(cells=5, channels=2, edges=True, leading=True),
        "skip and none": Case(candidates=("none", "skip_connect", "sep_conv_3x3")),
    }.items()
}


def shrunk(pruning, network):
    """The successor with everything it has in common with `network`."""
    smaller = pruning.case.stacked(pruning.alive)
    smaller.load_state_dict(transfer(network, smaller, network.state_dict()))
    return smaller


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("pruning", PRUNINGS.values(), ids=PRUNINGS)
def test_a_pruned_network_is_the_same_function(pruning, training):
    network = pruning.case.stacked()
    smaller = shrunk(pruning, network)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in network.parameters())
    images, mixing = pruning.case.images(), pruning.mixing()
    before = gradients(network.train(training), images, mixing)
    after = gradients(smaller.train(training), images, mixing)
    close({"": after[0]}, {"": before[0]}, OUTPUT)
    close(after[1], transfer(network, smaller, before[1]), GRADIENT)
    alive = {f"{cell} operations": mask for cell, mask in pruning.alive.items()}
    close(after[2], {name: g * alive.get(name, True) for name, g in before[2].items()}, GRADIENT)


@pytest.mark.parametrize("pruning", PRUNINGS.values(), ids=PRUNINGS)
def test_pruning_commutes_with_training(pruning):
    """Prune then train, or train then prune: the same weights, running statistics and momentum."""
    images, mixing = pruning.case.images(), pruning.mixing()

    def sgd(network):
        return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=3e-4)

    def train(network, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            with tracking_statistics(network):
                F.cross_entropy(network(images, mixing), torch.arange(3)).backward()
            optimizer.step()

    def momentum(network, optimizer):
        return {name: optimizer.state[p]["momentum_buffer"] for name, p in network.named_parameters()}

    network = pruning.case.stacked()
    optimizer = sgd(network)
    train(network, optimizer)
    smaller = shrunk(pruning, network)
    second = sgd(smaller)
    for name, buffer in transfer(network, smaller, momentum(network, optimizer)).items():
        second.state[smaller.get_parameter(name)]["momentum_buffer"] = buffer.clone()
    train(smaller, second)
    train(network, optimizer)
    close(smaller.state_dict(), transfer(network, smaller, network.state_dict()), OUTPUT)
    close(momentum(smaller, second), transfer(network, smaller, momentum(network, optimizer)), OUTPUT)


def test_carry_between_equal_networks_changes_nothing():
    case = Case(nodes=3, masked=True)
    network = case.stacked()
    carried = transfer(network, case.stacked(), network.state_dict())
    assert carried.keys() == network.state_dict().keys()
    assert all(torch.equal(carried[name], tensor) for name, tensor in network.state_dict().items())


def test_carry_refuses_what_the_old_network_does_not_have():
    pruning = PRUNINGS["all candidates"]
    full, smaller = pruning.case.stacked(), pruning.case.stacked(pruning.alive)
    with pytest.raises(KeyError):
        transfer(smaller, full, smaller.state_dict())


# Widening ----------------------------------------------------------------------

WIDER = Case(nodes=2, cells=4, channels=8, partial=4)


@pytest.mark.parametrize("partial", [2, 1])
def test_a_widened_network_has_repeated_channels(partial):
    """Where added channels of a stack's input repeat the others, so do those of its output, in both modes."""
    network = WIDER.stacked()
    wider = WIDER.stacked(partial=partial)
    wider.load_state_dict(transfer(network, wider, network.state_dict()))
    close(transfer(network, WIDER.stacked(), network.state_dict()), dict(network.state_dict()), OUTPUT)
    compared = set()
    for (_, narrow, name, keys), (_, wide, _, _) in zip(network.stacks(), wider.stacks(), strict=True):
        copies, repeat = len(keys), torch.arange(wide.width) % narrow.width
        x = torch.randn(4, copies, narrow.width, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        halves = name == "skip_connect" and narrow.stride == 2
        order = torch.cat((torch.arange(wide.width // 2) % (narrow.width // 2),) * 2)
        order[wide.width // 2 :] += narrow.width // 2
        for training in (True, False):
            small, large = (stage.operations[name].train(training) for stage in (narrow, wide))
            expected = small(x.flatten(1, 2)).unflatten(1, (copies, -1))[:, :, order if halves else repeat]
            found = large(x[:, :, repeat].flatten(1, 2)).unflatten(1, (copies, -1))
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        compared.add((name, narrow.stride))
    assert len(compared) == 2 * 7


def test_momentum_widens_with_its_weight():
    """The same mapping by name: what one weight is made of, its momentum is made of."""
    network, wider = WIDER.stacked(), WIDER.stacked(partial=2)
    buffers = {name: 2 * weight.detach() for name, weight in network.named_parameters()}
    state = transfer(network, wider, network.state_dict())
    found = transfer(network, wider, buffers)
    assert found.keys() == dict(wider.named_parameters()).keys()
    assert all(torch.equal(found[name], 2 * state[name]) for name in found)


def test_a_network_does_not_get_narrower():
    with pytest.raises(ValueError, match="operations on 4 channels cannot become those on 2"):
        transfer(WIDER.stacked(partial=2), WIDER.stacked(), WIDER.stacked(partial=2).state_dict())


def test_channels_that_no_part_divides_are_refused():
    with pytest.raises(UserError, match=r"channels: is no multiple of 4.*fix: give channels=8") as caught:
        Case(channels=6, partial=4).stacked()
    assert caught.value.code == 2
