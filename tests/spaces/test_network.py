"""Networks of genotypes: published sizes, costs by torch's counter, discretization, drop-path, auxiliary head."""

import json
import random

import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from darts_lite.benchmarking.reference import CANDIDATES, ReferenceCell
from darts_lite.costs import Costs, count
from darts_lite.genotypes.genotype import Cell, Edge, Genotype
from darts_lite.genotypes.text import PUBLISHED, parse_text, published, published_table, to_text
from darts_lite.operations import NOISE, OPERATIONS
from darts_lite.operations.kernels import pointwise
from darts_lite.operations.kernels.thresholds import ALL
from darts_lite.operations.layers import BatchNorm
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces import cell as cells
from darts_lite.spaces import stage as stages
from darts_lite.spaces.auxiliary import SevenBySevenHead
from darts_lite.spaces.darts import DartsSpace, types
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.stem import STEMS, choose, imagenet
from darts_lite.spaces.table import Mixing
from darts_lite.spaces.transfer import transfer

NAMES = tuple(name for name in OPERATIONS if name != NOISE)
network = tiny.network
POOLS = ("max_pool_3x3", "avg_pool_3x3")


def cell(*edges, nodes=None):
    """A cell of (operation, source, target), all of its nodes concatenated."""
    nodes = nodes or max(target for _, _, target in edges) - 1
    return Cell(tuple(Edge(*edge) for edge in edges), tuple(range(2, 2 + nodes)))


def both(one):
    return Genotype("darts", {"normal": one, "reduce": one})


