"""The doctor's proof: a right CPU passes, and faults planted in what is not float64 are found, named and grouped.

A plant acts on tensors of the device that is proved; the CPU's float64, which it is compared with, stays right.
"""

import ast
import contextlib
import re
from pathlib import Path

import pytest
import torch

import darts_lite
from darts_lite import doctor
from darts_lite.cli.run import run_verb
from darts_lite.hardware import graph
from darts_lite.methods.solvers.unrolled import Unrolled
from darts_lite.operations import OPERATIONS, candidates, layers
from darts_lite.operations.kernels import depthwise, thresholds
from darts_lite.operations.kernels.thresholds import CHANNELS, TABLE, Threshold
from darts_lite.operations.layers import BatchNorm
from darts_lite.proving import cases, findings, numbers, proof, steps
from darts_lite.search import SearchConfig
from darts_lite.spaces import cell
from darts_lite.training.search_step import search_step

PACKAGE = Path(darts_lite.__file__).parent
CPU = torch.device("cpu")


class Off(torch.autograd.Function):
    """The identity with a gradient that is 5 % off."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return 1.05 * gradient


def planted(x):
    return x.dtype != torch.float64


@pytest.fixture
def only(monkeypatch):
    """only(operations, spaces, solvers) -> what is proved, with few of each."""

    def choose(operations=(), spaces=(), solvers=(), widths=(12,)):
        if operations:
            monkeypatch.setattr(cases, "OPERATIONS", {name: OPERATIONS[name] for name in operations})
        else:
            monkeypatch.setattr(cases, "operation_cases", lambda device: iter(()))
        monkeypatch.setattr(cases, "SPACES", {name: cases.SPACES[name] for name in spaces})
        monkeypatch.setattr(steps, "SOLVERS", {name: steps.SOLVERS[name] for name in solvers})
        monkeypatch.setattr(cases, "WIDTHS", widths)
        monkeypatch.setattr(cases, "TABLE", [one for one in TABLE if one.unit != CHANNELS])

    return choose


def problems():
    return [str(problem) for problem in proof.prove(SearchConfig(), CPU).problems()]


# Plants


def pool_gradient(monkeypatch):
    usual = candidates.Pool.forward
    monkeypatch.setattr(
        candidates.Pool, "forward", lambda self, x, *rest: usual(self, Off.apply(x) if planted(x) else x, *rest)
    )


def pool_output(monkeypatch):
    usual = candidates.Pool.forward
    monkeypatch.setattr(
        candidates.Pool, "forward", lambda self, x, *rest: usual(self, x, *rest) * (1.05 if planted(x) else 1)
    )


def pool_in_bf16(monkeypatch):
    usual = candidates.Pool.forward
    monkeypatch.setattr(
        candidates.Pool,
        "forward",
        lambda self, x, *rest: usual(self, Off.apply(x) if x.dtype == torch.bfloat16 else x, *rest),
    )


def pool_in_channels_last(monkeypatch):
    """As it was in torch 2.11 to 2.13: right in any other layout."""
    usual = candidates.Pool.forward

    def forward(self, x, *rest):
        wrong = planted(x) and x.is_contiguous(memory_format=torch.channels_last)
        return usual(self, Off.apply(x) if wrong else x, *rest)

    monkeypatch.setattr(candidates.Pool, "forward", forward)


def depthwise_weight(monkeypatch):
    usual = layers.depthwise
    monkeypatch.setattr(layers, "depthwise", lambda x, w, **rest: usual(x, Off.apply(w) if planted(w) else w, **rest))


def scale(monkeypatch):
    usual = BatchNorm.terms

    def terms(self, number, scale, first):
        return usual(self, number, Off.apply(scale) if scale is not None and planted(scale) else scale, first)

    monkeypatch.setattr(BatchNorm, "terms", terms)


def statistics(monkeypatch):
    monkeypatch.setattr(BatchNorm, "forward", _forgetful(BatchNorm.forward))


def _forgetful(usual):
    def forward(self, x, *rest):
        before = self.running_mean.clone()
        y = usual(self, x, *rest)
        if planted(x):
            self.running_mean.data.copy_(before)
        return y

    return forward


def affine(monkeypatch):
    usual = BatchNorm.terms

    def terms(self, *rest):
        statistics, weight, bias = usual(self, *rest)
        return statistics, Off.apply(weight) if self.weight is not None and planted(weight) else weight, bias

    monkeypatch.setattr(BatchNorm, "terms", terms)


def kernel(monkeypatch):
    """On the side of KERNEL where torch computes the weight gradient itself."""
    usual = depthwise._weight_gradient

    def gradient(*arguments):
        wrong = thresholds.KERNEL.value == 1 and planted(arguments[0])
        return usual(*arguments) * (1.05 if wrong else 1)

    monkeypatch.setattr(depthwise, "_weight_gradient", gradient)


def large(monkeypatch):
    usual = layers.pointwise_norm
    monkeypatch.setattr(layers, "pointwise_norm", lambda x, *rest, **named: 1.05 * usual(x, *rest, **named))


def folded(monkeypatch):
    usual = layers.folded
    monkeypatch.setattr(layers, "folded", lambda x, *rest, **named: 1.05 * usual(x, *rest, **named))


def wide(monkeypatch):
    """Wrong from 37 channels on."""
    usual = layers.pointwise

    def pointwise(x, weight, groups):
        return usual(x, weight, groups) * (1.05 if weight.shape[1] > 36 and planted(x) else 1)

    monkeypatch.setattr(layers, "pointwise", pointwise)
    monkeypatch.setattr(layers.BatchNorm, "eps", 1.0)  # or what comes after would normalize it away


def raising(monkeypatch):
    def depthwise(x, weight, **rest):
        if x.dtype == torch.bfloat16:
            raise RuntimeError("no such kernel\nand more")
        return usual(x, weight, **rest)

    usual = layers.depthwise
    monkeypatch.setattr(layers, "depthwise", depthwise)


def number(monkeypatch):
    usual = layers.pointwise

    def pointwise(x, weight, groups):
        return usual(x, weight, groups) * (float("nan") if planted(x) else 1)

    monkeypatch.setattr(layers, "pointwise", pointwise)


POOLS, DILATED, ALL_WIDTHS = ("max_pool_3x3", "avg_pool_3x3"), ("dil_conv_3x3",), (12, 36, 70)
PLANTS = {  # plant, operations, what is said, what every case that is off has in its name
    "input": (pool_gradient, POOLS, "stride 1, weights, channels_last, 4x24x9x7, fp32: the gradient of the input", ""),
    "output": (pool_output, POOLS, "the output is off by 0.05 (0.0001 allowed)", ""),
    "bf16": (pool_in_bf16, POOLS, "4x24x9x7, bf16: the gradient of the input is off by 0.05", ", bf16"),
    "layout": (pool_in_channels_last, POOLS, "the gradient of the input is off by 0.05", ", channels_last, "),
    "weight": (depthwise_weight, DILATED, "a weight (module.only.depthwise.weight) is off by 0.05", ""),
    "scale": (scale, DILATED, "fp32: the gradient of the mixing factor is off by 0.05", ", weights|, alphas"),
    "scales and biases": (affine, DILATED, "fp32: the gradient of scales and biases is off by 0.05", ", final"),
    "statistics": (statistics, POOLS, "a running statistic (module.norm.running_mean) is off by ", ", weights"),
    "large": (large, DILATED, "fp32: the gradient of the mixing factor is off by 0.05", "LARGE=1"),
    "folded": (folded, DILATED, "4x12x9x7, LARGE=1, fp32: the output is off by 0.05", "LARGE=1, fp32"),
    "kernel": (kernel, DILATED, "fp32: the gradient of a weight (module.only.depthwise.weight)", "KERNEL=1"),
    "wide": (wide, DILATED, "6x74x5x6, fp32: ", "x74x|x37x|x140x|x70x"),
    "raising": (raising, DILATED, "bf16: raises RuntimeError (no such kernel)", ", bf16"),
    "not finite": (number, DILATED, "is off by inf (0.0001 allowed)", ""),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(name, only, monkeypatch):
    plant, operations, expected, where = PLANTS[name]
    only(operations, widths=ALL_WIDTHS if name in ("layout", "wide") else (12,))
    if name == "wide":
        monkeypatch.setattr(cases, "TABLE", [Threshold("NEW", 36, CHANNELS, "operation", "a second block")])
    plant(monkeypatch)
    found = proof.prove(SearchConfig(), CPU)
    said = [str(problem) for problem in found.problems()]
    assert any(expected in problem for problem in said), said
    assert all("searches on cpu would learn from wrong numbers; fix: another torch" in problem for problem in said)
    assert len(said) <= 4 and len(said) < len(found.faults), "faults of one kind are one line"
    assert all(re.search(where, fault.case) for fault in found.faults)


def test_a_fault_of_a_cell_alone(only, monkeypatch):
    """Gradients that come from several nodes; also in the graph of a search's step, were it proved here."""
    only(spaces=["darts"])
    usual = cell.Nodes.finished

    def finished(self, node):
        y = usual(self, node)
        return Off.apply(y) if y is not None and planted(y) else y  # None: nothing passes the operations by

    monkeypatch.setattr(cell.Nodes, "finished", finished)
    said = problems()
    assert any(
        problem.startswith("normal cell of 1 node, weights, 4x12x9x7, fp32: the gradient of a weight (")
        for problem in said
    ), said


