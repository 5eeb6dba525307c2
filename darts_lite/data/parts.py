"""Parts of a data set on the device: which images belong to them, in which order they come, how a batch is made."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from darts_lite.data.augmentation import Augmentation, crop, cutout, flip, resized_crop
from darts_lite.data.files import data_error
from darts_lite.data.images import Images
from darts_lite.data.jitter import jitter
from darts_lite.errors import UserError
from darts_lite.seeds import derive

LAST = torch.channels_last


class Order:
    """Indices of the images of each step's batch: a pure function of the step, so that resume needs no state.

    Each epoch is a fresh permutation of 0..n-1, drawn from (seed, epoch); its last incomplete batch is dropped.
    Two parts need two seeds, as derive(seed, "train"): with one, parts of one length are paired alike in every epoch.
    """

    def __init__(self, n: int, batch_size: int, seed: int, device: torch.device | str = "cpu"):
        if n < 1:
            raise data_error("dataset", "a part of it has no image", "use more images of each class")
        if batch_size > n:
            reason = f"larger than its part of the data ({n} images)"
            raise UserError("batch_size", reason, f"lower it to at most {n}", value=batch_size)
        self.n, self.batch_size, self.seed, self.device = n, batch_size, seed, device
        self.steps_per_epoch = n // batch_size
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def indices(self, step: int) -> Tensor:
        """int64 (batch_size,) on the device, for step 0, 1, 2, ..."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            # Drawn on the CPU: the same order on every device.
            generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
            self._permutation = torch.randperm(self.n, generator=generator).to(self.device)
            self._epoch = epoch
        return self._permutation[position * self.batch_size : (position + 1) * self.batch_size]


class Flips:
    """Alternating flips: each image is flipped in one of every two epochs, by seed, image and epoch alone.

    In the first epoch a coin decides, in each later one the contrary of the one before. Two successive epochs show an image both ways
    round, where random flips show it twice alike in half of the cases (Jordan 2024, 2404.00498: alternating flip).
    """

    def __init__(self, order: Order):
        self._order = order  # one of its own on the device: a stream is asked for batches of later epochs ahead of time
        generator = torch.Generator().manual_seed(derive(order.seed, "flips"))
        self._coins = (torch.rand(order.n, generator=generator) < 0.5).to(order.device)

    def mirrored(self, step: int) -> Tensor:
        """bool (batch_size,) on the device, for the batch of `step`. Waits for nothing."""
        coins = self._coins.index_select(0, self._order.indices(step))
        return ~coins if step // self._order.steps_per_epoch % 2 else coins


class Preparation:
    """Augmentation and normalization of a batch of uint8 images, on the device.

    `mean` and `std` are of each channel of pixels in [0, 1]; without `augmentation` images stay as they are.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        device: torch.device | str,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None = None,
    ):
        height, width, channels = image_shape
        if augmentation:
            augmentation.check(height, width, channels)
        self.device, self.augmentation = torch.device(device), augmentation
        # One value a pixel, laid out as the images: one long inner loop instead of C steps, 5 times faster on a CPU.
        shape = (1, channels, height, width)
        self._mean, self._std = (
            torch.tensor(values).view(1, -1, 1, 1).expand(shape).to(device, torch.float32).clone(memory_format=LAST)
            for values in (mean, std)
        )

    def augmented(self, pixels: Tensor, generator: torch.Generator, mirrored: Tensor | None = None) -> Tensor:
        """uint8 (B, H, W, C) -> augmented float32 (B, C, H, W), channels_last; each image has its own draws. Waits for nothing.

        `mirrored`: bool (B,), the images to flip where that is not drawn (`Augmentation.alternating`).
        """
        images = pixels.permute(0, 3, 1, 2)
        if self.augmentation is None:
            return self._standardized(images)
        height, width = images.shape[-2:]
        draws = self.augmentation.draw(len(images), height, width, generator)
        if draws.crop:
            images = crop(images, self.augmentation.padding(height, width), *draws.crop)
        if draws.resized:
            images = resized_crop(images, *draws.resized)
        mirrored = draws.flip if mirrored is None else mirrored
        if mirrored is not None:
            images = flip(images, mirrored)
        if draws.colors:
            images = jitter(images.to(torch.float32, memory_format=LAST) / 255, *draws.colors) * 255
        images = self._standardized(images)
        if draws.cutout:
            images = cutout(images, self.augmentation.cutout, *draws.cutout)
        return images

    def normalized(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, C) -> float32 (B, C, H, W), channels_last, not augmented: for evaluation."""
        return self._standardized(pixels.permute(0, 3, 1, 2))

    def _standardized(self, images: Tensor) -> Tensor:
        """(pixel / 255 - mean) / std, as torchvision's ToTensor and Normalize, bit for bit."""
        return images.to(torch.float32, memory_format=LAST).div_(255).sub_(self._mean).div_(self._std)


