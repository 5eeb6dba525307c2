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
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from darts_lite.operations.candidates import DilatedConvolution, Pool, SeparableConvolution, SkipConnect
from darts_lite.operations.kernels import depthwise
from darts_lite.operations.kernels.mix import Folded, Gradients, Scales, mix, room
from darts_lite.operations.layers import BatchNorm
from darts_lite.spaces.rounds import Convolved, Halved, Pooled, Read, Round, Stack, Tables, Term, Work, grouped

KNOWN = (DilatedConvolution, Pool, SeparableConvolution, SkipConnect)
INPUTS = 2


def serves(cell: Any, x: Tensor, mixing: Tensor | None) -> bool:
    """Whether the kernels can do what a cell does with inputs like x: published operations on ReLU, in training or without gradients."""
    known = all(isinstance(one, KNOWN) for stage in cell.stages for one in stage.operations.values())
    plain = all(isinstance(stage.activation, nn.ReLU) for stage in cell.stages)
    shared = mixing is None or mixing.dim() == 2
    fits = x.dtype in (torch.float32, torch.bfloat16) and x.numel() > 0
    return known and plain and shared and fits and (cell.training or not torch.is_grad_enabled())


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


class Stage:
    """The rounds of a stage. `last`: the node that has to be there before them."""

    def __init__(self, program: "Program", number: int, stage: Any):
        self.outside, self.last = stage.sources == (0, 1), max(stage.sources)
        self.hidden: Round | None = None
        self.hidden_planes = slice(0, 0)
        separable = [name for name, one in stage.operations.items() if isinstance(one, SeparableConvolution)]
        if separable:
            opening = _Building(program, number, stage)
            for name in separable:
                opening.first_convolution(name)
            self.hidden = opening.round(hidden=True)
            self.hidden_planes = slice(program.planes, program.planes + self.hidden.made)
            program.planes += self.hidden.made
        closing = _Building(program, number, stage, hidden=self.hidden_planes.start)
        # Planes without BatchNorm come last: pools of a final network.
        for name in sorted(stage.stacks, key=lambda name: isinstance(stage.operations[name], Pool)):
            closing.last_operation(name)
        closing.pools_together()
        self.final = closing.round(hidden=False)