@pytest.mark.parametrize("name", steps.SOLVERS)
def test_a_fault_of_a_solver_alone(name, only, monkeypatch):
    only(solvers=steps.SOLVERS)
    solver = steps.SOLVERS[name]
    usual = solver.__call__

    def call(self, problem):
        loss, found = usual(self, problem)
        return loss, tuple(1.05 * one if planted(one) else one for one in found)

    monkeypatch.setattr(solver, "__call__", call)
    found = proof.prove(SearchConfig(), CPU)
    assert [fault.case.split(", ")[0] for fault in found.faults] == [f"a step of solver={name}"] * (
        3 if name == "first_order" else 1
    )
    assert (
        "the gradient of alpha (" in found.faults[0].what and " is off by 0.05 (0.0001 allowed)" in found.faults[0].what
    )


def test_a_lost_term_of_the_second_order_is_found(only, monkeypatch):
    """Probes that do not move the weights."""
    only(solvers=["unrolled"])
    usual = Unrolled._probe
    monkeypatch.setattr(
        Unrolled,
        "_probe",
        staticmethod(lambda problem, weights: usual(problem, problem.weights if planted(weights[0]) else weights)),
    )
    assert problems()[0].startswith("a step of solver=unrolled, SiLU: the gradient of alpha (")


def test_memory_that_runs_out_is_no_fault(only, monkeypatch):
    only(DILATED)

    def depthwise(x, weight, **rest):
        if planted(x):
            raise torch.OutOfMemoryError("no memory")
        return usual(x, weight, **rest)

    usual = layers.depthwise
    monkeypatch.setattr(layers, "depthwise", depthwise)
    with pytest.raises(torch.OutOfMemoryError):
        problems()


