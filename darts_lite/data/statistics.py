"""Mean and standard deviation of each channel: measured, exactly and in little memory, or as the settings say."""

import math

import numpy as np

from darts_lite.data.images import Files, Images
from darts_lite.errors import UserError
from darts_lite.settings.datasets import DatasetConfig

MEASURED = 2000  # decoded files whose pixels give mean and std, evenly spaced
_CHUNK = 1 << 22  # pixels counted at once: bounds the temporary int64 copy to 32 MB
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of each channel


def channel_statistics(images: Images) -> Statistics:
    """Mean and (population) standard deviation of each channel of uint8 (N, H, W, C), of pixels in [0, 1].

    The 256 values are counted and summed as integers: exact, so the same on every machine and thread count. A constant
    channel gets std 1: without its mean it is zero, and dividing by its true std would be 0/0. Of `Files` every k-th is measured, at most
    2,000, decoded or not: where the images wait must not change the result.
    """
    if isinstance(images, Files):
        images = np.asarray(images[:: -(-len(images) // MEASURED)])
    mean, std = [], []
    for channel in range(images.shape[3]):
        counts = np.zeros(256, np.int64)
        rows = max(1, _CHUNK // (images.shape[1] * images.shape[2]))
        for start in range(0, len(images), rows):
            counts += np.bincount(images[start : start + rows, ..., channel].ravel(), minlength=256)
        number = sum(counts.tolist())
        total = sum(value * count for value, count in enumerate(counts.tolist()))
        squares = sum(value * value * count for value, count in enumerate(counts.tolist()))
        mean.append(total / (255 * number))
        std.append(math.sqrt(number * squares - total * total) / (255 * number) or 1.0)
    return tuple(mean), tuple(std)


def given_statistics(config: DatasetConfig, channels: int) -> Statistics | None:
    """`dataset.mean` and `dataset.std`, or None when they are to be measured. Raises UserError (CONFIGURATION)."""
    if config.mean is None or config.std is None:
        return None
    for key, values in (("dataset.mean", config.mean), ("dataset.std", config.std)):
        if len(values) != channels:
            raise UserError(
                key, f"the images have {channels} channels", f"give {channels}, or null: measured", value=list(values)
            )
    for value in config.mean:
        if not 0 <= value <= 1:  # NaN fails too
            raise UserError("dataset.mean", "pixels lie in [0, 1]", "divide by 255", value=value)
    for value in config.std:
        if not 1e-6 <= value < math.inf:
            raise UserError(
                "dataset.std", "must be finite, at least 1e-6", "use 1.0 for a constant channel", value=value
            )
    return tuple(map(float, config.mean)), tuple(map(float, config.std))
