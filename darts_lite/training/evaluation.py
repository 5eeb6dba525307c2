"""Evaluation: loss and accuracies of a classifier on a part, and how long one prediction takes."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darts_lite.data.parts import ImageSource, Order
from darts_lite.hardware.device import synchronize, without_trials
from darts_lite.hardware.precision import computing
from darts_lite.spaces.network import Network


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode of `network` inside; afterwards the mode that it was in."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


MANY = 1000  # images at once, for a GPU


def even_batches(number: int, at_most: int) -> list[int]:
    """Sizes of the batches that `number` images make: all equal if a size from `at_most` down to its half allows it, else within 1.

    A GPU gets ready for each new shape, and a last batch of a few images would be one more.
    """
    for size in range(min(number, at_most), at_most // 2, -1):
        if number % size == 0:
            return [size] * (number // size)
    batches = -(-number // at_most)
    size, larger = divmod(number, batches)
    return [size + 1] * larger + [size] * (batches - larger)


def batch_sizes(part: ImageSource, at_most: int) -> int | list[int]:
    """Argument of `part.batches` for at most so many images at once: even batches on a GPU, plain ones on a CPU."""
    return at_most if part.device.type == "cpu" else even_batches(len(part), at_most)


def at_once(device: torch.device, batch_size: int) -> int:
    """Number of images to evaluate at once after a training with `batch_size`: as many on a CPU, on a GPU 4 times as many, up to MANY.

    Of the published supernet in float32, an image takes 42 MB while it learns, and 9 MB in eval mode: so this never needs more memory.
    """
    return batch_size if device.type == "cpu" else max(batch_size, min(MANY, 4 * batch_size))


class Batches(Protocol):
    """What can be evaluated: normalized images (N, C, H, W) and labels (N,), in batches of `sizes`."""

    @property
    def device(self) -> torch.device: ...
    def batches(self, sizes: int | list[int]) -> Iterator[tuple[Tensor, Tensor]]: ...


@dataclass(frozen=True)
class InAnyOrder:
    """A part in an order drawn from `seed`, so that a batch's statistics are those of all classes; at most about `images` of it.

    Its batches are all full: what is left over is not looked at.
    """

    part: ImageSource
    seed: int
    images: int | None = None  # None: all

    @property
    def device(self) -> torch.device:
        """Where its batches are."""
        return self.part.device

    def batches(self, sizes: int | list[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one size, the largest of `sizes`."""
        number = min(len(self.part), self.images or len(self.part))
        size = min(number, sizes if isinstance(sizes, int) else max(sizes))
        order = Order(len(self.part), size, self.seed, self.part.order_device)
        arriving = self.part.follow(order, 0)
        for _ in range(number // size):
            pixels, labels = self.part.pick(next(arriving))
            yield self.part.preparation.normalized(pixels), labels


@torch.no_grad()
def evaluate(
    classify: Callable[[Tensor], Tensor], part: Batches, classes: int, *, sizes: int | list[int], precision: str
) -> dict:
    """Mean loss, accuracy (top-1), top-5 where there are more than five classes, and accuracy of each class, as fractions.

    `classify` maps images (N, C, H, W) to logits (N, classes); `sizes`: of its batches. A class without samples has accuracy None.
    """
    device = part.device
    total_loss = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros(classes, dtype=torch.int64, device=device)
    counts = torch.zeros(classes, dtype=torch.int64, device=device)
    top5 = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in part.batches(sizes):
        with computing(device, precision), without_trials():
            logits = classify(images)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        total_loss += F.cross_entropy(logits, labels, reduction="sum").double()
        right = logits.argmax(dim=1) == labels
        counts += torch.bincount(labels, minlength=classes)
        # The wrong ones count for a class of their own: with weights, bincount adds in any order, which deterministic=true refuses.
        hits += torch.bincount(labels.where(right, classes), minlength=classes + 1)[:classes]
        if classes > 5:
            top5 += (logits.topk(5, dim=1).indices == labels[:, None]).sum()
    n = int(counts.sum())
    per_class = [hit / count if count else None for hit, count in zip(hits.tolist(), counts.tolist(), strict=True)]
    result = {"loss": float(total_loss) / n, "accuracy": int(hits.sum()) / n, "samples": n, "per_class": per_class}
    if classes > 5:
        result["top5"] = int(top5) / n
    return result


def latencies(network: Network, device: torch.device, precision: str, batch_size: int) -> dict[str, float]:
    """Median milliseconds of a forward pass in eval mode, of one image and of a batch: {"1": ..., "<batch_size>": ...}."""
    with evaluating(network):
        return {str(size): _latency(network, size, device, precision) for size in (1, batch_size)}


@torch.no_grad()
def _latency(
    network: Network, size: int, device: torch.device, precision: str, repeats: int = 20, warm_up: int = 3
) -> float:
    shape = size, network.skeleton.input_channels, *network.skeleton.image_size
    images = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(warm_up + repeats):
        start = time.perf_counter()
        with computing(device, precision):
            network(images)
        synchronize(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[warm_up:])