def randomize(module, seed=0):
    """Random weights and running statistics, in float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.double().state_dict().items():
            draw = torch.randn(tensor.shape, dtype=torch.float64, generator=generator)
            spread = {"running_var": 0.5 + draw.abs(), "running_mean": 0.5 * draw}
            scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 1.0
            tensor.copy_(spread.get(name.rpartition(".")[2], draw * scale))
    return module


def images(size=(8, 8), batch=3, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *size, dtype=torch.float64, generator=generator)


# The shapes that a search does not find by itself, but a genotype may have.
SPECIAL = {
    "one node": both(cell(("sep_conv_3x3", 0, 2), ("dil_conv_5x5", 1, 2))),
    "one edge": both(cell(("skip_connect", 1, 2))),
    "node without edges": both(
        cell(("sep_conv_3x3", 0, 2), ("max_pool_3x3", 1, 2), ("skip_connect", 3, 4), ("sep_conv_5x5", 2, 4))
    ),
    "last node without edges": both(cell(("skip_connect", 0, 2), ("avg_pool_3x3", 1, 2), nodes=3)),
    "two edges from one source": both(
        cell(("sep_conv_3x3", 0, 2), ("skip_connect", 0, 2), ("max_pool_3x3", 2, 3), ("avg_pool_3x3", 2, 3))
    ),
    "an edge twice": both(
        cell(
            *[("avg_pool_3x3", 0, 2)] * 2,
            *[("skip_connect", 1, 2)] * 2,
            *[("sep_conv_7x7", 1, 3)] * 2,
            ("conv_7x1_1x7", 0, 3),
        )
    ),
    "all operations on one edge": both(cell(*((name, 1, 2) for name in NAMES))),
    "unlike cells": Genotype(
        "darts",
        {
            "normal": cell(("dil_conv_3x3", 0, 2), ("sep_conv_5x5", 1, 2), ("skip_connect", 2, 3)),
            "reduce": cell(("skip_connect", 0, 2), ("skip_connect", 1, 3), ("avg_pool_3x3", 0, 3)),
        },
    ),
}
RANDOM = {
    f"random of {nodes}": tiny.random_genotype(nodes, NAMES, random.Random(nodes)) for nodes in (1, 2, 3, 4, 5, 6)
}
GENOTYPES = {**SPECIAL, **RANDOM}


# Published sizes ---------------------------------------------------------------


def parameters(genotype, **settings):
    """Of the network that everybody reports: 20 cells, 36 channels, 10 classes, without auxiliary head."""
    with torch.device("meta"):
        made = network(genotype, Skeleton(20, 36, 10), **settings)
    return sum(parameter.numel() for parameter in made.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_published_size(name):
    assert parameters(published(name)) == published_table()[name]["parameters"]


def test_sizes_of_darts_itself():
    assert parameters(published("darts_v1")) == 3_169_414
    assert parameters(published("darts_v2")) == 3_349_342


# As Liu et al. 2019 retrained them.
NASNET_A = (
    "Genotype(normal=[('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 0), ('sep_conv_3x3', 0), ('avg_pool_3x3', 1), "
    "('skip_connect', 0), ('avg_pool_3x3', 0), ('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 1)], "
    "normal_concat=[2, 3, 4, 5, 6], reduce=[('sep_conv_5x5', 1), ('sep_conv_7x7', 0), ('max_pool_3x3', 1), ('sep_conv_7x7', 0), "
    "('avg_pool_3x3', 1), ('sep_conv_5x5', 0), ('skip_connect', 3), ('avg_pool_3x3', 2), ('sep_conv_3x3', 2), "
    "('max_pool_3x3', 1)], reduce_concat=[4, 5, 6])"
)
AMOEBANET_A = (
    "Genotype(normal=[('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 2), ('sep_conv_3x3', 0), "
    "('avg_pool_3x3', 3), ('sep_conv_3x3', 1), ('skip_connect', 1), ('skip_connect', 0), ('avg_pool_3x3', 1)], "
    "normal_concat=[4, 5, 6], reduce=[('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('max_pool_3x3', 0), ('sep_conv_7x7', 2), "
    "('sep_conv_7x7', 0), ('avg_pool_3x3', 1), ('max_pool_3x3', 0), ('max_pool_3x3', 1), ('conv_7x1_1x7', 0), "
    "('sep_conv_3x3', 5)], reduce_concat=[3, 4, 6])"
)


@pytest.mark.parametrize("text", [NASNET_A, AMOEBANET_A], ids=["NASNet-A", "AmoebaNet-A"])
def test_evolved_and_reinforced_cells_build_and_learn(text):
    genotype, skeleton = parse_text(text), Skeleton(3, 4, 10, image_size=(9, 14))
    assert to_text(genotype) is not None and parse_text(to_text(genotype)) == genotype
    with torch.device("meta"):
        assert network(genotype, skeleton).costs().macs == counted(network(genotype, skeleton), skeleton)
    made = network(genotype, skeleton)
    made(torch.randn(2, 3, 9, 14)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in made.parameters())


def test_the_size_of_amoebanet_a():
    assert parameters(parse_text(AMOEBANET_A)) == 3_145_078  # 3.1 M as published


def test_an_edge_twice_counts_twice():
    """In a final network, and in one that is called with a mixing, in whatever way its nodes are summed."""
    once, twice = (both(cell(*[("avg_pool_3x3", 0, 2)] * times, ("max_pool_3x3", 1, 2))) for times in (1, 2))
    skeleton, found = Skeleton(1, 2, 3, reductions=()), []
    for genotype in (twice, once):
        made = randomize(network(genotype, skeleton, form="search")).eval()
        made.load_state_dict(
            {name: found[0][0].state_dict()[name] for name in made.state_dict()} if found else made.state_dict()
        )
        found.append((made, genotype))
    (two, _), (one, _) = found
    plain = Mixing(torch.tensor([[1.0, 0], [1, 0], [0, 1]], dtype=torch.float64))
    doubled = Mixing(torch.tensor([[2.0, 0], [0, 1]], dtype=torch.float64))
    expected = one(images(), {"normal": doubled})
    torch.testing.assert_close(two(images()), expected)
    for together in (1, 2, ALL.value):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stages, "copies_together", lambda x, together=together: together)
            torch.testing.assert_close(two(images(), {"normal": plain}), expected)


def test_sizes_agree_with_an_independent_table(data_folder):
    table = json.loads((data_folder / "darts_genotypes.json").read_text())["genotypes"]
    found = {}
    for row in table:
        cells = {}
        for kind in ("normal", "reduce"):
            pairs, concat = row["genotype"][kind], row["genotype"][f"{kind}_concat"]
            edges = [(operation, source, 2 + place // 2) for place, (operation, source) in enumerate(pairs)]
            cells[kind] = {"edges": edges, "concat": tuple(concat)}
        if all(operation in NAMES for one in cells.values() for operation, _, _ in one["edges"]):
            made = {
                kind: Cell(tuple(Edge(*edge) for edge in one["edges"]), one["concat"]) for kind, one in cells.items()
            }
            found[Genotype("darts", made)] = row["params_computed"]
    expected = {published(name): parameters(published(name)) for name in PUBLISHED}
    amoebanet, nasnet = parse_text(AMOEBANET_A), parse_text(NASNET_A)
    assert found == {**expected, amoebanet: parameters(amoebanet), nasnet: None}, "of NASNet-A it has no number"


# Costs -------------------------------------------------------------------------


def counted(made, skeleton):
    """Multiply-accumulates of one image, by torch's counter: half of its FLOPs.

    On the meta device, where every convolution is computed as it is defined; a CPU's faster way leaves out taps that
    meet only padding, and pads odd images. Groups as groups: a GPU multiplies by zeros between them.
    """
    shape = 1, skeleton.input_channels, *skeleton.image_size
    device = next(made.parameters()).device
    with FlopCounterMode(display=False) as counter, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pointwise, "as_product", lambda x: False)
        patch.setattr(cells, "on_gpu", lambda x: False)
        made.eval()(torch.zeros(shape, device=device))
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


SKELETONS = {
    "usual": Skeleton(6, 8, 10),
    "odd sizes": Skeleton(5, 6, 7, image_size=(33, 21)),
    "odd channels": Skeleton(4, 5, 3, image_size=(17, 30), stem_multiplier=1),
    "grey, reductions in a row": Skeleton(5, 4, 2, 1, (28, 28), (1, 2, 4)),
    "no reduction": Skeleton(2, 4, 10, reductions=()),
    "one cell": Skeleton(1, 16, 10, image_size=(7, 8)),
    "large": Skeleton(5, 6, 10, image_size=(96, 96), stem="imagenet"),
    "large and odd, a reduction first": Skeleton(3, 5, 4, 1, (97, 131), (0, 2), stem="imagenet"),
}


@pytest.mark.parametrize("form", ["search", "final"])
@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_costs_are_those_of_torchs_counter(skeleton, form):
    for genotype in (GENOTYPES["random of 4"], GENOTYPES["node without edges"], GENOTYPES["two edges from one source"]):
        with torch.device("meta"):
            made = network(genotype, skeleton, form=form)
        parameters = sum(parameter.numel() for parameter in made.parameters())
        assert made.costs() == Costs(parameters, counted(made, skeleton))


@pytest.mark.parametrize("genotype", GENOTYPES.values(), ids=GENOTYPES)
def test_costs_of_every_kind_of_genotype(genotype):
    skeleton = Skeleton(4, 6, 10, image_size=(9, 14))
    with torch.device("meta"):
        made = network(genotype, skeleton)
    assert made.costs().macs == counted(made, skeleton)


def test_published_costs():
    skeleton = Skeleton(20, 36, 10)
    with torch.device("meta"):
        made = network(published("darts_v2"), skeleton, auxiliary=True)
    assert made.costs().parameters == 3_349_342, "the auxiliary head does not count"
    assert made.costs().macs == counted(made, skeleton) == 528_359_040


# At 14 cells, 48 channels, 224x224, 1000 classes. Millions of parameters as published; the published multiply-adds count more than
# convolutions and linear layers, see the test after this one.
@pytest.mark.parametrize(
    ("name", "parameters"), [("darts_v2", 4.7), ("pc_darts", 5.3), ("p_darts", 4.9), ("drnas", 5.7)]
)
def test_published_parameters_on_imagenet(name, parameters):
    skeleton = Skeleton(14, 48, 1000, image_size=(224, 224), stem="imagenet")
    with torch.device("meta"):
        made = network(published(name), skeleton, auxiliary=True)
    assert round(made.costs().parameters / 1e6, 1) == parameters
    assert isinstance(made.auxiliary, SevenBySevenHead) and skeleton.sizes()[0] == (28, 28)


PC_DARTS_IMAGENET = (
    "Genotype(normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)], normal_concat=range(2, 6), reduce=[('sep_conv_3x3', 0), "
    "('skip_connect', 1), ('dil_conv_5x5', 2), ('max_pool_3x3', 1), ('sep_conv_3x3', 2), ('sep_conv_3x3', 1), "
    "('sep_conv_5x5', 0), ('sep_conv_3x3', 3)], reduce_concat=range(2, 6))"
)


def one_module_an_operation(genotype):
    """The same network as published: both parts of the stem, the cells with nothing shared between their edges, the classifier."""
    channels, widths, after_reduction, made = 48, (48, 48), True, []
    for number in range(14):
        kind = "reduce" if number in (4, 9) else "normal"
        edges = {(edge.source, edge.target): edge.operation for edge in genotype.cells[kind].edges}
        pairs = [(source, target) for target in range(2, 6) for source in range(target)]
        alive = [[edges.get(pair) == name for name in CANDIDATES] for pair in pairs]
        reduction = kind == "reduce"
        channels *= 2 if reduction else 1
        made.append(
            ReferenceCell(widths, channels, 4, CANDIDATES, alive, reduction, after_reduction, nn.ReLU, final=True)
        )
        widths, after_reduction = (widths[1], 4 * channels), reduction
    return *imagenet(3, 48, nn.ReLU), nn.ModuleList(made), nn.Linear(widths[1], 1000)


def as_the_field_counts(genotype):
    """Millions of multiply-adds of one image, (of convolutions and linear layers, by the rule of ptflops).

    The rule adds 2 for each element that a BatchNorm reads, 1 for each that a ReLU makes, and 1 for each that a pool reads.
    """
    layers, rest = [], []

    def note(module, inputs, output):
        if isinstance(module, nn.Conv2d | nn.Linear):
            layers.append(module.weight.numel() * output.shape[2:].numel())
        elif isinstance(module, nn.BatchNorm2d | BatchNorm):
            rest.append(2 * inputs[0].numel())
        elif isinstance(module, nn.ReLU | nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            rest.append(inputs[0].numel())

    with torch.device("meta"):
        first, second, made, classifier = one_module_an_operation(genotype)
        pool = nn.AdaptiveAvgPool2d(1)
        for part in (first, second, made, classifier, pool):
            for module in part.modules():
                module.register_forward_hook(note)
        before_last = first(torch.zeros(1, 3, 224, 224))
        last = second(before_last)
        for one in made:
            before_last, last = last, one(before_last, last, None, None)
        classifier(pool(last).flatten(1))
    return sum(layers) / 1e6, (sum(layers) + sum(rest)) / 1e6


# Published: P-DARTS 557 M (Chen et al. 2019), PC-DARTS 586 M and, searched on ImageNet, 597 M (Xu et al. 2020): ptflops' rule gives them.
# DARTS: 574 M (Liu et al. 2019), which neither rule gives, and which stays unexplained.
@pytest.mark.parametrize(
    ("genotype", "macs"),
    [
        (published("p_darts"), 557.4),
        (published("pc_darts"), 586.4),
        (parse_text(PC_DARTS_IMAGENET), 597.2),
        (published("darts_v2"), 544.6),
    ],
    ids=["P-DARTS", "PC-DARTS", "PC-DARTS of ImageNet", "DARTS"],
)
def test_published_multiply_adds_on_imagenet_are_those_of_ptflops_rule(genotype, macs):
    layers, found = as_the_field_counts(genotype)
    assert round(found, 1) == macs
    with torch.device("meta"):
        made = network(genotype, Skeleton(14, 48, 1000, image_size=(224, 224), stem="imagenet"))
    assert made.costs().macs == round(layers * 1e6), "without the rest both count alike"


def test_large_images_go_through_both_stems_and_the_auxiliary_head():
    skeleton = Skeleton(3, 4, 5, image_size=(112, 112), stem="imagenet", reductions=(2,))
    made = network(published("darts_v2"), skeleton, auxiliary=True)
    shapes = []
    for cell in made.cells:
        cell.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    first = []
    made.cells[0].register_forward_pre_hook(lambda module, inputs: first.extend(tuple(x.shape) for x in inputs[0]))
    logits, auxiliary = made(torch.randn(2, 3, 112, 112), auxiliary=True)
    assert first == [(2, 4, 28, 28), (2, 4, 14, 14)]
    assert [shape[2:] for shape in shapes] == [(14, 14), (14, 14), (7, 7)] == [*skeleton.sizes()[1:]]
    assert logits.shape == auxiliary.shape == (2, 5) and isinstance(made.auxiliary, SevenBySevenHead)
    (logits.sum() + auxiliary.sum()).backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_which_stem():
    assert [choose("auto", size) for size in ((96, 96), (95, 300), (224, 224), (32, 32))] == [
        "imagenet",
        "cifar",
        "imagenet",
        "cifar",
    ]
    assert choose("imagenet", (8, 8)) == "imagenet" and choose("cifar", (224, 224)) == "cifar"


def around(skeleton, form, nodes=4):
    """Costs of all that is not an operation on an edge: those of a network with nothing but pools, which are free."""
    with torch.device("meta"):
        return network(both(cell(("max_pool_3x3", 0, 2), nodes=nodes)), skeleton, form=form).costs()


@pytest.mark.parametrize("form", ["search", "final"])
@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_costs_of_operations_add_up_to_those_of_the_network(skeleton, form):
    tables = DartsSpace(SpaceConfig(candidates=["none", *NAMES])).tables()
    table = DartsSpace(SpaceConfig()).costs(tables, skeleton, form)
    for kind in tables:
        assert len(table[kind]) == 14 and {len(row) for row in table[kind]} == {10}
    for seed in range(2):
        genotype = tiny.random_genotype(4, NAMES, random.Random(seed))
        chosen = [
            table[kind][tables[kind].edges.index((edge.source, edge.target))][
                tables[kind].operations.index(edge.operation)
            ]
            for kind, one in genotype.cells.items()
            for edge in one.edges
        ]
        with torch.device("meta"):
            made = network(genotype, skeleton, form=form)
        assert made.costs() == sum(chosen, around(skeleton, form))


def test_costs_of_partial_channels_are_those_of_torchs_counter():
    skeleton, space = Skeleton(3, 8, 10, image_size=(9, 14)), DartsSpace(SpaceConfig(nodes=2))
    tables = space.tables()
    with torch.device("meta"):
        supernet, whole = (space.supernet(skeleton, tables, partial=partial) for partial in (4, 1))
    assert supernet.costs().macs == counted(supernet, skeleton) < whole.costs().macs / 3
    assert supernet.costs().parameters == sum(parameter.numel() for parameter in supernet.parameters())


def test_costs_of_the_supernet_add_up():
    skeleton = SKELETONS["odd sizes"]
    tables = DartsSpace(SpaceConfig()).tables()
    supernet = DartsSpace(SpaceConfig()).supernet(skeleton, tables)
    table = DartsSpace(SpaceConfig()).costs(tables, skeleton, "search")
    assert supernet.costs() == sum(
        (one for rows in table.values() for row in rows for one in row), around(skeleton, "search")
    )


def test_a_pool_and_none_cost_nothing_and_a_type_without_cells_too():
    tables = DartsSpace(SpaceConfig()).tables()
    table = DartsSpace(SpaceConfig()).costs(tables, Skeleton(3, 4, 10, reductions=()))
    assert {one for row in table["reduce"] for one in row} == {Costs(0, 0)}
    assert {one for row in table["normal"] for one in row[:4]} == {Costs(0, 0)}  # none, pools, identity
    assert min(one.macs for row in table["normal"] for one in row[4:]) > 0


def test_costs_of_a_linear_layer():
    assert count(nn.Linear(3, 5)) == Costs(20, 15)


# The supernet's function --------------------------------------------------------


def one_hot(genotype, tables):
    """The mixing that picks the edges of the genotype, and nothing else."""
    mixing = {}
    for kind, table in tables.items():
        weights = torch.zeros(table.alive.shape, dtype=torch.float64)
        for edge in genotype.cells[kind].edges:
            weights[table.edges.index((edge.source, edge.target)), table.operations.index(edge.operation)] += 1
        mixing[kind] = Mixing(weights)
    return mixing


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("genotype", GENOTYPES.values(), ids=GENOTYPES)
def test_discretizing_is_one_hot_mixing(genotype, training, stem):
    """The invariant that defines "discretize"."""
    skeleton = Skeleton(4, 3, 5, image_size=(9, 8), stem=stem)
    nodes = max(len(one.concat) for one in genotype.cells.values())
    space = DartsSpace(SpaceConfig(nodes=nodes, candidates=["none", *NAMES]))
    tables = space.tables()
    supernet = randomize(space.supernet(skeleton, tables)).train(training)
    derived = network(genotype, skeleton, form="search").double().train(training)
    derived.load_state_dict(transfer(supernet, derived, supernet.state_dict()))
    expected = supernet(images((9, 8)), one_hot(genotype, tables))
    torch.testing.assert_close(derived(images((9, 8))), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("seed", range(3))
def test_the_two_forms_differ_in_affine_and_pools_alone(seed, training):
    genotype = tiny.random_genotype(3, [name for name in NAMES if name not in POOLS], random.Random(seed))
    skeleton = Skeleton(4, 3, 5)
    search = randomize(network(genotype, skeleton, form="search")).train(training)
    final = network(genotype, skeleton, form="final").double().train(training)
    missing, unexpected = final.load_state_dict(transfer(search, final, search.state_dict()), strict=False)
    assert not unexpected
    assert all(name.rpartition(".")[2] in ("weight", "bias") and ".norm." in name for name in missing)
    torch.testing.assert_close(final(images()), search(images()), rtol=0, atol=1e-12)


def test_final_pools_are_plain():
    genotype = both(cell(("max_pool_3x3", 0, 2), ("avg_pool_3x3", 1, 2)))
    names = {form: set(network(genotype, Skeleton(2, 4, 5), form=form).state_dict()) for form in ("search", "final")}
    assert any("pool" in name for name in names["search"])
    assert not any("pool" in name for name in names["final"])


@pytest.mark.parametrize("genotype", GENOTYPES.values(), ids=GENOTYPES)
def test_gradients_of_final_networks_are_finite_and_reach_the_stem(genotype):
    made = randomize(network(genotype, Skeleton(3, 4, 5)))
    made(images((11, 11))).square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())
    assert made.stem[0].weight.grad.abs().max() > 0


# Drop-path ----------------------------------------------------------------------

P = torch.tensor(0.3, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def single(genotype, batch=2000, **settings):
    """A network of one normal cell in evaluation mode, and many copies of one image."""
    made = randomize(network(genotype, Skeleton(1, 2, 3, reductions=(), **settings))).eval()
    return made, images((4, 4), batch=1).expand(batch, -1, -1, -1)


TWO = both(cell(("sep_conv_3x3", 0, 2), ("dil_conv_3x3", 1, 2)))


def test_drop_path_keeps_the_expectation():
    """One node is linear in what its edges bring, so the mean over draws is the output without drop-path."""
    made, x = single(TWO, batch=20_000)
    with torch.no_grad():
        dropped, plain = made(x, drop_path=P, generator=generator()), made(x[:1])
    error = dropped.std(0) / len(x) ** 0.5
    assert error.min() > 1e-4
    assert ((dropped.mean(0) - plain).abs() < 5 * error).all()


def test_drop_path_drops_each_edge_for_each_sample():
    """Every sample is one of four sums, as often as independent draws give."""
    made, x = single(TWO)
    with torch.no_grad():
        dropped = made(x, drop_path=P, generator=generator())
        sums = []
        for factors in ((0, 0), (0, 1), (1, 0), (1, 1)):
            keep = torch.tensor([factors]) / (1 - P)
            stem = made.activation(made.stem(x[:1]))
            sums.append(made._classify(made.cells[0]([stem, stem], None, keep))[0])
    distance = (dropped[:, None] - torch.stack(sums)).abs().amax(-1)  # (sample, sum)
    assert (distance.amin(1) < 1e-12).all()
    found = torch.bincount(distance.argmin(1), minlength=4) / len(x)
    expected = torch.tensor([0.09, 0.21, 0.21, 0.49])
    assert ((found - expected).abs() < 5 * (expected / len(x)).sqrt()).all()


def test_drop_path_spares_the_identity():
    made, x = single(both(cell(("skip_connect", 0, 2), ("skip_connect", 1, 2), ("skip_connect", 2, 3))))
    assert torch.equal(made(x, drop_path=P, generator=generator()), made(x))

    # Beside another operation on the same states, too.
    made, x = single(both(cell(("skip_connect", 0, 2), ("sep_conv_3x3", 0, 2))))
    only, _ = single(both(cell(("skip_connect", 0, 2))))
    only.load_state_dict(transfer(made, only, made.state_dict()))
    dropped = made(x, drop_path=P, generator=generator())
    without = (dropped - only(x)).abs().amax(1) < 1e-12
    assert 0.2 < without.double().mean() < 0.4


def test_drop_path_drops_pools_and_reductions_edge_by_edge():
    """Edges that share one computation are still dropped one by one."""
    pools = both(cell(("max_pool_3x3", 0, 2), ("max_pool_3x3", 0, 3)))
    made, x = single(pools)
    with torch.no_grad():
        outputs = made(x, drop_path=P, generator=generator())
    assert len(outputs.mul(1e6).round().unique(dim=0)) == 4

    skips = network(both(cell(("skip_connect", 0, 2), ("skip_connect", 1, 2))), Skeleton(1, 2, 3, reductions=(0,)))
    outputs = randomize(skips).eval()(x, drop_path=P, generator=generator())
    assert len(outputs.mul(1e6).round().unique(dim=0)) == 4


def test_drop_path_off():
    made, x = single(TWO, batch=5)
    assert torch.equal(made(x, generator=generator()), made(x))
    nothing = torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(made(x, drop_path=nothing, generator=generator()), made(x), rtol=0, atol=1e-12)
    outputs, head = made(x, auxiliary=True)
    assert torch.equal(outputs, made(x)) and head is None


def test_drop_path_draws_from_the_given_generator_alone():
    made, x = single(GENOTYPES["random of 4"], batch=6)
    state = torch.get_rng_state()
    first = made(x, drop_path=P, generator=generator(5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert torch.equal(made(x, drop_path=P, generator=generator(5)), first)
    assert not torch.equal(made(x, drop_path=P, generator=generator(6)), first)
    outputs, _ = made(x, drop_path=P, generator=generator(5), auxiliary=True)
    assert torch.equal(outputs, first)


def test_drop_path_is_drawn_anew_in_every_cell():
    made = randomize(network(both(cell(("sep_conv_3x3", 1, 2))), Skeleton(2, 2, 3, reductions=()))).eval()
    x = images((4, 4), batch=1).expand(500, -1, -1, -1)
    outputs = made(x, drop_path=P, generator=generator())
    assert len(outputs.detach().mul(1e6).round().unique(dim=0)) == 3  # the last cell dropped, or not, after one of two


def test_drop_path_keeps_float32():
    made = network(TWO, Skeleton(2, 2, 3)).float()
    outputs = made(images().float(), drop_path=torch.tensor(0.3), generator=generator())
    assert outputs.dtype == torch.float32


# Auxiliary head -----------------------------------------------------------------


def test_auxiliary_head_of_darts():
    skeleton = Skeleton(20, 36, 10)
    with torch.device("meta"):
        made = network(published("darts_v2"), skeleton, auxiliary=True)
        outputs, auxiliary = made(torch.zeros(2, 3, 32, 32), auxiliary=True)
    assert outputs.shape == auxiliary.shape == (2, 10)
    assert made.auxiliary_cell == 13
    assert sum(parameter.numel() for parameter in made.auxiliary.parameters()) == 476_426
    assert parameters(published("darts_v2"), auxiliary=True) == 3_825_768


@pytest.mark.parametrize("size", [(32, 32), (31, 32), (8, 8), (7, 9), (28, 28), (64, 64)])
@pytest.mark.parametrize("cells", [1, 2, 3, 6])
def test_auxiliary_head_fits_every_size(cells, size):
    skeleton = Skeleton(cells, 4, 7, image_size=size)
    made = network(GENOTYPES["random of 2"], skeleton, auxiliary=True)
    outputs, auxiliary = made(images(size, batch=2).float(), auxiliary=True)
    assert outputs.shape == auxiliary.shape == (2, 7)
    darts = skeleton.sizes()[2 * cells // 3 + 1] in ((8, 8), (7, 7))
    assert any(isinstance(module, nn.AvgPool2d) for module in made.auxiliary) == darts
    plain = network(GENOTYPES["random of 2"], skeleton)
    assert made.costs() == plain.costs()


@pytest.mark.parametrize("size", [(32, 32), (8, 8)], ids=["8x8", "pooled"])
def test_gradients_reach_the_auxiliary_head_and_what_is_below(size):
    made = network(TWO, Skeleton(6, 4, 5, image_size=size), auxiliary=True).double()
    _, auxiliary = made(images(size), auxiliary=True)
    F.cross_entropy(auxiliary, torch.arange(3)).backward()
    reached = {name for name, p in made.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert all(name in reached for name, _ in made.named_parameters() if name.startswith("auxiliary"))
    assert "stem.0.weight" in reached and any(name.startswith("cells.4.") for name in reached)
    assert not any(name.startswith(("cells.5.", "classifier")) for name in reached)


def test_auxiliary_head_is_not_in_the_plain_forward():
    made = network(TWO, Skeleton(3, 4, 5), auxiliary=True).eval()
    plain = network(TWO, Skeleton(3, 4, 5)).eval()
    plain.load_state_dict({k: v for k, v in made.state_dict().items() if not k.startswith("auxiliary")})
    assert torch.equal(made(images((32, 32)).float()), plain(images((32, 32)).float()))


# Skeleton -----------------------------------------------------------------------


def test_reductions_are_at_one_and_two_thirds_of_the_depth():
    found = {cells: types(Skeleton(cells, 16, 10)) for cells in (1, 2, 3, 8, 20)}
    places = {cells: [i for i, kind in enumerate(kinds) if kind == "reduce"] for cells, kinds in found.items()}
    assert places == {1: [0], 2: [0, 1], 3: [1, 2], 8: [2, 5], 20: [6, 13]}
    assert all(len(kinds) == cells for cells, kinds in found.items())


def test_sizes_and_widths():
    skeleton = Skeleton(4, 6, 10, image_size=(9, 6), reductions=(1, 3))
    assert skeleton.sizes() == [(9, 6), (9, 6), (5, 3), (5, 3), (3, 2)]
    assert skeleton.widths() == [6, 12, 12, 24]


def test_weights_are_channels_last():
    made = network(GENOTYPES["random of 4"], Skeleton(3, 4, 5), auxiliary=True)
    weights = [p for p in made.parameters() if p.dim() == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


@pytest.mark.parametrize("form", ["search", "final", "supernet"])
def test_activations_are_channels_last_throughout(form):
    """One layer that forgets it slows down everything after it, silently; views of channels_last tensors count."""
    skeleton, space = Skeleton(4, 4, 5), DartsSpace(SpaceConfig())
    if form == "supernet":
        made = space.supernet(skeleton, space.tables())
        mixing = {kind: Mixing(torch.rand(14, 8)) for kind in ("normal", "reduce")}
    else:
        made, mixing = network(GENOTYPES["random of 4"], skeleton, form=form), None
    slow = []

    def look(module, inputs):
        if inputs[0].shape[1] > 1 and inputs[0].stride(1) != 1:
            slow.append(module)

    for module in made.modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, BatchNorm)):
            module.register_forward_pre_hook(look)
    made(images((12, 12)).float().contiguous(memory_format=torch.channels_last), mixing)
    assert not slow


# Layout ---------------------------------------------------------------------


class Layouts(TorchDispatchMode):
    """Notes the operators that read or write images of a layout other than channels_last."""

    def __init__(self):
        super().__init__()
        self.others = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        # Nothing is computed in these: they look at the same memory in another way, or fill it.
        if not function.is_view and not {"new_zeros", "_unsafe_view"} & set(str(function).split(".")):
            tensors = [leaf for leaf in tree_leaves((arguments, result)) if isinstance(leaf, torch.Tensor)]
            images = [tensor for tensor in tensors if tensor.dim() == 4 and tensor.shape[0] == 6]
            self.others += [str(function) for image in images if min(image.shape) > 1 and image.stride(1) != 1]
        return result


@pytest.mark.parametrize("size", [(8, 8), (9, 10)])
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("form", ["search", "final"])
def test_nothing_is_computed_in_another_layout(size, stem, form):
    """On a CPU an operator that has to mix two layouts takes up to 20 times longer."""
    size = size if stem == "cifar" else [8 * side for side in size]
    skeleton = Skeleton(4, 4, classes=5, image_size=size, stem=stem)
    mixing = None
    if form == "search":
        space = DartsSpace(SpaceConfig())
        tables = space.tables()
        supernet = space.supernet(skeleton, tables)
        mixing = {cell: Mixing(table.alive.double().softmax(-1).float()) for cell, table in tables.items()}
    else:
        supernet = network(GENOTYPES["all operations on one edge"], skeleton)
    x = images(size, batch=6).float().to(memory_format=torch.channels_last)
    supernet(x, mixing).sum().backward()  # what is made once is not looked at
    with Layouts() as layouts:
        supernet(x, mixing).sum().backward()
    assert not layouts.others