class _Building:
    """A round of a stage while its planes are numbered, from the program's next one on."""

    def __init__(self, program: "Program", number: int, stage: Any, *, hidden: int = 0):
        self.program, self.stage, self.path = program, stage, f"{number}.operations"
        self.first = self.place = program.planes
        self.normed = 0
        self.hidden = self.first_hidden = hidden  # the next hidden plane that is to be read
        self.makers: list[Any] = []
        self.stacks: list[Stack] = []
        self.passed: dict[Read, None] = {}
        self.pools: dict[tuple[Read, ...], dict[str, int]] = {}  # what is read -> kind -> first plane
        self.outside = stage.sources == (0, 1)

    def first_convolution(self, name: str) -> None:
        """The first half of a separable convolution: each of its copies has a hidden plane for a target."""
        layer, edges = self.stage.operations[name].first, self.stage.stacks[name]
        place = self._convolved(f"{self.path}.{name}.first", layer, [self._read(edge) for edge in edges], hidden=False)
        targets = range(place - self.first, place - self.first + len(edges))
        terms = [Term(place + copy, target, edge=-1, factor=-1) for copy, target in enumerate(targets)]
        self.stacks.append(
            Stack("convolution", f"{self.path}.{name}.first", layer.norm, terms, list(range(len(edges))))
        )

    def last_operation(self, name: str) -> None:
        """What an operation brings to nodes."""
        operation = self.stage.operations[name]
        if isinstance(operation, Pool):
            self._pool(name, operation)
        elif isinstance(operation, SkipConnect):
            (self._halves if operation.reduce is not None else self._identity)(name, operation)
        elif isinstance(operation, SeparableConvolution):
            edges = self.stage.stacks[name]
            read = [(plane, plane - self.first_hidden) for plane in range(self.hidden, self.hidden + len(edges))]
            self.hidden += len(edges)
            self._convolution(name, "second", operation.second, read, hidden=True)
        else:
            read = [self._read(edge) for edge in self.stage.stacks[name]]
            self._convolution(name, "only", operation.only, read, hidden=False)

    def pools_together(self) -> None:
        """Both pools of the same planes are made at once."""
        for read, firsts in self.pools.items():
            stride = next(one.stride for one in self.stage.operations.values() if isinstance(one, Pool))
            self.makers.append(Pooled(self.program.tables, firsts.get("max"), firsts.get("avg"), read, stride))

    def round(self, *, hidden: bool) -> Round:
        """The round; `hidden`: what it brings goes to planes that follow its own."""
        numbers = {"first": self.first, "normed": self.normed, "made": self.place - self.first}
        self.program.planes = self.place
        targets = self.place if hidden else None
        return self.program.add(self.makers, self.stacks, list(self.passed), targets=targets, **numbers)

    def _read(self, edge: int) -> Read:
        """The plane that an edge reads, and the number of its gradient."""
        node = self.stage.edges[edge][0]
        return (node, node) if self.outside else (self.program.plane(node), node - INPUTS)

    def _term(self, edge: int, name: str, plane: int, *, dropped: bool = True) -> Term:
        factor = edge * len(self.program.columns) + self.program.columns.index(name)
        return Term(plane, self.stage.edges[edge][1] - INPUTS, edge if dropped else -1, factor)

    def _take(self, number: int, norm: Any) -> int:
        """The first of so many planes more."""
        self.place += number
        self.normed += number if norm is not None else 0
        return self.place - number

    def _convolved(self, path: str, layer: Any, read: list[Read], *, hidden: bool) -> int:
        place = self._take(len(read), layer.norm)
        self.makers.append(Convolved(self.program.tables, path, layer, place, read, hidden=hidden))
        return place

    def _convolution(self, name: str, part: str, layer: Any, read: list[Read], *, hidden: bool) -> None:
        path, edges = f"{self.path}.{name}.{part}", self.stage.stacks[name]
        place = self._convolved(path, layer, read, hidden=hidden)
        terms = [self._term(edge, name, place + copy) for copy, edge in enumerate(edges)]
        self.stacks.append(Stack("convolution", path, layer.norm, terms, list(range(len(edges)))))

    def _identity(self, name: str, operation: SkipConnect) -> None:
        edges = self.stage.stacks[name]
        self.passed |= dict.fromkeys(self._read(edge) for edge in edges)
        terms = [self._term(edge, name, self._read(edge)[0], dropped=False) for edge in edges]
        self.stacks.append(Stack("identity", f"{self.path}.{name}", None, terms, []))

    def _halves(self, name: str, operation: Any) -> None:
        edges, norm = self.stage.stacks[name], operation.reduce.norm
        planes = {read: self._take(2, norm) for read in dict.fromkeys(self._read(edge) for edge in edges)}
        self.makers += [Halved(place, read) for read, place in planes.items()]
        terms = [self._term(edge, name, planes[self._read(edge)] + half) for half in (0, 1) for edge in edges]
        self.stacks.append(Stack("halves", f"{self.path}.{name}.reduce", norm, terms, list(range(len(edges))) * 2))

    def _pool(self, name: str, operation: Pool) -> None:
        edges = self.stage.stacks[name]
        read = tuple(dict.fromkeys(self._read(edge) for edge in edges))
        place = self._take(len(read), operation.norm)
        self.pools.setdefault(read, {})[operation.kind] = place
        copies = [read.index(self._read(edge)) for edge in edges]
        terms = [self._term(edge, name, place + copy) for copy, edge in zip(copies, edges, strict=True)]
        self.stacks.append(Stack("pool", f"{self.path}.{name}", operation.norm, terms, copies))


