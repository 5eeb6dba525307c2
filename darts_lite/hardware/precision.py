"""How precisely a run computes: float32, or bfloat16 between the layers of a network."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def resolve_precision(name: str, device: torch.device) -> str:
    """`auto` is bf16 on a GPU that computes in it, else fp32."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def computing(device: torch.device, precision: str) -> AbstractContextManager:
    """Inside, forward passes run in `precision`; weights, statistics, alphas and losses stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def call(
    network: nn.Module,
    precision: str,
    names: Sequence[str],
    weights: Sequence[Tensor],
    *arguments: Any,
    **keywords: Any,
) -> Any:
    """What `network(*arguments, **keywords)` returns with these weights, inside of `computing`.

    The filters are brought to bf16 all together, in a few kernels; autocast would take one for each, and one for the gradient of each.
    The numbers are the same.
    """
    named = dict(zip(names, weights, strict=True))
    if precision == "bf16":
        filters = [name for name, weight in named.items() if weight.dim() > 1]
        named |= zip(filters, _Lowered.apply(*map(named.get, filters)), strict=True)
    return functional_call(network, named, arguments, keywords)


def lowered(network: nn.Module, precision: str) -> Callable[..., Any]:
    """`network` with the weights that it has now, to be called several times inside of `computing`: filters become bf16 once.

    Autocast would lower each filter again at every call. The numbers are the same. There are no gradients.
    """
    if precision != "bf16":
        return network
    filters = {name: weight.detach() for name, weight in network.named_parameters() if weight.dim() > 1}
    low = dict(zip(filters, _copied(list(filters.values()), torch.bfloat16), strict=True))
    return lambda *arguments, **keywords: functional_call(network, low, arguments, keywords)


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, no TF32: finite differences of size eps = 0.01 / ||v|| drown in its 10 bits.

    `allow_tf32` is an error to read once anybody has set `fp32_precision`, on a CPU, too (torch 2.9 to 2.14). It is not read here.
    """
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]  # no stub
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = "none"  # as the level above it says, which may be changed later
            if setting.fp32_precision != value:
                setting.fp32_precision = value


class _Lowered(torch.autograd.Function):
    """float32 tensors in bfloat16, and their gradients in float32. Twice differentiable."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _copied(tensors, torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [gradient for gradient in gradients if gradient is not None]
        twice = torch.is_grad_enabled()  # what is returned here will be differentiated in its turn
        full = iter([gradient.float() for gradient in given] if twice else _copied(given, torch.float32))
        return tuple(None if gradient is None else next(full) for gradient in gradients)


def _copied(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(copies, list(tensors))
    return tuple(copies)
