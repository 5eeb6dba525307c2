"""Evaluation: its batches, their number and shapes, and what a network has to do in each that it could do once."""

from types import SimpleNamespace

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from darts_lite.errors import UserError
from darts_lite.evaluate import table
from darts_lite.hardware.precision import computing, lowered
from darts_lite.runs import retrain_results
from darts_lite.runs.trained import check_data
from darts_lite.settings.configs import SpaceConfig
from darts_lite.training import evaluation, search_state
from darts_lite.training.evaluation import at_once, batch_sizes, evaluate, evaluating, even_batches

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("number", "at_most", "sizes"),
    [
        (25_000, 512, [500] * 50),  # half of CIFAR-10
        (25_000, 1_000, [1_000] * 25),
        (10_000, 256, [250] * 40),  # its test part
        (10_000, 768, [625] * 16),
        (7, 10, [7]),
        (10, 3, [2] * 5),
        (11, 4, [4, 4, 3]),
        (10_007, 1_000, [910] * 8 + [909] * 3),  # a prime number
        (3, 1, [1] * 3),
    ],
)
def test_even_batches(number, at_most, sizes):
    assert even_batches(number, at_most) == sizes


def test_batches_are_even_and_few():
    for number in range(1, 300):
        for at_most in (1, 2, 3, 7, 16, 100, 1000):
            sizes = even_batches(number, at_most)
            assert sum(sizes) == number and max(sizes) <= at_most and max(sizes) - min(sizes) <= 1
            assert len(sizes) <= 2 * -(-number // at_most)


def test_only_a_gpu_gets_larger_and_even_batches():
    class Images(list):
        device = CPU

    part = Images([None] * 100)
    assert batch_sizes(part, 64) == 64 and at_once(CPU, 64) == 64
    part.device = CUDA
    assert batch_sizes(part, 64) == [50, 50]
    assert [at_once(CUDA, size) for size in (1, 64, 96, 128, 2048)] == [4, 256, 384, 512, 2048]


class Watching(TorchDispatchMode):
    """Counts classified batches by size, at the first convolution, and casts to bf16."""

    def __init__(self, channels):
        super().__init__()
        self.channels, self.batches, self.casts = channels, [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default and args[0].shape[1] == self.channels:
            self.batches.append(len(args[0]))
        self.casts += func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") == torch.bfloat16
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(tiny_folder, monkeypatch):
    """A validation takes the batches that it would take on a GPU."""
    for module in (search_state, retrain_results):
        monkeypatch.setattr(module, "at_once", lambda device, size: at_once(CUDA, size))
        monkeypatch.setattr(module, "batch_sizes", lambda part, size: even_batches(len(part), size))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_validation_casts_no_filter_twice(precision, as_on_a_gpu):
    """48 images after a search with batches of 6: 24 at once are allowed, so two batches. Each casts what it computes, only."""
    state, feeds, step = tiny.training(tiny.search_config(batch_size=6), precision=precision)
    for feed in feeds:
        feed.load(0)
    step(state)
    part = state.validation = feeds[1].part
    with Watching(1) as whole, torch.no_grad():
        state.scores(state.architecture.expected(state.clock.progress))
    assert whole.batches == [24, 24]
    filters = sum(weight.dim() > 1 for weight in state.supernet.parameters())
    with Watching(1) as once, computing(CPU, precision), torch.no_grad(), evaluating(state.supernet):
        mixing = state.architecture.expected(state.clock.progress)
        state.supernet(next(part.batches(24))[0], mixing)
    if precision == "bf16":
        assert filters > 10
        assert whole.casts == 2 * (once.casts - filters)
    else:
        assert whole.casts == once.casts == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lowered_once_is_lowered_each_time(precision, tiny_folder):
    state, feeds, _ = tiny.training(tiny.retrain_config(), precision=precision)
    part = feeds[0].part
    with evaluating(state.network):
        plain = evaluate(state.network, part, 3, sizes=16, precision=precision)
        once = evaluate(lowered(state.network, precision), part, 3, sizes=16, precision=precision)
    assert plain == once and plain["samples"] == 96


def test_the_sizes_of_batches_do_not_matter(tiny_folder):
    state, feeds, _ = tiny.training(tiny.retrain_config())
    with evaluating(state.network):
        scores = [evaluate(state.network, feeds[0].part, 3, sizes=sizes, precision="fp32") for sizes in (96, [50, 46])]
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=1e-6)
    assert [score.pop("loss") > 0 for score in scores] and scores[0] == scores[1]


def test_streams_come_in_these_batches_too(tiny_folder):
    from darts_lite import data
    from darts_lite.data.parts import Preparation, ResidentImages
    from darts_lite.data.stream import Stream

    found = data.load(tiny.data_config())
    preparation = Preparation(found.x_test.shape[1:], CPU, found.mean, found.std)
    arguments = found.x_test, found.y_test, preparation
    for part in (ResidentImages(*arguments), Stream(*arguments, workers=0, warn=print)):
        batches = list(part.batches([11, 10, 9]))
        assert [len(images) for images, _ in batches] == [11, 10, 9]
        assert torch.equal(torch.cat([labels for _, labels in batches]), torch.from_numpy(found.y_test))


def test_evaluating_tries_no_algorithms(tiny_folder):
    """For each new shape cuDNN would try some; a validation has other shapes than the training."""
    state, feeds, _ = tiny.training(tiny.retrain_config())
    seen, before = [], torch.backends.cudnn.benchmark

    def classify(images):
        seen.append(torch.backends.cudnn.benchmark)
        return state.network(images)

    torch.backends.cudnn.benchmark = True
    try:
        evaluate(classify, feeds[0].part, 3, sizes=48, precision="fp32")
        assert seen == [False, False] and torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = before
    assert evaluation.MANY == 1000


def lines_of_classes(names, per_class):
    """The table's lines about classes."""
    test = {"accuracy": 0.5, "samples": 9, "loss": 1.0, "per_class": per_class}
    result = {"test": test, "parameters": 1, "macs": 1, "latency_ms": {}, "peak_memory_bytes": 0}
    return [line for line in table(result, names) if "class" in line]


def test_a_few_classes_have_a_line_each():
    names = ["Größe", "日本", "a\x1b[31mb\u202e", "\ud800"]
    assert lines_of_classes(names, [1.0, 0.25, None, 0.0]) == [
        "class Größe          1.0000",
        "class 日本             0.2500",
        "class a\\x1b[31mb\\u202e no test image",
        "class \\ud800         0.0000",
    ]


@pytest.mark.parametrize("missing", [0, 1, 95, 100])
def test_a_hundred_classes_are_not_a_hundred_lines(missing):
    scores = [(7 * place % 100) / 100 if place >= missing else None for place in range(100)]
    lines = lines_of_classes([f"n{place}" for place in range(100)], scores)
    known = sorted(score for score in scores if score is not None)
    assert [float(line.split()[-1]) for line in lines if line.startswith("class")] == known[:10], "the worst, in order"
    assert len(lines) <= 12
    if rest := known[10:]:
        assert f"{len(rest)} other classes     {rest[0]:.4f} to {rest[-1]:.4f}; each in result.json" in lines
    assert any("no test image" in line and line.startswith(str(missing)) for line in lines) == bool(missing)


def test_data_that_do_not_fit_are_described_by_width_and_height():
    dataset = SimpleNamespace(class_names=("a", "b"), channels=1, image_size=(6, 10), fingerprint="x")
    model = {"class_names": ["a", "b", "c"], "input_channels": 3, "image_size": (6, 10)}
    with pytest.raises(UserError) as caught:
        check_data(dataset, model, "y")
    assert caught.value.reason == (
        "has 10x6 with 1 channel (width x height) and 2 classes, the network 10x6 with 3 channels (width x height) and 3 classes"
    )


def test_a_supernet_without_running_statistics_is_judged_on_shuffled_batches(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tiny.write_data(train=200)
    seen = []
    evaluate = search_state.evaluate

    def spied(classify, part, *arguments, **how):
        seen.append([len(labels) for _, labels in part.batches(how["sizes"])])
        return evaluate(classify, part, *arguments, **how)

    monkeypatch.setattr(search_state, "evaluate", spied)
    tiny.run(
        tiny.search_config(space=SpaceConfig(name="nasbench201"), selection="argmax", channels=8, epochs=1, cells=3)
    )
    assert seen and all(sizes == [32, 32, 32] for sizes in seen)  # of 100 images, with batch_size=16