class Program:
    """What the kernels have to do for a cell, made once: its stages, and which terms each plane is the sum of."""

    def __init__(self, cell: Any):
        plan = cell.plan
        self.tables, self.columns, self.concat, self.nodes = Tables(), plan.columns, plan.concat, plan.nodes
        self.reduction, self.edges = cell.reduction, len(plan.edges)
        # Inputs of another size than the nodes are planes of a tensor of their own.
        self.planes = self.nodes + (0 if self.reduction else INPUTS)
        self.rounds: list[Round] = []
        self._terms: list[tuple[Term, int]] = []  # and the plane that each brings something to
        self.stages = [Stage(self, number, stage) for number, stage in enumerate(cell.stages)]
        self.stacks = [stack for one in self.rounds for stack in one.stacks]
        norms = [module for module in cell.stages.modules() if isinstance(module, BatchNorm)]
        self.norms, self.affine = norms, any(norm.weight is not None for norm in norms)
        terms = [term for term, _ in self._terms]
        starts, members = grouped([plane for _, plane in self._terms], range(self.planes))
        lists = [term.plane for term in terms], [term.edge for term in terms], starts, members
        self._mixing = tuple(self.tables.add(numbers) for numbers in lists)
        self._reads = [len({terms[i].plane for i in members[a:b]}) for a, b in pairwise(starts)]
        places = self.edges * len(self.columns)
        self._factors = self.tables.add([term.factor if term.factor >= 0 else places for term in terms])
        self._collects: dict[torch.device, Tensor] = {}
        self._numbers = [term.factor for term in terms]

    def plane(self, node: int) -> int:
        """The number of a node's plane, or of an input's where they are among the planes."""
        return node - INPUTS if self.reduction else node

    def add(
        self, makers: Any, stacks: list[Stack], passed: list[Read], *, targets: int | None, **numbers: int
    ) -> Round:
        """A round more; `targets`: the first plane that its terms bring something to, None: nodes."""
        begin = len(self._terms)
        for stack in stacks:
            for term in stack.terms:
                plane = self.plane(term.target + INPUTS) if targets is None else targets + term.target
                self._terms.append((term, plane))
        self.rounds.append(Round(self.tables, makers, stacks, passed, begin=begin, **numbers))
        return self.rounds[-1]

    def factors(self, mixing: Tensor) -> Tensor:
        """(terms,) of a mixing (E, O); 1 for terms that bring hidden planes."""
        flat = mixing.detach().float().flatten()
        return torch.cat((flat, flat.new_ones(1))).index_select(0, self.tables.on(mixing.device)[self._factors])

    def of_mixing(self, of_factors: Tensor) -> Tensor:
        """(E, O), of the gradients of the factors (terms,): the sum over the terms of each."""
        device = of_factors.device
        if device not in self._collects:
            places = torch.arange(self.edges * len(self.columns))[:, None]
            self._collects[device] = (places == torch.tensor(self._numbers)).float().to(device)
        return (self._collects[device] @ of_factors).view(self.edges, -1)

    def mix(self, work: Work, planes: slice) -> None:
        """Make planes that are sums of terms."""
        of_terms, edges, starts, members = work.table(*self._mixing)
        tables = of_terms, edges, starts[planes.start : planes.stop + 1], members
        read = sum(self._reads[planes])
        mix(work.planes, work.planes[planes], work.mean, work.folded, work.keep, tables, read=read)


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
        work = _work(
            program, [name for name, _ in cell.stages.named_parameters()], weights, mixing, keep, images, planes
        )
        if not training:
            running = zip(*(stack.running(channels, planes.device) for stack in program.stacks), strict=True)
            for place, found in zip((work.folded.mean, work.folded.variance), running, strict=True):
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
        names = [name for name, _ in cell.stages.named_parameters()]
        number = 4 + len(names)
        inputs, kept = ctx.saved_tensors[:number], ctx.saved_tensors[number:]
        mixing, keep, *weights = inputs[INPUTS:]
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # what is returned here will be differentiated in its turn
            return None, *_plain_gradients(cell, names, inputs, needed, gradients[0])
        work = _restored(program, names, weights, keep, kept, ctx.taps)
        planes = work.planes
        parts = gradients[0].permute(0, 2, 3, 1).unflatten(3, (len(program.concat), -1)).to(planes.dtype)
        if program.concat == tuple(range(INPUTS, program.nodes + INPUTS)):
            of_nodes = parts.permute(3, 0, 1, 2, 4).contiguous()
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
            for one in program.rounds:
                begin = one.terms.start
                for stack in one.stacks:
                    found |= stack.gradients(work.weights, into[begin : begin + len(stack.terms)])
                    begin += len(stack.terms)
            of_weights = [found[name].to(weight.dtype) for name, weight in zip(names, weights, strict=True)]
        states = [state.permute(0, 3, 1, 2) if want else None for state, want in zip(of_inputs, needed, strict=False)]
        return None, *states, of_mixing, None, *of_weights


