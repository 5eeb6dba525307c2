"""The program of a cell: which rounds its kernels do, and which terms each plane is the sum of. See `spaces.fused`."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from darts_lite.operations.candidates import Pool, SeparableConvolution, SkipConnect
from darts_lite.operations.kernels.triton.mix import mix
from darts_lite.operations.layers import BatchNorm
from darts_lite.spaces.rounds import Convolved, Halved, Pooled, Read, Round, Tables, Work, grouped
from darts_lite.spaces.stacks import Stack, Term

INPUTS = 2  # states that a cell begins with


class StageRounds:
    """The rounds of a stage. `last`: the node that has to be there before them."""

    def __init__(self, program: "Program", number: int, stage: Any):
        self.outside, self.last = stage.sources == (0, 1), max(stage.sources)
        self.hidden: Round | None = None
        self.hidden_planes = slice(0, 0)
        separable = [name for name, one in stage.operations.items() if isinstance(one, SeparableConvolution)]
        if separable:
            opening = _RoundBuilder(program, number, stage)
            for name in separable:
                opening.first_convolution(name)
            self.hidden = opening.round(hidden=True)
            self.hidden_planes = slice(program.planes, program.planes + self.hidden.made)
            program.planes += self.hidden.made
        closing = _RoundBuilder(program, number, stage, hidden=self.hidden_planes.start)
        # Planes without BatchNorm come last: pools of a final network.
        for name in sorted(stage.stacks, key=lambda name: isinstance(stage.operations[name], Pool)):
            closing.last_operation(name)
        closing.pools_together()
        self.final = closing.round(hidden=False)


class _RoundBuilder:
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
        """Stack of an operation's terms."""
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
        """Make both pools of the same planes at once."""
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
    """Plan of the kernels of a cell, made once: its stages, and the terms of each target."""

    def __init__(self, cell: Any):
        plan = cell.plan
        self.tables, self.columns, self.concat, self.nodes = Tables(), plan.columns, plan.concat, plan.nodes
        self.reduction, self.edges = cell.reduction, len(plan.edges)
        self.names = [name for name, _ in cell.stages.named_parameters()]
        # Inputs of another size than the nodes are planes of a tensor of their own.
        self.planes = self.nodes + (0 if self.reduction else INPUTS)
        self.rounds: list[Round] = []
        self._terms: list[tuple[Term, int]] = []  # and the plane that each brings something to
        self.stages = [StageRounds(self, number, stage) for number, stage in enumerate(cell.stages)]
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

    def terms_of_stacks(self) -> Iterator[tuple[Stack, slice]]:
        """Every stack, and its terms among all."""
        begin = 0
        for stack in self.stacks:
            yield stack, slice(begin, begin + len(stack.terms))
            begin += len(stack.terms)

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