class ResidentImages:
    """Images (n, C, H, W) and labels (n,) that live on the device as uint8 and int64, and batches of them.

    Built from uint8 (n, H, W, C) and integer (n,) arrays.
    """

    def __init__(self, images: Images, labels: np.ndarray, preparation: Preparation):
        self.preparation = preparation
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        self._pixels = pixels.to(preparation.device)  # (n, H, W, C): gathered as whole rows
        self.images = self._pixels.permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(preparation.device)
        self.device = self.order_device = self.labels.device

    def __len__(self) -> int:
        return len(self.labels)

    def follow(self, order: Order, step: int) -> Iterator[tuple[Tensor, ...]]:
        """Endless iterator over the indices, int64 (B,), of the batches of `step`, `step` + 1, ..."""
        return ((order.indices(number),) for number in count(step))

    def pick(self, arrived: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Pixels uint8 (B, H, W, C) and labels (B,), on the device."""
        (indices,) = arrived
        return self._pixels.index_select(0, indices), self.labels[indices]

    def batches(self, sizes: int | list[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in order and not augmented, for evaluation: batches of `sizes`; of one number the last may be smaller."""
        for pixels, labels in zip(self._pixels.split(sizes), self.labels.split(sizes), strict=True):
            yield self.preparation.normalized(pixels), labels


class ImageSource(Protocol):
    """Images and labels that a feed takes batches from: `ResidentImages` or `Stream`."""

    preparation: Preparation
    device: torch.device  # of its batches
    order_device: torch.device  # where it wants indices

    def __len__(self) -> int: ...
    def follow(self, order: Order, step: int) -> Iterator[tuple[Tensor, ...]]: ...
    def pick(self, arrived: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]: ...
    def batches(self, sizes: int | list[int]) -> Iterator[tuple[Tensor, Tensor]]: ...


class BatchFeed:
    """The batches of a training, by step: what a part holds, in an order drawn from `seed`.

    `load` brings what the host knows of a batch, `batch` makes it on the device. What is loaded lies in the same tensors at every step, so
    that a CUDA graph can hold everything that `batch` does (hardware/graph.py).
    """

    def __init__(self, part: ImageSource, batch_size: int, seed: int):
        self.part = part
        self.order = Order(len(part), batch_size, seed, part.order_device)
        self.steps_per_epoch = self.order.steps_per_epoch
        augmentation = part.preparation.augmentation
        alternating = augmentation is not None and augmentation.flip and augmentation.alternating
        self._flips = Flips(Order(len(part), batch_size, seed, part.device)) if alternating else None
        self._arriving: Iterator[tuple[Tensor, ...]] = iter(())
        self._loaded: tuple[Tensor, ...] = ()
        self._next = -1

    @record_function("data")
    def load(self, step: int) -> None:
        """Bring the indices, or the pixels, of `step` to the device. Waits for nothing but, once an epoch, a new order."""
        if step != self._next:  # the first step of a run, or of one that goes on
            self._arriving = self.part.follow(self.order, step)
        arrived = next(self._arriving)
        self._next = step + 1
        if self._flips is not None:
            arrived = (*arrived, self._flips.mirrored(step))
        if not self._loaded:
            self._loaded = tuple(tensor.clone() for tensor in arrived)
        for place, tensor in zip(self._loaded, arrived, strict=True):
            place.copy_(tensor)

    @record_function("data")
    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Augmented images float32 (B, C, H, W), channels_last, and labels int64 (B,): a function of the loaded step and the generator."""
        arrived, mirrored = self._loaded, None
        if self._flips is not None:
            arrived, mirrored = arrived[:-1], arrived[-1]
        pixels, labels = self.part.pick(arrived)
        return self.part.preparation.augmented(pixels, generator, mirrored), labels
