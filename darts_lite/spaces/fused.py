"""A cell on CUDA: the kernels of `operations.kernels` in an order that writes no operation's output twice.

All images between the inputs of a cell and its nodes are planes of one tensor (see `operations.kernels`): the nodes, and for each stage
what its depthwise convolutions and pools make. What a plane brings to a node is a *term*: a matrix product that holds pointwise
convolution, BatchNorm and mixing weight. A separable convolution has two rounds: the terms of its first one bring hidden planes, which its
second one reads.

    round 1 of a stage    depthwise planes of separable convolutions -> moments -> terms -> hidden planes
    round 2               their second depthwise planes, those of dilated ones, pools -> moments -> terms -> nodes

Memory sees every plane written once and read a few times, and the planes are all that is kept for the way back. One autograd Function
serves a cell. Where its gradient is to be differentiated in its turn, that of the cell's own stages stands in.
"""

from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from darts_lite.operations.candidates import DilatedConvolution, Pool, SeparableConvolution, SkipConnect
from darts_lite.operations.kernels.triton import depthwise
from darts_lite.operations.kernels.triton.matrices import Folded, Gradients, Scales, room
from darts_lite.operations.layers import BatchNorm
from darts_lite.spaces.program import INPUTS, Program
from darts_lite.spaces.rounds import Pooled, Work

KNOWN = (DilatedConvolution, Pool, SeparableConvolution, SkipConnect)


def serves(cell: Any, x: Tensor, mixing: Tensor | None) -> bool:
    """Whether the kernels can do what a cell does with inputs like x: published operations on ReLU, in training or without gradients."""
    known = all(isinstance(one, KNOWN) for stage in cell.stages for one in stage.operations.values())
    plain = all(isinstance(stage.activation, nn.ReLU) for stage in cell.stages)
    shared = mixing is None or mixing.dim() == 2
    fits = x.dtype in (torch.float32, torch.bfloat16) and x.numel() > 0
    kept = cell.form.statistics and cell.plan.partial == 1 and cell.plan.inputs == INPUTS
    return known and plain and shared and fits and kept and (cell.training or not torch.is_grad_enabled())


def trial(device: torch.device) -> None:
    """Compile and run one kernel. Fails where that cannot be done."""
    x = torch.ones(1, 1, 1, 1, 1, device=device)
    source = torch.zeros(1, dtype=torch.int32, device=device)
    depthwise.forward(x, torch.empty_like(x), x.view(1, 1, 1, 1), source, read=1, stride=1, dilation=1)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def combine(cell: Any, states: list[Tensor], mixing: Tensor | None, keep: Tensor | None) -> Tensor:
    """The output of a cell, (N, len(concat) * C, H, W), from its preprocessed inputs (N, C, H, W); see `Cell`."""
    if cell not in _programs:
        _programs[cell] = Program(cell)
    weights = [weight for _, weight in cell.stages.named_parameters()]
    return _Fused.apply(cell, *states, mixing, keep, *weights)


