"""Jitter of colours, image by image, beside torchvision's functions."""

import numpy as np
import pytest
import tiny
import torch
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as reference

from darts_lite.data.augmentation import Augmentation
from darts_lite.data.jitter import jitter, random_jitter
from darts_lite.errors import Exit, UserError

ADJUST = reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation


def batch(channels, count=64, seed=0):
    images = torch.rand(count, channels, 9, 7, generator=torch.Generator().manual_seed(seed))
    images[0] = 0.5  # without a colour
    images[1] = images[1].round()  # where two channels are the largest
    return images


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_that_of_torchvision(channels):
    images = batch(channels)
    factors, order, turns = draws = random_jitter(len(images), 0.8, torch.Generator().manual_seed(1))
    for number, (got, image) in enumerate(zip(jitter(images, *draws), images, strict=True)):
        for kind in order[:, number].tolist():
            image = ADJUST[kind](image, float(factors[kind, number]))
        expected = reference.adjust_hue(image, float(turns[number]))
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-5)
    assert {tuple(column) for column in order.T.tolist()} == {
        (0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)
    }  # fmt: skip


def test_draws_have_the_range_of_torchvision():
    factors, order, turns = random_jitter(20_000, 0.4, torch.Generator().manual_seed(0))
    published = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)  # DARTS on ImageNet
    for drawn, bounds in zip((*factors, turns), (*[published.brightness] * 3, published.hue), strict=True):
        low, high = bounds
        assert low <= drawn.min() < low + 1e-3 and high - 1e-3 < drawn.max() <= high
        assert abs(drawn.mean() - (low + high) / 2) < 0.01
    for place in order:
        assert (torch.bincount(place) - 20_000 / 3).abs().max() < 5 * (20_000 * 2 / 9) ** 0.5  # 5 standard deviations


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_jittered_between_flip_and_normalization(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 5, channels), dtype=np.uint8)
    augmentation = Augmentation(0, flip=True, color_jitter=0.4)
    part = tiny.resident(pixels, np.arange(8), "cpu", [0.4] * channels, [0.2] * channels, augmentation)
    with tiny.NoSync():
        made, _ = tiny.batch(part, torch.arange(8), torch.Generator().manual_seed(2))
    draws = augmentation.draw(8, 6, 5, torch.Generator().manual_seed(2))
    images = part.images.float() / 255
    flipped = torch.where(draws.flip[:, None, None, None], images.flip(3), images)
    torch.testing.assert_close(made, (jitter(flipped, *draws.colors) - 0.4) / 0.2, rtol=1e-5, atol=1e-5)
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_images_of_two_channels_are_refused():
    pixels = np.zeros((4, 8, 8, 2), np.uint8)
    with pytest.raises(UserError, match=r"dataset.color_jitter: images of 2 channels") as caught:
        tiny.resident(pixels, np.arange(4), "cpu", [0.5] * 2, [0.5] * 2, Augmentation(color_jitter=0.1))
    assert caught.value.code == Exit.CONFIGURATION
    tiny.resident(pixels, np.arange(4), "cpu", [0.5] * 2, [0.5] * 2, Augmentation())
