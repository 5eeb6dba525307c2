"""Image files: what is known before a file is decoded, and its pixels as uint8 (H, W, C). Files are untrusted.

`Files` is a list of them that looks like a uint8 array (N, H, W, C), decoded when it is asked for its pixels.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from darts_lite.data.files import data_error, why
from darts_lite.errors import UserError, raise_all
from darts_lite.hardware.machine import cores

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # the only decoders of Pillow that are tried
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")  # 8 bits or fewer a channel
ORIENTATION = 0x0112  # EXIF
EXACT = 4 << 30  # bytes of files that are hashed whole: some seconds; of larger sets beginnings and ends
EDGE = 1 << 12  # bytes of a beginning and of an end
LISTED = 5  # problems that are named one by one
THREADS = min(8, cores())  # that decode at once; Pillow lets them run side by side
_BLOCK = 256  # files between two looks at the keyboard

Result = TypeVar("Result")


@dataclass(frozen=True)
class Files:
    """Images below `root` that are decoded when they are asked for, or lie in `pixels`."""

    root: str
    names: np.ndarray  # bytes (N,): paths below root. Fixed width, so that forked workers share the memory
    image_shape: tuple[int, int, int]  # of each image once it is decoded: height, width, channels
    fits: bool  # whether every image has that size already; else it is cropped and resized
    center: float = 1.0  # of the shorter side: what is kept of it
    pixels: np.ndarray | None = None

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.names), *self.image_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels, decoded or not."""
        return int(np.prod(self.shape, dtype=object))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, which: np.ndarray | slice) -> "Files":
        pixels = None if self.pixels is None else self.pixels[which]
        return replace(self, names=self.names[which], pixels=pixels)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """The pixels (N, H, W, C). Raises UserError (DATA) that names the files which cannot be decoded."""
        pixels = np.empty(self.shape, np.uint8) if self.pixels is None else self.pixels
        if self.pixels is None:
            height, width, channels = self.image_shape
            size = None if self.fits and self.center == 1 else (height, width)

            def place(number: int) -> None:
                image = decode(self.path(number), channels, size, self.center)
                if image.shape != self.image_shape:
                    reason = f"is {image.shape[1]}x{image.shape[0]} now, was {width}x{height}"
                    raise data_error(self.path(number), reason, "do not change the images while they are used")
                pixels[number] = image

            check_each(range(len(self)), place, self.root)
        return pixels if dtype is None else pixels.astype(dtype, copy=False)

    def path(self, number: int) -> str:
        return os.path.join(self.root, os.fsdecode(bytes(self.names[number])))

    def identify(self, digest: Any) -> None:
        """Feed a hash with what the images are: names below root, sizes and contents, and how they are brought to one size.

        Not with pixels, so that a start need not decode, nor with times, which a copy changes. Of more than 4 GiB only the first and last
        4 KiB of each file are read: an image that was changed in between, without changing its length, is not noticed there.
        """
        sizes = [os.stat(self.path(number)).st_size for number in range(len(self))]
        whole = sum(sizes) <= EXACT
        center = f" {self.center}" if self.center < 1 else ""
        digest.update(f"files {self.shape} {self.fits} {whole}{center}\n".encode())
        for number, (name, size) in enumerate(zip(self.names, sizes, strict=True)):
            content = hashlib.sha256()
            with open(self.path(number), "rb") as file:
                content.update(file.read() if whole else file.read(EDGE))
                if not whole and size > EDGE:
                    file.seek(max(EDGE, size - EDGE))
                    content.update(file.read(EDGE))
            digest.update(bytes(name) + b"\0" + str(size).encode() + content.digest())


Images = np.ndarray | Files  # uint8 (N, H, W, C)


def decode(path: str, channels: int, size: tuple[int, int] | None, center: float = 1.0) -> np.ndarray:
    """uint8 (H, W, channels) of one file, see `fitted`. Raises UserError (DATA)."""
    with _opened(path) as image:
        return fitted(image, channels, size, center)


def fitted(image: Image.Image, channels: int, size: tuple[int, int] | None, center: float = 1.0) -> np.ndarray:
    """uint8 (H, W, channels), upright; `size` (height, width): the centre of that shape, resized to it.

    The centre is as large as possible, times `center`. Transparency lies on white, as a browser shows it. `image` has one of `MODES`.
    """
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if channels == 3 else "L")
    if size is not None and ((image.height, image.width) != size or center < 1):
        # Crop first: the same picture, but a 1 x 50,000 image is not blown up before it is cropped.
        height, width = size
        scale = center * min(image.height / height, image.width / width)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = left, top, left + scale * width, top + scale * height
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def inspect(path: str, channels: int) -> tuple[int, int, int]:
    """(height, width, channels) once upright, from the header of a file. Raises UserError (DATA) for what is no 8-bit image."""
    with _opened(path) as image:
        # Only then does it matter; a PNG's orientation may lie behind its pixels.
        turned = image.width != image.height and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        return (image.width, image.height, channels) if turned else (image.height, image.width, channels)


def check_each(items: Sequence[Any], function: Callable[[Any], Result], where: str) -> list[Result]:
    """`function` of every item, in threads. Raises one UserError with the first problems and how many more there are."""

    def attempt(item: Any) -> Any:
        try:
            return function(item)
        except UserError as problem:
            return problem

    results: list[Any] = []
    with bombs_are_errors(), ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(items), _BLOCK):
            results += pool.map(attempt, items[start : start + _BLOCK])
    problems = sorted((result for result in results if isinstance(result, UserError)), key=lambda one: str(one.key))
    if len(problems) > LISTED:
        reason = f"{len(problems)} of {len(items)} images cannot be used, the first {LISTED} are named above"
        problems[LISTED:] = [data_error(where, reason, "repair or remove them")]
    raise_all(problems)
    return results


@contextmanager
def bombs_are_errors() -> Iterator[None]:
    """Inside, Pillow's warning of a decompression bomb is raised, in this and all threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """The file, open and of a kind that can be used; whatever Pillow raises on hostile bytes becomes one UserError."""
    try:
        if not os.path.lexists(path):
            raise data_error(
                path, "there is no such file", "check the path; a relative one starts in the working directory"
            )
        if not os.path.isfile(path):
            raise data_error(path, "is not a file" if os.path.exists(path) else "the link leads nowhere", "remove it")
        with Image.open(path, formats=FORMATS) as image:
            if image.mode not in MODES:
                # Their range is anybody's guess: 12 of 16 bits, or numbers from 0 to 1. Pillow would clip them at 255.
                reason = f"is not an 8-bit image (Pillow's mode {image.mode})"
                raise data_error(path, reason, "scale its values to 0..255 and save it with 8 bits a channel")
            yield image
    except UserError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        reason = f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels: a decompression bomb?"
        raise data_error(path, reason, "make it smaller, or remove it") from error
    except Exception as error:
        unknown = "cannot identify" in why(error)
        reason = "is no image that can be read" if unknown else f"cannot be read ({why(error)})"
        raise data_error(path, reason, "repair or remove it") from error
