"""Numbers that are not finite change nothing, end the run with exit 5, and are never in a checkpoint; and what is computed in bf16."""

import copy
from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F
from test_search import make
from torch.func import functional_call

from darts_lite.cli.run import run_verb
from darts_lite.errors import Exit, UserError
from darts_lite.hardware.precision import call, computing, full_float32
from darts_lite.methods.solvers import SOLVERS
from darts_lite.spaces.network import Network
from darts_lite.training import retrain_step as retrain_state
from darts_lite.training import search_state
from darts_lite.training.health import not_finite
from darts_lite.training.search_step import alpha_step, search_step, weight_step

pytestmark = pytest.mark.usefixtures("tiny_folder")

FIRST_ORDER = SOLVERS["first_order"]


# Parts that break at the second step


class Breaks:
    """Counts its calls: true at one of them."""

    def __init__(self, call=2):
        self.left = call

    def now(self):
        self.left -= 1
        return self.left == 0


class BrokenSolver(Breaks):
    needs_float32 = False

    def __init__(self, loss=0.0, gradient=0.0):
        super().__init__()
        self.loss, self.gradient = loss, gradient

    def __call__(self, problem):
        loss, gradients = FIRST_ORDER()(problem)
        if self.now():
            loss, gradients = loss + self.loss, tuple(gradient + self.gradient for gradient in gradients)
        return loss, gradients


class BrokenPenalty(Breaks):
    def __call__(self, view):
        total = sum(logits.sum() for logits in view.logits.values())
        # A constant that is not finite, with a gradient that is.
        return total + torch.tensor(torch.inf) if self.now() else total


class BrokenMixing(Breaks):
    def __call__(self, mixing, tables, loss, progress, generator):
        return tiny.scaled(mixing, torch.nan) if self.now() else mixing


class BrokenGradient(Breaks):
    def __call__(self, gradients, loss, mixing, progress):
        if self.now():
            tiny.moved(gradients)[3].view(-1)[0] = torch.nan


BROKEN = {
    "validation loss": ("alphas", {"solver": BrokenSolver(loss=torch.nan)}),
    "alpha gradient": ("alphas", {"solver": BrokenSolver(gradient=-torch.inf)}),
    "penalty": ("alphas", {"penalties": [BrokenPenalty()]}),
    "training loss": ("weights", {"perturbation": BrokenMixing()}),
    "weight gradient": ("weights", {"regularization": BrokenGradient()}),
}


def numbers(state):
    return {name: copy.deepcopy(state.state_dict()[name]) for name in ("weights", "architecture", "alpha_optimizer")}


def assert_equal(left, right):
    assert tiny.frozen(left) == tiny.frozen(right)


@pytest.mark.parametrize("term", BROKEN)
def test_a_bad_step_changes_nothing(term):
    whose, changes = BROKEN[term]
    state, batches = make(tiny.search_config(**copy.deepcopy(changes)))
    search_step(state, *batches(0), learn_alphas=True)
    state.clock.tick()
    state.health.raise_if_bad()
    before = numbers(state)
    train, validation = batches(1)
    alpha_step(state, train, validation, torch.tensor(0.02))
    between = numbers(state)
    weight_step(state, train, torch.tensor(0.02))
    if whose == "alphas":
        assert_equal(numbers(state), before)
    else:  # the alphas had moved, as they should, before the weights met it
        assert_equal(between["weights"], before["weights"])
        assert_equal(numbers(state), between)
        assert tiny.frozen(between["architecture"]) != tiny.frozen(before["architecture"])
    last = numbers(state)
    for step in (2, 3):  # good ones, until somebody asks
        state.clock.tick()
        search_step(state, *batches(step), learn_alphas=True)
    assert_equal(numbers(state), last)
    with pytest.raises(UserError) as error:
        state.health.raise_if_bad()
    assert error.value.code == Exit.NUMERIC and error.value.key == whose
    assert f"the {term.split()[-1] if 'gradient' in term else term} is not finite at step 1;" in str(error.value)


