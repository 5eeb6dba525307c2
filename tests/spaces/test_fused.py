"""A cell made of the Triton kernels is the cell: values, gradients, statistics, second derivatives. Without a GPU they are interpreted."""

import copy
from types import SimpleNamespace

import pytest
import tiny
import torch

pytest.importorskip("triton")

from darts_lite.hardware.graph import tensors_of
from darts_lite.hardware.precision import call
from darts_lite.methods.solvers import SOLVERS
from darts_lite.operations import OPERATIONS
from darts_lite.operations.layers import FORMS, BatchNorm, Form, tracking_statistics
from darts_lite.runs import prepare
from darts_lite.settings.configs import SpaceConfig
from darts_lite.settings.datasets import DatasetConfig
from darts_lite.spaces import cell as cells
from darts_lite.spaces import fused
from darts_lite.spaces.cell import Cell
from darts_lite.spaces.plan import CellPlan
from darts_lite.spaces.table import Mixing

pytestmark = [pytest.mark.cuda] if torch.cuda.is_available() else []
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ALL = tuple(name for name in OPERATIONS if name not in ("conv_7x1_1x7", "noise"))  # which no kernel serves
FEW = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3")
TWO_NODES = ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def every(edges, operations):
    return tuple((edge, name) for edge in range(len(edges)) for name in operations)


def plan(*graph):
    """The plan of a cell with two inputs."""
    return CellPlan(*graph, inputs=2)


PLANS = {
    "all operations": plan(TWO_NODES[:2], ALL, every(TWO_NODES[:2], ALL), 1, (2,)),
    "two nodes": plan(TWO_NODES, FEW, every(TWO_NODES, FEW), 2, (2, 3)),
    # Two edges from one source, a node without an edge, one that is not put out, an edge with `none` only, a pool of one input.
    "odd": plan(
        ((0, 2), (0, 2), (1, 4), (2, 4), (1, 4)),
        ("skip_connect", "avg_pool_3x3", "dil_conv_3x3", "none"),
        (
            (0, "skip_connect"),
            (1, "dil_conv_3x3"),
            (1, "avg_pool_3x3"),
            (2, "avg_pool_3x3"),
            (3, "skip_connect"),
            (4, "none"),
        ),
        3,
        (4, 3),
    ),
    "an edge twice": plan(
        ((0, 2), (0, 2), (1, 2), (1, 2)),
        ("avg_pool_3x3", "skip_connect", "sep_conv_7x7"),
        ((0, "avg_pool_3x3"), (1, "avg_pool_3x3"), (0, "sep_conv_7x7"), (2, "skip_connect"), (3, "skip_connect")),
        1,
        (2,),
    ),
    "one after the other": plan(
        ((0, 2), (1, 2), (2, 3), (0, 3)),
        ("sep_conv_5x5", "max_pool_3x3", "skip_connect"),
        ((0, "sep_conv_5x5"), (1, "max_pool_3x3"), (2, "sep_conv_5x5"), (3, "skip_connect")),
        2,
        (2, 3),
    ),
}
CASES = [
    ("all operations", "search", False, 3),
    ("all operations", "search", True, 3),
    ("two nodes", "search", False, 4),
    ("odd", "search", True, 5),
    ("odd", "search", False, 5),
    ("an edge twice", "search", False, 3),
    ("an edge twice", "final", True, 3),
    ("one after the other", "final", False, 3),
    ("one after the other", "final", True, 18),
]
every_case = pytest.mark.parametrize(("name", "form", "reduction", "channels"), CASES)


