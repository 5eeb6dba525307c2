"""A module with drawn weights, computed on a device in a precision: its output, its gradients, its running statistics."""

import copy
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from darts_lite.hardware.precision import call, computing
from darts_lite.operations.layers import tracking_statistics
from darts_lite.proving.findings import ALLOWED, Tensors
from darts_lite.proving.numbers import laid_out, leaning

CPU = torch.device("cpu")
CONSTANT = ("drop-path",)  # inputs of which no run needs a gradient
SCALES = "the gradient of scales and biases"


class Named(nn.Module):
    """A module that is called with names for its arguments; what is not given is None."""

    def __init__(self, module: nn.Module, *names: str):
        super().__init__()
        self.module, self.names = module, names

    def forward(self, **inputs: Tensor) -> Tensor:
        """The module's output. Constants come in the type of the first argument."""
        kind = inputs[self.names[0]].dtype
        constants = {name: inputs[name].to(kind) for name in CONSTANT if name in inputs}
        return self.module(*map((inputs | constants).get, self.names))


@dataclass
class Subject:
    """A module with drawn weights, and what it is called with; float64, on the CPU."""

    case: str
    module: nn.Module
    inputs: Tensors  # by the name of the argument
    layout: str
    learns: bool  # weights have gradients, and running statistics move
    precisions: tuple[str, ...] = tuple(ALLOWED)
    moved: nn.Module | None = None
    drawn: list[Tensor] = field(default_factory=list)  # buffers

    def compute(self, device: torch.device, precision: str, upstream: list[Tensor]) -> Tensors:
        """Output, gradients and running statistics; `upstream`, the gradient of the output, is made where it is empty."""
        dtype = torch.float64 if precision == "fp64" else torch.float32
        images = torch.bfloat16 if precision == "bf16" else dtype

        def moved(tensor: Tensor) -> Tensor:
            tensor = tensor.detach().to(device, images if tensor.dim() == 4 else dtype, copy=True)
            return laid_out(tensor, self.layout) if tensor.dim() == 4 else tensor

        module = self._moved_module(device, dtype)
        inputs = {name: moved(tensor).requires_grad_() for name, tensor in self.inputs.items()}
        names = [name for name, _ in module.named_parameters()]
        weights = [weight.detach().requires_grad_(self.learns) for weight in module.parameters()]
        tracking = tracking_statistics(module) if self.learns else nullcontext()
        with computing(device, precision), tracking, torch.set_grad_enabled(module.training):
            output = call(module, precision, names, weights, **inputs) if names else module(**inputs)
        if not module.training:
            return {"the output": output}
        if not upstream:
            upstream.append(leaning(output))
        wanted = {f"the gradient of the {name}": tensor for name, tensor in inputs.items() if name not in CONSTANT}
        if self.learns:
            wanted |= {gradient_of(name, weight): weight for name, weight in zip(names, weights, strict=True)}
        gradients = torch.autograd.grad(output, list(wanted.values()), moved(upstream[0]), materialize_grads=True)
        found = dict(zip(wanted, gradients, strict=True))
        # As one tensor: a BatchNorm makes what is before it, such as the scales of another one, matter little.
        terms = [found.pop(name) for name in list(found) if name.startswith(SCALES)]
        found |= {SCALES: torch.cat(terms)} if terms else {}
        found |= {"the output": output.detach()}
        if self.learns:
            floating = ((name, value) for name, value in module.named_buffers() if value.is_floating_point())
            found |= {f"a running statistic ({name})": value for name, value in floating}
        return found

    def _moved_module(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The module on a device, made once; its running statistics as they were drawn."""
        module = self.module
        if dtype != torch.float64:
            if self.moved is None:
                self.moved = copy.deepcopy(module).to(device, dtype)
                self.moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            module = self.moved
        self.drawn = self.drawn or [buffer.clone() for buffer in module.buffers()]
        for buffer, drawn in zip(module.buffers(), self.drawn, strict=True):
            buffer.copy_(drawn)
        return module


def gradient_of(name: str, weight: Tensor) -> str:
    return f"the gradient of a weight ({name})" if weight.dim() > 1 else f"{SCALES} ({name})"