def test_statistics_that_overflow(monkeypatch):
    """The variance of large numbers overflows, and makes the output zero: loss and gradients stay finite."""
    state, batches = make(tiny.search_config())
    before = numbers(state)
    train, _ = batches(0)
    train[0].mul_(1e25)
    metrics = weight_step(state, train, torch.tensor(0.02))
    assert metrics["train/loss"].isfinite() and metrics["gradient/weights"].isfinite()
    assert_equal(numbers(state), before)
    with pytest.raises(UserError, match="weights: the BatchNorm variance is not finite at step 0;"):
        state.health.raise_if_bad()


@pytest.mark.parametrize("term", BROKEN)
def test_a_bad_step_ends_the_run(term):
    """It is noticed at the end of the epoch, and named as what it was; the newest checkpoint is the one before it."""
    whose, changes = BROKEN[term]
    with pytest.raises(UserError) as error:
        tiny.run(tiny.search_config(log_every=1000, **copy.deepcopy(changes)))
    assert error.value.code == Exit.NUMERIC and error.value.key == whose and "at step 1;" in str(error.value)
    assert tiny.newest("run")["step"] == 0
    assert len(tiny.read_lines("run/alphas.jsonl")) == 1
    (start,) = tiny.read_lines("run/metrics.jsonl")  # no step and no epoch is recorded
    assert (start["kind"], start["step"]) == ("start", 0)
    status = tiny.read_json("run/status.json")
    assert status["state"] == "failed" and status["reason"] == str(error.value)


# Settings that cannot work


def ends(config):
    """The code a run ends with; a numeric end happens again when it is resumed, and every checkpoint is finite."""
    try:
        tiny.run(config)
        code, line = 0, None
    except UserError as error:
        code, line = error.code, str(error)
    stored = tiny.newest("run")
    assert_finite(stored)
    if code:
        with pytest.raises(UserError) as error:
            tiny.run(config, resume="run")
        assert error.value.code == code and str(error.value) == line
        assert stored["step"] == tiny.newest("run")["step"]
    return code


def assert_finite(tree, where=""):
    if isinstance(tree, dict):
        for key, value in tree.items():
            assert_finite(value, f"{where}.{key}")
    elif isinstance(tree, torch.Tensor):
        assert tree.isfinite().all(), where


@pytest.mark.parametrize(
    "changes", [{"lr": 1e20}, {"lr": 1e30}, {"lr": 1e300}, {"alpha_lr": 1e30}, {"alpha_lr": 1e300}], ids=str
)
def test_a_search_that_cannot_work(changes):
    assert ends(tiny.search_config(checkpoint_steps=1, **changes)) == Exit.NUMERIC


@pytest.mark.parametrize("changes", [{"lr": 1e20}, {"lr": 1e38}], ids=str)
def test_a_retraining_that_cannot_work(changes):
    assert ends(tiny.retrain_config(checkpoint_steps=1, **changes)) == Exit.NUMERIC


@pytest.mark.slow
@pytest.mark.parametrize("exponent", range(0, 44, 2))
@pytest.mark.parametrize("make_config", [tiny.search_config, tiny.retrain_config])
@pytest.mark.parametrize("every", [1, 5, None])
def test_every_learning_rate_ends_well(exponent, make_config, every):
    """Finished or numeric, never a traceback; and never a number in a checkpoint that is not finite."""
    changes = {"solver": "unrolled", "alpha_lr": 10.0**exponent} if make_config == tiny.search_config else {}
    for lr in (10.0**exponent, 0.1):
        if Path("run").exists():
            Path("run").rename(f"before {lr}")
        assert ends(make_config(lr=lr, lr_min=0.0, checkpoint_steps=every, **changes)) in (0, Exit.NUMERIC)


def test_one_step_an_epoch():
    """The architecture is recorded after each step, before the next one meets what is wrong with it."""
    assert ends(tiny.search_config(batch_size=48, alpha_lr=1e300)) == Exit.NUMERIC


