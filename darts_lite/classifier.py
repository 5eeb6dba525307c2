"""A trained network with what it needs to be used: how an image is prepared, and what its classes are called.

model = load_model(run)                                   # see darts_lite.models
names, probabilities = model.predict("photo.jpg")         # or an image of Pillow, or uint8 (N, H, W, C) or (N, H, W)
logits = model(model.prepare(images))                     # the same in two steps, with gradients
"""

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from darts_lite.data.images import MODES, bombs_are_errors, decode, fitted
from darts_lite.data.parts import Preparation
from darts_lite.errors import Exit, UserError
from darts_lite.spaces.network import Network
from darts_lite.training.evaluation import evaluating

One = Image.Image | str | os.PathLike[str]  # an image of Pillow or the path of a file
Several = np.ndarray | Tensor | One | Sequence[One]
FORM = "give uint8 (N, H, W, C) or (N, H, W), an image of Pillow, a path, or a list of images and paths"


class Classifier(nn.Module):
    """`network` with the preprocessing of its training; `forward` is the network itself, on prepared images."""

    def __init__(
        self,
        network: Network,
        class_names: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        center: float = 1.0,
    ):
        super().__init__()
        self.network = network
        self.class_names = tuple(class_names)
        self.mean, self.std = tuple(mean), tuple(std)  # of each channel of pixels in [0, 1]
        self.center = center  # of the shorter side of an image: what is kept of it

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that the network sees."""
        return *self.network.skeleton.image_size, self.network.skeleton.input_channels

    def forward(self, images: Tensor) -> Tensor:
        """Prepared images float (N, C, H, W) -> logits (N, classes)."""
        return self.network(images)

    @torch.no_grad()
    def predict(self, images: Several, batch_size: int = 256) -> tuple[list[str], Tensor]:
        """The name of the most probable class of each image, and all probabilities float32 (N, classes), on the CPU.

        `images` as in `prepare`. Always in eval mode. Raises UserError (3) for what is no 8-bit image.
        """
        pixels, prepared = self._pixels(images), self._preparation()
        with evaluating(self):
            logits = [self(prepared(some)).float().cpu() for some in pixels.split(batch_size)]
        probabilities = torch.cat(logits).softmax(dim=1)
        return [self.class_names[number] for number in probabilities.argmax(dim=1).tolist()], probabilities

    def prepare(self, images: Several) -> Tensor:
        """Images as evaluation feeds them, float (N, C, H, W) on the network's device: the centre resized, grey or RGB, normalized.

        `images`: uint8 (N, H, W, C) or (N, H, W) of any size, pixels 0 to 255, array or tensor; one image of Pillow or the path of one;
        or a list of these two. Arrays of the network's own size are taken as they are. Raises UserError (3).
        """
        return self._preparation()(self._pixels(images))

    def _preparation(self) -> Callable[[Tensor], Tensor]:
        """uint8 (N, *image_shape) -> what `prepare` returns, where the network lies now."""
        weight = next(self.network.parameters())
        preparation = Preparation(self.image_shape, weight.device, self.mean, self.std)
        return lambda pixels: preparation.normalized(pixels.to(weight.device)).to(weight.dtype)

    def _pixels(self, images: Several) -> Tensor:
        """uint8 (N, *image_shape), on the CPU unless it is a tensor that has that shape already."""
        if isinstance(images, Tensor | np.ndarray):
            return self._of_array(images if isinstance(images, Tensor) else torch.from_numpy(images))
        several = [images] if isinstance(images, Image.Image | str | os.PathLike) else images
        if not several:
            raise _error("there is none", FORM)
        return torch.stack([torch.from_numpy(self._of_one(image)) for image in several])

    def _of_array(self, images: Tensor) -> Tensor:
        shape = tuple(images.shape)
        if images.dtype != torch.uint8:
            raise _error("must be uint8, pixels 0 to 255", "scale them back, before any normalization", images.dtype)
        if len(shape) not in (3, 4) or 0 in shape:
            raise _error("have a shape that is none of images", FORM, shape)
        *_, channels = self.image_shape
        if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[1] > 4:
            raise _error("look like one image (H, W, C)", "give images[None]: (1, H, W, C)", shape)
        images = images if len(shape) == 4 else images[..., None]
        if images.shape[1:] == self.image_shape:
            return images
        if images.shape[3] not in (1, 3) or channels not in (1, 3):
            fix = f"give (N, H, W, {channels}), channels last"
            raise _error(f"have {images.shape[3]} channels, the network {channels}", fix, shape)
        pictures = (Image.fromarray(one.squeeze(2) if one.shape[2] == 1 else one) for one in images.cpu().numpy())
        return torch.stack([torch.from_numpy(self._of_one(picture)) for picture in pictures])

    def _of_one(self, image: One) -> np.ndarray:
        height, width, channels = self.image_shape
        if channels not in (1, 3):
            raise _error(f"the network sees {channels} channels", f"give arrays (N, {height}, {width}, {channels})")
        if isinstance(image, str | os.PathLike):
            with bombs_are_errors():
                return decode(os.fspath(image), channels, (height, width), self.center).copy()
        if not isinstance(image, Image.Image):
            raise _error("are neither arrays nor images", FORM, type(image).__name__)
        if image.mode not in MODES:
            raise _error("must have 8 bits a channel", "scale the values to 0..255", f"mode {image.mode}")
        return fitted(image, channels, (height, width), self.center).copy()  # torch wants memory that can be written to


def _error(reason: str, fix: str, value: object = None) -> UserError:
    reason = reason if value is None else f"{reason}, got {value}"
    return UserError("images", reason, fix, code=Exit.DATA)
