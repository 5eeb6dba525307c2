"""BatchNorm folded into the pointwise convolution before it: all that the two write is the normalized output.

Of y = W x, over all P pixels, BatchNorm needs only the mean m (C) and the covariance S (C x C) of x:

    mean(y) = W m     var(y) = diag(W S W^T)     BatchNorm(W x) = A x + bias - A m     A = diag(scale / sqrt(var + eps)) W

Backward, with G = sum g (x - m)^T, u = diag(G W^T) and r = 1 / sqrt(var + eps), of the gradient g of the output:

    scale   r u                 W   diag(scale r) (G - diag(r^2 u) W S)
    bias    sum g               x   A^T g - K (x - m) - W^T (scale r sum g) / P,     K = W^T diag(scale r^3 u / P) W

So matrix products read x and g, and one large tensor is kept, where BatchNorm would pass over y five times more.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_lite.operations.kernels.pointwise import Statistics, spares_memory
from darts_lite.operations.kernels.thresholds import VECTOR, WIDEST


def folds(x: Tensor, weight: Tensor, groups: int, final: bool) -> bool:
    """Whether `folded` pays for images like x: on a CPU, where they are large, narrow, and of one copy.

    Torch's BatchNorm takes up to 10 times as long where the channels make no whole vectors. Forward and backward, the two layers are then
    1.1 to 3.8 times as fast folded (4 to 40 channels). Otherwise (16, 32), while the weights learn, folding takes as long as the two layers
    of a final network, which keep both of their large tensors; with frozen weights, or more channels, it takes longer.
    """
    full = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    narrow = groups == 1 and weight.shape[1] <= WIDEST.value
    pays = weight.shape[1] % VECTOR.value != 0 or (final and weight.requires_grad)
    return full and narrow and pays and spares_memory(x)


def folded(
    x: Tensor,
    weight: Tensor,
    statistics: Statistics,
    scale: Tensor | None,
    bias: Tensor | None,
    shift: Tensor,
    *,
    momentum: float,
    eps: float,
) -> Tensor:
    """BatchNorm with batch statistics of the 1x1 convolution of x + shift; (N, C, H, W) -> (N, C', H, W). Twice differentiable.

    `weight` (C', C, 1, 1); `scale` and `bias` (C') of the normalized output, None for 1 and 0. `shift` (C) changes only the running
    mean: without it x has a mean near zero, which keeps the covariance exact in float32 where the mean is many times the deviation.
    """
    return _Folded.apply(x, weight, scale, bias, *statistics, shift, momentum, eps)


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Any, bias: Any, *rest: Any) -> Tensor:
        running_mean, running_variance, shift, momentum, eps = rest
        matrix, number = weight.flatten(1), x.numel() // x.shape[1]
        mean = _sum(x) / number
        covariance = torch.addmm(_products(x, x) / number, mean[:, None], mean[None], alpha=-1)
        spread = matrix @ covariance
        variance = (spread * matrix).sum(1).clamp_min_(0)
        if running_mean is not None:
            # `data`: other copies of the stack may have saved the same buffer, for a backward pass that does not read it.
            running_mean.data.lerp_(matrix @ (mean + shift), momentum)
            running_variance.data.lerp_(variance * (number / (number - 1)), momentum)
        inverse_std = (variance + eps).rsqrt_()
        gain = inverse_std if scale is None else inverse_std * scale
        combined = gain[:, None] * matrix
        constant = (combined @ mean).neg_()
        ctx.eps = eps
        ctx.save_for_backward(x, weight, scale, bias, mean, spread, inverse_std, gain, combined)
        return _convolve(x, combined, constant if bias is None else constant + bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight, scale, bias, *moments) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():  # what is returned here will be differentiated in its turn
            return *_plain_gradients(gradient, (x, weight, scale, bias), ctx.needs_input_grad, ctx.eps), *[None] * 5
        mean, spread, inverse_std, gain, combined = moments
        matrix, number = weight.flatten(1), x.numel() // x.shape[1]
        total = _sum(gradient)
        centred = torch.addmm(_products(gradient, x), total[:, None], mean[None], alpha=-1)
        along = (centred * matrix).sum(1)
        slope = along * inverse_std.square()
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            curvature = matrix.t() @ ((gain * slope / number)[:, None] * matrix)
            constant = torch.addmv(curvature @ mean, matrix.t(), gain * total / number, alpha=-1)
            of_x = _convolve(gradient, combined.t(), constant)
            _rows(of_x).baddbmm_(_rows(x), curvature.expand(len(x), -1, -1), alpha=-1)
        if ctx.needs_input_grad[1]:
            of_weight = (gain[:, None] * torch.addcmul(centred, slope[:, None], spread, value=-1)).view_as(weight)
        of_scale = along * inverse_std if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_scale, total if ctx.needs_input_grad[3] else None, *[None] * 5


def _plain_gradients(gradient: Tensor, inputs: Any, wanted: Any, eps: float) -> list[Tensor | None]:
    """Gradients through the convolution and the BatchNorm themselves, differentiable."""
    x, weight, scale, bias = inputs
    y = F.batch_norm(F.conv2d(x, weight), None, None, scale, bias, True, 0.0, eps)
    needed = [tensor for tensor, want in zip(inputs, wanted, strict=False) if want]
    found = iter(torch.autograd.grad(y, needed, gradient, create_graph=True))
    return [next(found) if want else None for want in wanted[: len(inputs)]]


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C). A view of channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _sum(x: Tensor) -> Tensor:
    """(C): over all pixels; as a product with ones in a third of the time of `sum`."""
    pixels = _rows(x).flatten(0, 1)
    return torch.mv(pixels.t(), pixels.new_ones(len(pixels)))


def _products(a: Tensor, b: Tensor) -> Tensor:
    """(C', C): sums of a b^T over all pixels; image by image, so that the cores share the work."""
    return torch.bmm(_rows(a).transpose(1, 2), _rows(b)).sum(0)


def _convolve(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """matrix x + bias; oneDNN adds the bias on the way, where a matrix product would write it first."""
    return F.conv2d(x, matrix[:, :, None, None], bias)
