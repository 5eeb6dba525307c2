"""Images that do not fit on the device, or not into memory: processes load batches while the device computes.

They only read and decode. What is random is drawn on the device (parts.Preparation), and which images make a batch is a function of the
step (parts.Order), so neither where images wait nor how many processes load them changes a bit of a run, resumed ones included.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from darts_lite.data import images as decoding
from darts_lite.data.files import data_error
from darts_lite.data.images import Files, Images
from darts_lite.data.parts import Order, Preparation, ResidentImages
from darts_lite.errors import UserError, raise_all
from darts_lite.hardware.machine import cores
from darts_lite.settings.datasets import DatasetConfig

Batch = tuple[Tensor, Tensor]  # pixels uint8 (B, H, W, C), labels int64 (B,)
# Of a batch that was announced, and whose memory was to be fetched from a worker that is gone.
_CUT_OFF = (ConnectionError, EOFError, FileNotFoundError)
Failed = list[tuple[str, str, str]]  # key, reason and fix of every image of a batch that cannot be used


class Stream:
    """Like `ResidentImages`, but batches are loaded by `workers` processes; 0: by this one."""

    def __init__(
        self,
        images: Images,
        labels: np.ndarray,
        preparation: Preparation,
        *,
        workers: int = 0,
        warn: Callable[[str], None],
    ):
        self.preparation = preparation
        self.device, self.order_device = preparation.device, torch.device("cpu")
        self._source = _Loaded(images, np.asarray(labels, dtype=np.int64))
        self.workers, self._warn = workers, warn

    def __len__(self) -> int:
        return len(self._source.labels)

    def follow(self, order: Order, step: int) -> Iterator[Batch]:
        """Pixels and labels, on the device, of the batches of `step`, `step` + 1, ... without an end."""
        return self._loaded(lambda done: map(order.indices, count(step + done)))

    def pick(self, arrived: tuple[Tensor, ...]) -> Batch:
        """A batch as it came."""
        pixels, labels = arrived
        return pixels, labels

    def batches(self, sizes: int | list[int]) -> Iterator[Batch]:
        """Every image once, in order and not augmented, for evaluation: batches of `sizes`; of one number the last may be smaller."""
        pieces = torch.arange(len(self)).split(sizes)
        for pixels, labels in self._loaded(lambda done: iter(pieces[done:])):
            yield self.preparation.normalized(pixels), labels

    def _loaded(self, indices: Callable[[int], Iterator[Tensor]]) -> Iterator[Batch]:
        """Batches of `indices(0)`, on the device; `indices(n)` leaves out the first n, for going on after a killed worker."""
        done = 0
        while True:
            try:
                for batch in self._loader(indices(done)):
                    if isinstance(batch, list):
                        raise_all(data_error(*problem) for problem in batch)
                    else:
                        done += 1
                        yield batch[0].to(self.device, non_blocking=True), batch[1].to(self.device, non_blocking=True)
                return
            except (RuntimeError, *_CUT_OFF) as error:
                killed = isinstance(error, _CUT_OFF) or "DataLoader worker" in str(error)
                if self.workers == 0 or not killed:
                    raise
                # Killed for its memory, or by a signal that was meant for all: this process can do the same, so the run goes on.
                self._warn("a process that loads images was killed: from here on they are loaded without workers")
                self.workers = 0

    def _loader(self, indices: Iterator[Tensor]) -> Iterator[Batch | Failed]:
        loader: DataLoader[Batch | Failed] = DataLoader(
            self._source,  # type: ignore[arg-type]  # anything with __getitem__ will do
            sampler=(one.numpy() for one in indices),  # type: ignore[arg-type]  # any iterable will do
            batch_size=None,  # an index of the sampler is a whole batch
            collate_fn=_as_it_is,
            num_workers=self.workers,
            multiprocessing_context="fork" if self.workers else None,  # arrays and paths are shared, not copied
            worker_init_fn=_begin,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # it would draw from the global one
        )
        handler = signal.getsignal(signal.SIGCHLD)
        iterator = iter(loader)
        if self.workers and threading.current_thread() is threading.main_thread():
            # torch's raises wherever the main thread is when a worker dies, be it in the middle of a checkpoint.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if handler is None else handler)
        return iterator


class _Loaded:
    """Map of a worker: indices int64 (B,) -> a batch, or the errors of its images. Never raises: errors do not travel well."""

    def __init__(self, images: Images, labels: np.ndarray):
        self.images, self.labels = images, labels

    def __getitem__(self, indices: np.ndarray) -> Batch | Failed:
        try:
            pixels = np.ascontiguousarray(self.images[indices])
        except UserError as error:
            return [(str(one.key), one.reason, one.fix) for one in error.problems]
        return torch.from_numpy(pixels), torch.from_numpy(self.labels[indices])


def image_source(
    images: Images,
    labels: np.ndarray,
    preparation: Preparation,
    config: DatasetConfig,
    warn: Callable[[str], None],
) -> ResidentImages | Stream:
    """`ResidentImages` if the images are in memory and fit on the device, else a `Stream`; `config` may say which."""
    waiting = isinstance(images, Files) and images.pixels is None
    fits = not waiting and _fits(images.nbytes, preparation.device)
    if config.storage == "device" or (config.storage == "auto" and fits):
        return ResidentImages(images, labels, preparation)
    workers = min(8, cores() - 1) if config.workers is None else config.workers
    return Stream(images, labels, preparation, workers=workers, warn=warn)


def _fits(size: int, device: torch.device) -> bool:
    """Whether the device has room for `size` bytes of images: half of what is free is left to the training."""
    return device.type != "cuda" or 2 * size <= torch.cuda.mem_get_info(device)[0]


def _begin(number: int) -> None:
    """Set up a worker process. torch ends it when its parent is gone."""
    # Ctrl-C and `kill -- -<group>` are for the run, which saves first and needs its batches until then.
    with suppress(OSError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    decoding.THREADS = 1  # there are as many workers as cores


def _as_it_is(batch: Batch | Failed) -> Batch | Failed:
    return batch