def _work(
    program: Program,
    names: list[str],
    weights: list[Tensor],
    mixing: Tensor | None,
    keep: Tensor | None,
    images: Tensor,
    planes: Tensor,
) -> Work:
    """What a pass forward begins with."""
    channels, device = planes.shape[-1], planes.device
    named = dict(zip(names, weights, strict=True))
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
    """What the way back reads, in the order that `_restored` knows."""
    folded, scales = work.folded, work.scales
    tables = [work.mean, work.matrix, folded.combined, folded.spread, folded.inverse_std, folded.shift]
    return [work.inputs, work.planes, *tables, scales.factor, scales.weight, *work.taps.values()]


def _restored(
    program: Program, names: list[str], weights: list[Tensor], keep: Any, kept: Any, taps: list[Pooled]
) -> Work:
    """What `_kept` listed."""
    inputs, planes, mean, matrix, combined, spread, inverse_std, shift, factor, weight, *where = kept
    folded = Folded(combined, spread, inverse_std, shift, shift, shift)  # the last two have been read
    return Work(
        tables=program.tables.on(planes.device),
        weights=dict(zip(names, weights, strict=True)),
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
    """Move the running statistics by those of this batch."""
    kept, found, begin = [], [], 0
    unbiased = folded.variance * (pixels / max(1, pixels - 1))
    for stack in program.stacks:
        terms = slice(begin, begin + len(stack.terms))
        if stack.norm is not None:
            kept += [stack.norm.running_mean, stack.norm.running_var]
            found += [stack.batch(folded.mean[terms]), stack.batch(unbiased[terms])]
        begin = terms.stop
    torch._foreach_lerp_(kept, found, BatchNorm.momentum)


class _Plain(nn.Module):
    """A cell after its preprocessing, by its own stages."""

    def __init__(self, cell: Any):
        super().__init__()
        self.stages, self._combine = cell.stages, cell.combine

    def forward(self, *arguments: Any) -> Tensor:
        return self._combine(*arguments)


def _plain_gradients(cell: Any, names: list[str], inputs: Any, needed: Any, gradient: Tensor) -> list[Tensor | None]:
    """The same gradients through the cell's own stages, differentiable."""
    before, previous, mixing, keep, *weights = inputs
    named = {f"stages.{name}": weight for name, weight in zip(names, weights, strict=True)}
    lowered = before.dtype == torch.bfloat16  # autocast is not there in a backward pass
    with torch.autocast(gradient.device.type, torch.bfloat16) if lowered else nullcontext():
        output = functional_call(_Plain(cell), named, ([before, previous], mixing, keep))
    wanted = [tensor for tensor, want in zip(inputs, needed, strict=True) if want]
    found = iter(torch.autograd.grad(output, wanted, gradient, create_graph=True, allow_unused=True))
    return [next(found) if want else None for want in needed]