def test_an_evaluation_that_overflows(monkeypatch):
    monkeypatch.setattr(
        "darts_lite.training.search_state.evaluate", lambda *a, **k: {"loss": torch.inf, "accuracy": 0.5}
    )
    with pytest.raises(UserError) as error:
        tiny.run(tiny.search_config())
    assert error.value.code == Exit.NUMERIC and "validation/loss is not finite at step 3" in str(error.value)


def test_the_command_line_says_what_to_do(capsys):
    words = [
        "dataset=npz",
        "dataset.path=data.npz",
        "space.nodes=1",
        "cells=2",
        "channels=4",
        "batch_size=16",
        "run_dir=run",
    ]
    for again in ([*words, "lr=1e30", "lr_min=1e-3", "log_every=1"], ["resume=run"]):
        assert run_verb("search", again) == Exit.NUMERIC
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("darts_lite: error: alphas: the validation loss is not finite at step 1;")
        assert "another run_dir" in line and "lower" in line and len(line) <= 400


# Precision


@pytest.fixture
def passes(monkeypatch):
    """Whether each forward pass of a network runs under bf16 autocast, and the dtype of what it returns."""
    seen = []
    forward = Network.forward

    def spied(self, *arguments, **named):
        logits = forward(self, *arguments, **named)
        seen.append((torch.is_autocast_enabled("cpu"), logits.dtype))
        return logits

    monkeypatch.setattr(Network, "forward", spied)
    return seen


HALF, FULL = (True, torch.bfloat16), (False, torch.float32)


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        ("first_order", [HALF, HALF]),  # outer | weights
        ("unrolled", [HALF, HALF, FULL, FULL, HALF]),  # inner, outer, two probes | weights
        ("unrolled_exact", [FULL, HALF, HALF]),  # inner, outer | weights
    ],
)
def test_what_runs_in_bf16(solver, expected, passes, monkeypatch):
    config = tiny.search_config(precision="bf16", solver=solver)
    state, batches = make(config)
    assert state.precision == "fp32"
    state.precision = "bf16"
    metrics = search_step(state, *batches(0), learn_alphas=True)
    assert passes == expected
    assert all(value.dtype == torch.float32 and value.isfinite() for value in metrics.values())
    tensors = [*state.supernet.parameters(), *state.supernet.buffers(), *state.architecture.parameters()]
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("frozen", [False, True], ids=["moving", "frozen"])
@pytest.mark.parametrize("verb", ["search", "retrain"])
def test_filters_brought_to_bf16_together_are_those_of_autocast(verb, frozen):
    """Bit for bit: the output, and every gradient."""
    config = tiny.search_config() if verb == "search" else tiny.retrain_config(drop_path=0.0)
    state, feeds, _ = tiny.training(config)
    optimizer = state.weight_optimizer
    feeds[0].load(0)
    images, labels = feeds[0].batch(state.clock.generator)
    if verb == "search":
        mixing = state.architecture.sample(state.clock.progress, state.clock.generator)
        how, inputs = {"mixing": mixing}, list(state.architecture.parameters())
    else:
        how, inputs = {"auxiliary": True}, []
    inputs += [] if frozen else optimizer.weights
    weights = [weight.detach() for weight in optimizer.weights] if frozen else optimizer.weights

    def outcome(forward):
        with computing(state.device, "bf16"):
            outputs = forward()
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            loss = sum(F.cross_entropy(output, labels) for output in outputs)
        return *outputs, *(
            torch.autograd.grad(loss, inputs, materialize_grads=True, retain_graph=True) if inputs else ()
        )

    plain = outcome(
        lambda: functional_call(optimizer.network, dict(zip(optimizer.names, weights, strict=True)), (images,), how)
    )
    ours = outcome(lambda: call(optimizer.network, "bf16", optimizer.names, weights, images, **how))
    assert all(map(torch.equal, ours, plain)) and len(ours) == len(plain)
    assert {tensor.dtype for tensor in ours[len(ours) - len(inputs) :]} <= {torch.float32}