_programs: WeakKeyDictionary[Any, Program] = WeakKeyDictionary()


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cell: Any, *inputs: Any) -> Tensor:
        before, previous, mixing, keep, *weights = inputs
        program, training = _programs[cell], cell.training
        n, channels, h, w = before.shape
        size = (-(-h // 2), -(-w // 2)) if program.reduction else (h, w)
        planes = before.new_empty(program.planes, n, *size, channels)
        images = before.new_empty(INPUTS, n, h, w, channels) if program.reduction else planes
        for plane, state in zip(images, (before, previous), strict=False):
            plane.copy_(state.permute(0, 2, 3, 1))
        work = _work(program, weights, mixing, keep, images, planes)
        if not training:
            running = (stack.running(channels, planes.device) for stack in program.stacks)
            for place, found in zip((work.folded.mean, work.folded.variance), zip(*running, strict=True), strict=True):
                torch.cat([rows for one in found for rows in one], out=place)
        ready = INPUTS
        for stage in program.stages:
            ready = _finish(program, work, ready, stage.last)
            x = images if stage.outside else planes
            if stage.hidden is not None:
                stage.hidden.forward(work, x, training=training, eps=BatchNorm.eps)
                program.mix(work, stage.hidden_planes)
            stage.final.forward(work, x, training=training, eps=BatchNorm.eps)
        _finish(program, work, ready, program.nodes + 1)
        if training and any(norm.tracks for norm in program.norms):
            _track(program, work.folded, planes[0, ..., 0].numel())
        ctx.cell, ctx.taps = cell, list(work.taps)
        ctx.save_for_backward(*inputs, *_kept(work))
        return torch.cat([planes[program.plane(node)] for node in program.concat], dim=-1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        cell, program = ctx.cell, _programs[ctx.cell]
        names = program.names
        number = 4 + len(names)
        inputs, kept = ctx.saved_tensors[:number], ctx.saved_tensors[number:]
        mixing, keep, *weights = inputs[INPUTS:]
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # what is returned here will be differentiated in its turn
            return None, *_plain_gradients(cell, names, inputs, needed, gradients[0])
        work = _restored(program, weights, keep, kept, ctx.taps)
        planes = work.planes
        parts = gradients[0].permute(0, 2, 3, 1).unflatten(3, (len(program.concat), -1)).to(planes.dtype)
        if program.concat == tuple(range(INPUTS, program.nodes + INPUTS)):
            of_nodes = parts.permute(3, 0, 1, 2, 4).clone(memory_format=torch.contiguous_format)  # is added to
        else:
            of_nodes = planes.new_zeros(program.nodes, *planes.shape[1:])
            for part, node in enumerate(program.concat):
                of_nodes[node - INPUTS] = parts[..., part, :]
        of_inputs = torch.zeros_like(work.inputs[:INPUTS])
        into = room(Gradients, len(work.matrix), planes.shape[-1], planes.device)
        found: dict[str, Tensor] | None = {} if any(needed[4:]) else None
        for stage in reversed(program.stages):
            x, of_x = (work.inputs, of_inputs) if stage.outside else (planes, of_nodes)
            hidden = planes.new_empty(stage.hidden_planes.stop - stage.hidden_planes.start, *planes.shape[1:])
            stage.final.backward(work, of_nodes, x, of_x, hidden, into, found)
            if stage.hidden is not None:
                stage.hidden.backward(work, hidden, x, of_x, hidden, into, found)
        of_mixing = None
        if mixing is not None and needed[2]:
            of_mixing = program.of_mixing(into.scale.sum(1)).to(mixing.dtype)
        of_weights: list[Tensor | None] = [None] * len(names)
        if found is not None:
            for stack, terms in program.terms_of_stacks():
                found |= stack.gradients(work.weights, into[terms])
            made = [torch.empty_like(weight) for weight in weights]
            torch._foreach_copy_(made, [found[name] for name in names])
            of_weights = [*made]
        states = [state.permute(0, 3, 1, 2) if want else None for state, want in zip(of_inputs, needed, strict=False)]
        return None, *states, of_mixing, None, *of_weights


def _work(
    program: Program,
    weights: list[Tensor],
    mixing: Tensor | None,
    keep: Tensor | None,
    images: Tensor,
    planes: Tensor,
) -> Work:
    """Work of one pass before its first round."""
    channels, device = planes.shape[-1], planes.device
    named = dict(zip(program.names, weights, strict=True))
    unit = torch.eye(channels, device=device, dtype=weights[0].dtype if weights else None)
    matrix = torch.cat([part for stack in program.stacks for part in stack.matrices(named, unit)]).float()
    weight = shift = None
    if program.affine:
        both = zip(*(stack.affine(named, channels, device) for stack in program.stacks), strict=True)
        weight, shift = (torch.cat([rows for one in parts for rows in one]) for parts in both)
    return Work(
        tables=program.tables.on(device),
        weights=named,
        inputs=images,
        planes=planes,
        mean=torch.zeros(len(planes), channels, device=device),
        matrix=matrix,
        folded=room(Folded, len(matrix), channels, device),
        scales=Scales(None if mixing is None else program.factors(mixing), weight),
        shift=shift,
        keep=keep,
        taps={},
    )


def _kept(work: Work) -> list[Tensor | None]:
    """Tensors that the way back reads, in the order of `_restored`."""
    folded, scales = work.folded, work.scales
    tables = [work.mean, work.matrix, folded.combined, folded.spread, folded.inverse_std, folded.shift]
    return [work.inputs, work.planes, *tables, scales.factor, scales.weight, *work.taps.values()]


def _restored(program: Program, weights: list[Tensor], keep: Any, kept: Any, taps: list[Pooled]) -> Work:
    """Work made of the tensors that `_kept` listed."""
    inputs, planes, mean, matrix, combined, spread, inverse_std, shift, factor, weight, *where = kept
    folded = Folded(combined, spread, inverse_std, shift, shift, shift)  # the last two have been read
    return Work(
        tables=program.tables.on(planes.device),
        weights=dict(zip(program.names, weights, strict=True)),
        inputs=inputs,
        planes=planes,
        mean=mean,
        matrix=matrix,
        folded=folded,
        scales=Scales(factor, weight),
        shift=None,
        keep=keep,
        taps=dict(zip(taps, where, strict=True)),
    )


def _finish(program: Program, work: Work, ready: int, last: int) -> int:
    """Make the nodes from `ready` to `last`, all of whose terms are there; returns the next one."""
    for node in range(ready, last + 1):
        program.mix(work, slice(program.plane(node), program.plane(node) + 1))
    return max(ready, last + 1)


def _track(program: Program, folded: Folded, pixels: int) -> None:
    """Move the running statistics towards the statistics of this batch."""
    kept, found = [], []
    unbiased = folded.variance * (pixels / max(1, pixels - 1))
    for stack, terms in program.terms_of_stacks():
        if stack.norm is not None:
            kept += [stack.norm.running_mean, stack.norm.running_var]
            found += [stack.batch(folded.mean[terms]), stack.batch(unbiased[terms])]
    torch._foreach_lerp_(kept, found, BatchNorm.momentum)


class _Plain(nn.Module):
    """A cell after its preprocessing, by its own stages."""

    def __init__(self, cell: Any):
        super().__init__()
        self.stages, self._combine = cell.stages, cell.combine

    def forward(self, *arguments: Any) -> Tensor:
        return self._combine(*arguments)


def _plain_gradients(cell: Any, names: list[str], inputs: Any, needed: Any, gradient: Tensor) -> list[Tensor | None]:
    """Gradients through the cell's own stages, in torch's operators: differentiable."""
    before, previous, mixing, keep, *weights = inputs
    named = {f"stages.{name}": weight for name, weight in zip(names, weights, strict=True)}
    lowered = before.dtype == torch.bfloat16  # autocast is not there in a backward pass
    with torch.autocast(gradient.device.type, torch.bfloat16) if lowered else nullcontext():
        output = functional_call(_Plain(cell), named, ([before, previous], mixing, keep))
    wanted = [tensor for tensor, want in zip(inputs, needed, strict=True) if want]
    found = iter(torch.autograd.grad(output, wanted, gradient, create_graph=True, allow_unused=True))
    return [next(found) if want else None for want in needed]