# Graphs


@pytest.mark.parametrize("name", ["right", "a replay that does nothing", "a capture that fails"])
def test_a_recorded_step_is_compared_with_a_called_one(name, only, monkeypatch):
    """On a CPU, where the graph is the step itself."""

    def capture(step, stream, pool, *, generator):
        if name == "a capture that fails":
            raise RuntimeError("operation not permitted when stream is capturing")
        return step if name == "right" else dict

    monkeypatch.setattr(graph, "wanted", lambda config, device: config.cuda_graph)
    monkeypatch.setattr(graph, "own_stream", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(graph, "_waits_are_errors", contextlib.nullcontext)
    monkeypatch.setattr(graph, "new_pool", object)
    monkeypatch.setattr(graph, "capture", capture)
    only(solvers=["first_order"])
    found = findings.Proof(CPU)
    steps.prove_graphs(found, SearchConfig())
    said = {
        "right": [],
        "a replay that does nothing": ["a step of solver=first_order, fp32: is another one when it is replayed ("],
        "a capture that fails": [
            "a step of solver=first_order, fp32: cannot be recorded (no CUDA graph, so steps take"
        ],
    }[name]
    problems = [str(problem) for problem in found.problems()]
    assert len(problems) == len(said)
    assert all(problem.startswith(start) for problem, start in zip(problems, said, strict=True)), problems
    assert all(problem.endswith("; fix: cuda_graph=false") for problem in problems)


# Numbers


@pytest.mark.parametrize("kinked", [True, False])
def test_images_hold_in_bf16_and_pools_have_no_choice(kinked):
    images = numbers.image(torch.Generator().manual_seed(0), (4, 12, 9, 7), kinked=kinked)
    assert torch.equal(images.bfloat16().double(), images)
    windows = torch.nn.functional.unfold(images[:, :1], 3).sort(dim=1).values
    assert (windows.diff(dim=1) > 0).all(), "no two pixels of a window are equal"
    assert images.abs().max() <= 2 and (images.abs().min() >= 1.5) == kinked


@contextlib.contextmanager
def margins(module):
    """Inside, the least that a ReLU reads and the least distance of a pool's two largest pixels are noted."""
    found = [float("inf")]

    def relu(module, inputs):
        found.append(float(inputs[0].detach().abs().min()))

    def pool(module, inputs):
        padded = torch.nn.functional.pad(inputs[0].detach(), (1, 1, 1, 1), value=-100)
        windows = torch.nn.functional.unfold(padded.flatten(0, 1)[:, None], 3, stride=module.stride)
        first, second = windows.topk(2, dim=1).values.unbind(1)
        found.append(float((first - second).min()))

    hooks = [one.register_forward_pre_hook(relu) for one in module.modules() if isinstance(one, torch.nn.ReLU)]
    hooks += [one.register_forward_pre_hook(pool) for one in module.modules() if isinstance(one, torch.nn.MaxPool2d)]
    yield found
    for hook in hooks:
        hook.remove()


def test_no_rounding_changes_what_a_cell_passes_on():
    for subject, _ in cases.cell_cases(torch.device("cuda")):
        with margins(subject.module) as found:
            subject.compute(CPU, "fp64", [])
        # Roundings of bf16 are 0.01 here, and in its first node's pools there are none: they read numbers that bf16 holds.
        least = cases.CELL_MARGIN if "2 nodes" in subject.case else 1 / 128
        assert len(found) > 3 and (min(found) >= least or not subject.module.training), subject.case


def test_no_rounding_changes_what_a_step_passes_on():
    small = steps.small_config(SearchConfig(), "first_order", torch.nn.ReLU)
    state = steps.small_state(small, CPU, "fp32", torch.nn.ReLU)
    state = steps.small_state(small, CPU, "fp64", torch.nn.ReLU, state.state_dict())
    with steps.default_type(torch.float64), margins(state.supernet) as found:
        search_step(state, *steps.small_batches(state), learn_alphas=True)
    assert len(found) > 20 and min(found) > steps.STEP_MARGIN


@pytest.mark.parametrize("kernel", ["sep_conv_3x3", "sep_conv_5x5"])
def test_what_a_relu_reads_is_far_from_its_kink(kernel):
    read, operations = [], {kernel: OPERATIONS[kernel]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "OPERATIONS", operations)
        for subject in cases.candidate_cases((36, 4, 9, 7), "channels_last", torch.nn.ReLU, ("weights", "final")):
            subject.module.module.activation.register_forward_pre_hook(lambda module, x: read.append(x[0]))
            subject.compute(CPU, "fp64", [])
    assert len(read) == 4 and min(x.abs().min() for x in read) > 0.2, "bf16 errs by 0.01 there"


# The table


def test_every_threshold_is_walked():
    """By value, or by images with as many channels."""
    settings = {row for level in ("operation", "cell", "network") for one in cases.settings_of(level) for row in one}
    walked = [subject.case for subject, _ in cases.operation_cases(CPU)]
    for one in TABLE:
        if one.unit == CHANNELS:
            assert all(any(f"x{one.value + more}x" in case for case in walked) for more in (0, 1)), one
        else:
            assert one in settings and one.other != one.value, one
    assert len({one.name for one in TABLE}) == len(TABLE)


# No thresholds: sizes of blocks that masks end and of launches, which the widths and the images of few and many pixels prove; and counts
# of states and of edges, which say what a cell is.
BLOCKS = {"SPATIAL", "TILE", "PROGRAMS", "ROWS", "MOST", "INPUTS", "EDGES_A_NODE"}


def test_every_threshold_stands_in_the_table():
    """No other module of what computes has a number of its own, and each row is read somewhere."""
    own = [path for part in ("operations", "spaces") for path in sorted((PACKAGE / part).rglob("*.py"))]
    text = "".join(path.read_text(encoding="utf-8") for path in own)
    for path in own:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if path.name != "thresholds.py" and isinstance(node, ast.Assign):
                numbers = [
                    n for n in ast.walk(node.value) if isinstance(n, ast.Constant) and type(n.value) in (int, float)
                ]
                known = ast.unparse(node.targets[0]) in BLOCKS
                assert known or not (numbers and isinstance(node.value, (ast.Constant, ast.BinOp))), ast.unparse(node)
    assert all(f"{one.name}.value" in text for one in TABLE)


def test_a_threshold_is_set_for_a_while():
    one = TABLE[0]
    before = one.value
    with contextlib.suppress(KeyError), one.at(7):
        assert one.value == 7
        raise KeyError
    assert one.value == before


# All of it


def test_a_right_cpu_passes():
    """Every comparison with room to spare: another right device rounds differently."""
    found = proof.prove(SearchConfig(), CPU)
    assert not found.faults
    assert found.largest["fp32"] < 2e-5 and found.largest["steps"] < 2e-5 and found.largest["bf16"] < 0.018
    assert found.number > 900 and torch.get_num_threads() >= 1 and torch.get_default_dtype() == torch.float32


def test_the_doctor_says_what_is_off(only, monkeypatch, capsys):
    only(("avg_pool_3x3",))
    pool_gradient(monkeypatch)
    for name in ("versions", "processor", "devices", "data", "disk", "steps"):
        quiet = lambda config: iter(())  # noqa: E731
        quiet.__name__ = name
        monkeypatch.setattr(doctor, name, quiet)
    assert run_verb("doctor", ["device=cpu"]) == 6
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "problem  proof      avg_pool_3x3, stride 1, weights, channels_last, 4x24x9x7, fp32: the gradient of the input is off by 0.05 "
    )
    assert re.search(r"\(0.0001 allowed\), and \d+ more such: .* on cpu would learn .*; fix: another torch or ", line)
