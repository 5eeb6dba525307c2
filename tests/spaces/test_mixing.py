"""Weighted sums of images as one matrix product: against a concatenation and a linear layer, in float64 and in bf16."""

import pytest
import torch
from torch.nn import functional as F

from darts_lite.spaces.mixing import mixed

WIDTHS = (2, 4, 1)
SIZE = (3, 2)


def draw(batch=2, size=SIZE, seed=0):
    """Images in channels_last, and a weight for two targets of 3 channels."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randn(batch, *size, width, dtype=torch.float64, generator=generator) for width in WIDTHS]
    weight = torch.randn(6, sum(WIDTHS), dtype=torch.float64, generator=generator)
    return [image.permute(0, 3, 1, 2) for image in images], weight


def plain(images, weight):
    pixels = torch.cat([image.to(weight.dtype) for image in images], dim=1).permute(0, 2, 3, 1)
    return F.linear(pixels, weight).permute(0, 3, 1, 2)


@pytest.mark.parametrize("wanted", [(1, 1, 1, 1), (0, 1, 0, 1), (1, 0, 0, 0)])
def test_it_is_a_linear_layer_and_so_are_its_derivatives(wanted):
    images, weight = draw()
    inputs = [tensor.requires_grad_(bool(want)) for tensor, want in zip((weight, *images), wanted, strict=True)]
    torch.testing.assert_close(mixed(images, weight, 2), plain(images, weight))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda weight, *images: mixed(images, weight, 2).square(), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_image_has_a_dense_gradient(dtype):
    images, weight = draw()
    images = [image.to(dtype).requires_grad_() for image in images]
    outputs = mixed(images, weight.float(), 2)
    assert outputs.dtype == dtype and outputs.is_contiguous(memory_format=torch.channels_last)
    for image, gradient in zip(images, torch.autograd.grad(outputs.sum(), images), strict=True):
        assert gradient.dtype == dtype and gradient.shape == image.shape
        assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("precise", [0, 1, 2, 3])
def test_in_bf16_weights_of_the_first_images_have_sixteen_bits(precise, autocast):
    """What multiplies an image, and the gradient of it, averaged over so many pixels that their own rounding is no more to be seen."""
    images, weight = draw(64, (32, 32))
    weight = 0.125 * (1 + weight.sign() / 2**9 * 0.99)  # as far from the numbers of bf16 as can be
    images = [image.bfloat16().requires_grad_() for image in images]
    weight = weight.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs = mixed(images, weight, precise)
    upstream = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    (of_weight, *of_images) = torch.autograd.grad(outputs, [weight, *images], upstream)

    def effective(results, inputs):
        """The matrix by which least squares explain `results`, of pixels of `inputs`."""
        results, inputs = (t.detach().double().permute(0, 2, 3, 1).flatten(0, 2) for t in (results, inputs))
        return torch.linalg.lstsq(inputs, results).solution.t()

    exact = weight.detach().double()
    forward = (effective(outputs, torch.cat(images, dim=1)) / exact - 1).abs().amax(0).split(WIDTHS)
    for i, (image, error, part) in enumerate(zip(of_images, forward, exact.split(WIDTHS, dim=1), strict=True)):
        backward = (effective(image, upstream).t() / part - 1).abs().max()
        assert all((one < 2**-14) if i < precise else (one > 2**-10) for one in (error.max(), backward)), i
    leaf = exact.clone().requires_grad_()
    (expected,) = torch.autograd.grad(plain([image.detach() for image in images], leaf), leaf, upstream.double())
    assert of_weight.dtype == torch.float32
    torch.testing.assert_close(of_weight.double(), expected, rtol=2**-7, atol=2**-7 * float(expected.abs().max()))