def test_filters_brought_to_bf16_together_can_be_differentiated_twice():
    """As those of autocast: what `unrolled_exact` needs."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Conv2d(4, 2, 3))
    names, weights = zip(*network.named_parameters(), strict=True)
    images = torch.randn(2, 3, 8, 8)

    def second(forward):
        with computing(torch.device("cpu"), "bf16"):
            loss = forward().float().square().mean()
        first = torch.autograd.grad(loss, weights, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), weights)

    plain, ours = second(lambda: network(images)), second(lambda: call(network, "bf16", names, weights, images))
    assert any(gradient.abs().max() > 0 for gradient in plain)
    assert all(map(torch.equal, ours, plain))


@pytest.fixture
def levels():
    """The settings of TF32, from the widest to those of single operators; afterwards they are as torch has them when it is loaded."""
    backends = torch.backends
    found = [backends, backends.cudnn, backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    yield found
    for level in found:
        level.fp32_precision = "none"
    backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = False, True


def legacy(allowed):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


ALLOWING = {
    "as loaded": lambda levels: None,
    "legacy": lambda levels: legacy(True),
    "legacy, forbidden": lambda levels: legacy(False),
    "everywhere": lambda levels: setattr(levels[0], "fp32_precision", "tf32"),
    "cudnn": lambda levels: setattr(levels[1], "fp32_precision", "tf32"),
    "operators": lambda levels: [setattr(level, "fp32_precision", "tf32") for level in levels[2:]],
    "matmul": lambda levels: setattr(levels[2], "fp32_precision", "tf32"),
}


@pytest.mark.parametrize("allow", ALLOWING.values(), ids=ALLOWING)
def test_probes_have_no_tf32(allow, levels, monkeypatch):
    """Whoever allowed it, through the newer settings or the older ones, which then must not be read; afterwards all is as it was."""
    state, batches = make(tiny.search_config(solver="unrolled"))
    forward, seen = search_state.call, []

    def called(*arguments, **named):
        seen.append([level.fp32_precision for level in levels[2:4]])
        return forward(*arguments, **named)

    monkeypatch.setattr(search_state, "call", called)
    allow(levels)
    before = [level.fp32_precision for level in levels]
    alpha_step(state, *batches(0), torch.tensor(0.1))
    assert seen == 4 * [["ieee", "ieee"]]
    assert [level.fp32_precision for level in levels] == before
    if allow in (ALLOWING["as loaded"], ALLOWING["legacy"], ALLOWING["legacy, forbidden"]):
        allowed = allow is ALLOWING["legacy"]
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
        assert torch.backends.cudnn.allow_tf32 is (allow is not ALLOWING["legacy, forbidden"])


def test_a_wider_setting_of_tf32_still_reaches_what_followed_it(levels):
    levels[0].fp32_precision = "tf32"
    with full_float32():
        pass
    levels[0].fp32_precision = "ieee"
    assert [level.fp32_precision for level in levels[2:4]] == ["ieee", "ieee"]


@pytest.mark.parametrize(
    "config", [tiny.search_config(solver="unrolled"), tiny.retrain_config()], ids=["search", "retrain"]
)
def test_a_run_in_bf16(config):
    result = tiny.run(config, precision="bf16")
    score = result["test" if "test" in result else "validation"]
    assert 0 < score["loss"] < 10
    assert_finite(tiny.newest("run"))
    losses = [
        record["values"]["train/loss"] for record in tiny.read_lines("run/metrics.jsonl") if record["kind"] == "step"
    ]
    assert losses and all(0 < loss < 10 for loss in losses)


def test_on_a_cpu_auto_is_full_precision(monkeypatch):
    seen = set()
    for module in (search_state, retrain_state):
        computing = module.computing
        monkeypatch.setattr(
            module,
            "computing",
            lambda device, precision, inner=computing: seen.add(precision) or inner(device, precision),
        )
    tiny.run(tiny.search_config(epochs=1))
    tiny.run(tiny.retrain_config(epochs=1, run_dir="other"))
    assert seen == {"fp32"}
    assert not_finite("a", "b", 1, "c").code == Exit.NUMERIC