def made(name, form, reduction, channels):
    """A cell whose affine BatchNorms, if it has them, do something."""
    torch.manual_seed(0)
    cell = Cell(
        PLANS[name],
        (2, 3),
        channels,
        reduction=reduction,
        previous_reduces=False,
        form=FORMS[form],
        activation=torch.nn.ReLU,
    )
    with torch.no_grad():
        for module in cell.modules():
            if isinstance(module, BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                for weight in module.parameters():
                    weight.add_(0.3 * torch.randn_like(weight))
    return cell


def told(cell, monkeypatch, kernels, *, precision="fp32", train=True, order=1, size=(3, 4)):
    """All that a pass of a cell makes, in float64 or with the kernels: output, gradients of everything, running statistics."""
    monkeypatch.setattr(cells, "on_gpu", lambda x: kernels)
    ran = []
    combine = fused.combine
    monkeypatch.setattr(fused, "combine", lambda *given: ran.append(given) or combine(*given))
    cell = copy.deepcopy(cell).train(train)
    cell = cell.to(DEVICE) if kernels else cell.double()
    device, dtype = next(cell.parameters()).device, next(cell.parameters()).dtype
    generator = torch.Generator().manual_seed(1)

    def leaf(*shape):
        return torch.randn(*shape, generator=generator).to(device, dtype).requires_grad_()

    images, mixing, keep = [leaf(2, 2, *size), leaf(2, 3, *size)], None, None
    edges, operations = len(cell.plan.edges), len(cell.plan.columns)
    logits = leaf(edges, operations)
    dropped = ((torch.rand(2, edges, generator=generator) > 0.4) / 0.6).to(device, dtype)
    if cell.stages[0].activation is not None and not any(norm.weight is not None for norm in norms(cell)):
        mixing = logits.softmax(-1)
    else:
        keep = dropped
    names, weights = zip(*cell.named_parameters(), strict=True)
    with (
        torch.set_grad_enabled(train),
        tracking_statistics(cell),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        y = call(cell, precision, names, weights, images, None if mixing is None else Mixing(mixing), keep)
    assert bool(ran) == kernels
    found = {"output": y.detach().cpu()} | {
        name: kept.cpu() for name, kept in cell.named_buffers() if "running" in name
    }
    if train:
        leaves = dict(zip(("before", "previous"), images, strict=True)) | dict(zip(names, weights, strict=True))
        leaves |= {} if mixing is None else {"mixing": logits}
        weighing = torch.linspace(-1, 1, y.numel()).view_as(y).to(y)
        first = torch.autograd.grad(
            (y * weighing).sum(), list(leaves.values()), create_graph=order == 2, allow_unused=True
        )
        if order == 2:
            squares = sum((one.double() ** 2).sum() for one in first if one is not None)
            first = torch.autograd.grad(squares, list(leaves.values()), allow_unused=True)
        found |= {f"gradient of {name}": one.cpu() for name, one in zip(leaves, first, strict=True) if one is not None}
    return found


def norms(cell):
    return [module for stage in cell.stages for module in stage.modules() if isinstance(module, BatchNorm)]


def compare(found, expected, bound):
    """The largest error of each tensor is a small part of its largest value, or of the largest of its kind where all are near zero."""
    assert found.keys() == expected.keys()
    off = {}
    for name, value in expected.items():
        kind = name.split(".")[-1] if name.startswith("gradient") else name
        scale = (
            max(float(other.abs().max()) for key, other in expected.items() if key.endswith(kind)) if "." in name else 0
        )
        off[name] = float((found[name].double() - value).abs().max()) / max(
            float(value.abs().max()), 1e-3 * scale, 1e-3
        )
    worst = max(off, key=off.get)
    assert off[worst] < bound, (worst, off[worst])


@every_case
def test_in_training(name, form, reduction, channels, monkeypatch):
    """Output, gradients of inputs, weights and mixing, and moved running statistics; with drop-path where the form is final."""
    cell = made(name, form, reduction, channels)
    compare(told(cell, monkeypatch, True), told(cell, monkeypatch, False), 5e-4)


@pytest.mark.parametrize(("name", "form", "reduction", "channels"), [CASES[1], CASES[5], CASES[6]])
def test_in_evaluation(name, form, reduction, channels, monkeypatch):
    """With running statistics, none of which moves."""
    cell = made(name, form, reduction, channels)
    compare(*(told(cell, monkeypatch, kernels, train=False) for kernels in (True, False)), 1e-5)


def test_second_derivatives(monkeypatch):
    """Through the cell's own stages."""
    cell = made(*CASES[4])
    compare(*(told(cell, monkeypatch, kernels, order=2) for kernels in (True, False)), 1e-3)


def test_in_bf16(monkeypatch):
    """As near to float64 as torch's own operators are, in the mean."""
    cell = made("two nodes", "search", False, 4)
    exact = told(cell, monkeypatch, False, size=(6, 6))
    ours = told(cell, monkeypatch, True, precision="bf16", size=(6, 6))
    monkeypatch.setattr(fused, "combine", lambda cell, *given: cell.combine(*given))
    theirs = told(cell, monkeypatch, True, precision="bf16", size=(6, 6))

    def off(found):
        return [
            float((found[name].double() - value).norm() / value.norm())
            for name, value in exact.items()
            if "gradient" in name
        ]

    assert ours["output"].dtype == torch.bfloat16
    assert sum(off(ours)) < 1.2 * sum(off(theirs))


def test_equal_input_gives_equal_output(monkeypatch):
    cell = made(*CASES[2])
    first, second = (told(cell, monkeypatch, True) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_frozen_weights_get_no_gradient(monkeypatch):
    """As in the architecture step: the mixing's gradient is the same, and no kernel of a weight's gradient is launched."""
    from darts_lite.operations.kernels.triton.launch import counting

    monkeypatch.setattr(cells, "on_gpu", lambda x: True)
    cell, names, gradients = made(*CASES[2]).to(DEVICE), [], []
    images = [torch.randn(2, channels, 3, 4, device=DEVICE) for channels in (2, 3)]
    for learns in (True, False):
        cell.requires_grad_(learns)
        mixing = torch.full((5, 4), 0.25, device=DEVICE, requires_grad=True)
        with counting() as ledger:
            cell(images, Mixing(mixing)).square().sum().backward()
        names.append([one.kernel.__name__ for one in ledger.launches])
        gradients.append(mixing.grad)
    assert torch.equal(*gradients)
    assert "_weight_gradient" in names[0] and "_weight_gradient" not in names[1]


@pytest.mark.parametrize(
    "reason", ["smooth", "own operation", "own mixing of each cell", "evaluation with gradients", "float64"]
)
def test_what_the_kernels_cannot_do_torch_does(reason, monkeypatch):
    cell = made("two nodes", "search", False, 4)
    x, mixing = torch.zeros(2, 4, 3, 3), torch.zeros(5, 4)
    assert fused.serves(cell, x, mixing) and fused.serves(cell, x.bfloat16(), None)
    if reason == "smooth":
        cell.stages[0].activation = torch.nn.SiLU()
    if reason == "own operation":
        cell.stages[1].operations["mine"] = torch.nn.Identity()
    if reason == "own mixing of each cell":
        mixing = torch.zeros(2, 5, 4)
    if reason == "evaluation with gradients":
        cell.eval()
        with torch.no_grad():
            assert fused.serves(cell, x, mixing)
    assert not fused.serves(cell, x.double() if reason == "float64" else x, mixing)


def test_a_cell_with_an_operation_of_no_kernel_is_torchs(monkeypatch):
    """By itself, on a device where kernels serve the others."""
    monkeypatch.setattr(cells, "on_gpu", lambda x: True)
    monkeypatch.setattr(fused, "combine", lambda *given: pytest.fail("no kernel has conv_7x1_1x7"))
    crossed = plan(TWO_NODES[:2], ("conv_7x1_1x7", "sep_conv_3x3"), ((0, "conv_7x1_1x7"), (1, "sep_conv_3x3")), 1, (2,))
    monkeypatch.setitem(PLANS, "crossed", crossed)
    cell = made("crossed", "final", True, 4).to(DEVICE)
    cell([torch.randn(2, channels, 6, 4, device=DEVICE) for channels in (2, 3)]).sum().backward()
    assert all(parameter.grad is not None for parameter in cell.parameters())


@pytest.mark.parametrize("reason", ["partial channels", "noise", "no statistics", "one input", "drawn operations"])
def test_a_cell_of_another_kind_is_torchs(reason, monkeypatch):
    """By itself, on a device where kernels serve the DARTS cell: they would compute something else, without an error."""
    monkeypatch.setattr(cells, "on_gpu", lambda x: True)
    entered = []
    monkeypatch.setattr(fused, "combine", lambda *given: entered.append(given) or pytest.fail("entered"))
    inputs = 1 if reason == "one input" else 2
    columns = ("noise", "skip_connect") if reason == "noise" else ("skip_connect", "sep_conv_3x3")
    edges = tuple((source, inputs) for source in range(inputs))
    how = {"inputs": inputs, "partial": 2 if reason == "partial channels" else 1}
    form = Form(affine=False, pool_norm=False, statistics=reason != "no statistics")
    cell = Cell(
        CellPlan(edges, columns, every(edges, columns), 1, (inputs,), **how),
        (3, 3)[:inputs],
        4,
        reduction=False,
        previous_reduces=False,
        form=form,
        activation=torch.nn.ReLU,
    ).to(DEVICE)
    images = [torch.randn(2, 3, 4, 4, device=DEVICE)] * inputs
    mixing = Mixing(torch.full((inputs, 2), 0.5, device=DEVICE))
    drawn = frozenset({(0, "skip_connect")}) if reason == "drawn operations" else None
    draws = {0: torch.randn(2, 8, 4, 4, device=DEVICE)} if reason == "noise" else None
    assert cell(images, mixing, drawn=drawn, draws=draws).shape == (2, 4, 4, 4)
    if reason == "drawn operations":  # of all it serves
        with pytest.raises(pytest.fail.Exception):
            cell(images, mixing)


@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_no_number_is_not_lost(monkeypatch):
    """A ReLU or a clamp that made zero of it would hide it from the run, which has to end."""
    cell = made(*CASES[2])
    with torch.no_grad():
        cell.stages[0].operations["sep_conv_3x3"].first.pointwise.weight[0] = 1e30
    found = told(cell, monkeypatch, True)
    variance = found["stages.0.operations.sep_conv_3x3.first.norm.running_var"]
    assert not variance[0].isfinite() and variance[1:].isfinite().all()

    monkeypatch.setattr(cells, "on_gpu", lambda x: True)
    cell = made(*CASES[2]).to(DEVICE)
    images = [torch.randn(2, channels, 3, 4, device=DEVICE) for channels in (2, 3)]
    images[0][0, 0, 0, 0] = torch.nan
    assert cell(images, Mixing(torch.full((5, 4), 0.25, device=DEVICE))).isnan().all()


def test_without_triton_torch_serves_and_one_line_says_so(monkeypatch):
    """Without the package, and where it cannot compile: it needs a C compiler for what launches a kernel."""

    def fails(device):
        raise RuntimeError("Failed to find C compiler.\nmore")

    said = []
    for owner, part, value in ((cells, "find_spec", lambda name: None), (fused, "trial", fails)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, part, value)
            cells.no_kernels.cache_clear()
            assert not cells.on_gpu(SimpleNamespace(device=torch.device("cuda")))
            said.append(cells.no_kernels("cuda"))
    assert said == ["there is no triton", "triton fails with RuntimeError: Failed to find C compiler."]

    report = tiny.Report()
    monkeypatch.setattr(prepare, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(prepare, "resolve_precision", lambda *given: "fp32")
    monkeypatch.setattr(prepare.environment, "describe", lambda *given: {"threads": 1})
    prepare.prepare(
        "search", tiny.search_config(dataset=DatasetConfig(), space=SpaceConfig(), run_dir=None), (), report
    )
    slow = "torch's own operators compute the cells, at a fraction of the speed"
    assert [line for line in report.lines if "triton" in line] == [
        f"{said[1]}, so {slow}; fix: install triton, and a C compiler"
    ]
    cells.no_kernels.cache_clear()


def test_one_kernel_is_tried():
    fused.trial(DEVICE)


def test_the_gradient_that_comes_in_stays_as_it_is(monkeypatch):
    """Also of a single pixel, where another order of dimensions is no copy."""
    monkeypatch.setattr(cells, "on_gpu", lambda x: True)
    cell = made("one after the other", "final", True, 3).to(DEVICE)
    y = cell([torch.randn(1, channels, 2, 2, device=DEVICE) for channels in (2, 3)])
    gradient = torch.ones_like(y)
    y.backward(gradient)
    assert torch.equal(gradient, torch.ones_like(y))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_of_the_search_is_that_of_torchs_operators(solver, tiny_folder, monkeypatch):
    """Losses, alphas, weights and running statistics after it; also where the solver differentiates twice."""
    config = tiny.search_config(
        solver=solver,
        cells=1,
        channels=4,
        batch_size=4,
        space=SpaceConfig(nodes=1, candidates=list(FEW)),
        alpha_lr=1e-3,
    )
    found = []
    for kernels in (True, False):
        monkeypatch.setattr(cells, "on_gpu", lambda x, kernels=kernels: kernels)
        state, feeds, step = tiny.training(config, DEVICE)
        for feed in feeds:
            feed.load(0)
        metrics = step(state)
        found.append(metrics | dict(tensors_of(state)))
    assert found[0].keys() == found[1].keys() and "train/loss" in found[0]
    for name, value in found[1].items():
        torch.testing.assert_close(
            found[0][name], value, rtol=2e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
