"""The operations and cells that are proved: in which shapes and layouts, with which thresholds."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn

from darts_lite import spaces
from darts_lite.operations import NOISE, OPERATIONS
from darts_lite.operations.candidates import Activation
from darts_lite.operations.kernels.thresholds import CHANNELS, TABLE, Threshold
from darts_lite.operations.layers import FORMS
from darts_lite.proving.findings import ALLOWED
from darts_lite.proving.numbers import early, exact, fill, image
from darts_lite.proving.subject import Named, Subject
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces.cell import Cell
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.plan import CellPlan
from darts_lite.spaces.table import Mixing

WIDTHS = (12, 36, 70)  # channels beside those of the thresholds: whole vectors and blocks of no size
# Batch, height, width; the last one is smaller than a 5 wide kernel.
IMAGES = ((4, 9, 7), (4, 8, 8), (6, 5, 6), (12, 4, 3))
LEARNING = ("weights", "alphas", "final")  # roles, see `candidate_cases`
LAYOUTS = ("channels_last", "slice of channels_last", "contiguous")
ACTIVATIONS: tuple[Activation, ...] = (nn.SiLU, nn.ReLU)
REAL = (16, 16, 32, 32)  # channels, batch, height, width: two copies are 1 MiB in bf16
KINKED = ("max_pool_3x3",)  # candidates that choose: smooth steps leave them out
# With ReLU in float64 none reads less than this, and no pool's two largest pixels are closer, at this seed; fp32 errs by 1e-6 there.
CELL_SEED, CELL_MARGIN = 63, 5e-4  # two nodes
# Whose cells kernels of our own compute; that of NAS-Bench-201 is made of torch's operators.
SPACES = {"darts": spaces.SPACES["darts"]}
Setting = dict[Threshold, Any]  # values of thresholds


def skeleton_of(activation: Activation, size: tuple[int, int], stem: str = "cifar") -> Skeleton:
    """A normal and a reduction cell."""
    return Skeleton(2, 4, 3, 3, size, (1,), activation=activation, stem=stem)


@contextmanager
def at_thresholds(setting: Setting) -> Iterator[str]:
    """Inside, thresholds lie elsewhere; the text says where."""
    with ExitStack() as held:
        for threshold, value in setting.items():
            held.enter_context(threshold.at(value))
        yield "".join(f", {threshold.name}={value}" for threshold, value in setting.items())


def settings_of(*levels: str) -> list[Setting]:
    """The thresholds as they are, and one after the other on its other side."""
    return [{}, *({row: row.other} for row in TABLE if row.level in levels and row.unit != CHANNELS)]


def _widths() -> set[int]:
    """Channels at both sides of the thresholds."""
    return {width for row in TABLE if row.unit == CHANNELS for width in (row.value, row.value + 1)}


def _shapes() -> list[tuple[int, tuple[int, int, int], str]]:
    """Channels, image and layout: with each number of channels others."""
    return [
        (channels, IMAGES[number % len(IMAGES)], LAYOUTS[number % len(LAYOUTS)])
        for number, channels in enumerate(sorted({*WIDTHS, *_widths()}))
    ]


def operation_cases(device: torch.device) -> Iterator[tuple[Subject, list[Setting]]]:
    """Every candidate: with each number of channels another image, layout and activation."""
    settings, widths = settings_of("operation"), _widths()
    bytes_only = [setting for setting in settings if all(row.unit == "bytes" for row in setting)]
    for number, (channels, size, layout) in enumerate(_shapes()):
        activation = ACTIVATIONS[number % len(ACTIVATIONS)]
        roles = LEARNING if channels in widths or number == 0 else ("weights", LEARNING[1 + number % 2])
        for subject in candidate_cases((channels, *size), layout, activation, roles):
            yield subject, settings if number == 0 else bytes_only
    for subject in candidate_cases((WIDTHS[0], *IMAGES[0]), LAYOUTS[0], ACTIVATIONS[0], ("evaluated",)):
        yield subject, [{}]
    if device.type != "cpu":  # in float64 these take seconds
        for subject in candidate_cases(REAL, LAYOUTS[0], ACTIVATIONS[0], LEARNING):
            yield subject, [{}]


def candidate_cases(
    shape: tuple[int, int, int, int], layout: str, activation: Activation, roles: tuple[str, ...]
) -> Iterator[Subject]:
    """Each operation with each stride and role: weights, alphas (weights are frozen), final, evaluated (final, with running statistics)."""
    channels, batch, height, width = shape
    for name, candidate in OPERATIONS.items():
        if name == NOISE:  # reads no image
            continue
        for stride in (1, 2):
            for role in roles:
                form = "search" if role in ("weights", "alphas") else "final"
                copies = 2 if form == "search" else 1
                draws = Generator().manual_seed(channels)
                operation = candidate.build(channels, stride, copies, FORMS[form], activation).double()
                kinked = activation is nn.ReLU and bool(early(operation))
                fill(operation, draws, kinked=kinked)
                inputs = {"input": image(draws, (batch, copies * channels, height, width), kinked=kinked)}
                if form == "search" and not candidate.shared(stride):
                    inputs["mixing factor"] = 0.5 + exact(torch.rand(copies, generator=draws))
                case = f"{name}, stride {stride}, {role}, {layout}, {batch}x{copies * channels}x{height}x{width}"
                module = Named(operation, "input", "mixing factor").train(role != "evaluated")
                yield Subject(case, module, inputs, layout, role in ("weights", "final"))


def cell_cases(device: torch.device) -> Iterator[tuple[Subject, list[Setting]]]:
    """All candidates of each space on all edges of both cell types, summed into nodes; with ReLU, as published.

    One node in both precisions. Two nodes in fp32, of few pixels: what the second one reads of the first has been rounded, so that in bf16
    other pixels would pass ReLU and pools. A CPU makes cells of operations, so there one width is enough; on a GPU kernels are compiled for
    several, and one image is as large as those of a search.
    """
    settings = settings_of("cell")
    settings.append({row: row.other for row in TABLE if row.level in ("operation", "cell") and row.unit != CHANNELS})
    beyond = {row.value + 1 for row in TABLE if row.unit == CHANNELS}
    shapes = [(channels, *size) for channels, size, _ in _shapes() if channels not in beyond]
    shapes = shapes[:1] if device.type == "cpu" else [*shapes, REAL]
    for name, create in SPACES.items():
        for shape in shapes:
            for nodes in (1, 2) if shape is shapes[0] else (1,):
                space = create(SpaceConfig(name, nodes=nodes))
                kinds = space.supernet(skeleton_of(nn.ReLU, (8, 8)), space.tables()).cells
                for kind in kinds:
                    roles = LEARNING[:2] if nodes == 2 else LEARNING[::2] if shape is REAL else (*LEARNING, "evaluated")
                    for role in roles:
                        whole = shape is shapes[0] and role in ("weights", "final")
                        yield _cell(kind.plan, kind.reduction, shape, role), settings if whole else [{}]


class _TwoStates(nn.Module):
    """A cell called with its two inputs apart, and with its mixing as a plain tensor (E, O)."""

    def __init__(self, cell: Cell):
        super().__init__()
        self.cell = cell

    def forward(self, first: Tensor, second: Tensor, mixing: Tensor | None, keep: Tensor | None) -> Tensor:
        """Two images (N, C, H, W) -> (N, nodes * C, H, W), halved by a reduction."""
        return self.cell((first, second), None if mixing is None else Mixing(mixing), keep)


def _cell(plan: CellPlan, reduction: bool, shape: tuple[int, int, int, int], role: str) -> Subject:
    """A cell whose two states are given, for its preprocessing would round them."""
    channels, batch, height, width = shape
    draws, form = Generator().manual_seed(CELL_SEED), "search" if role in ("weights", "alphas") else "final"
    cell = Cell(
        *(plan, (channels, channels), channels),
        reduction=reduction,
        previous_reduces=False,
        form=FORMS[form],
        activation=nn.ReLU,
    ).double()
    cell.preprocess = nn.ModuleList([nn.Identity(), nn.Identity()])
    for stage in cell.stages:
        for operation in stage.operations.values():
            fill(operation, draws, kinked=True)
    size = (batch, channels, height, width)
    inputs = {name: image(draws, size, kinked=True) for name in ("first state", "second state")}
    if form == "search":
        mixing = 0.25 + exact(torch.rand(len(plan.edges), len(plan.columns), generator=draws))
        # The largest of nine pixels varies little, so BatchNorm makes the gradient large, and all others' would drown in its rounding.
        mixing[:, [column for column, name in enumerate(plan.columns) if name in KINKED]] /= 16
        inputs["mixing"] = mixing
    elif role == "final":
        inputs["drop-path"] = 0.25 + exact(torch.rand(batch, len(plan.edges), generator=draws))
    nodes = f"{plan.nodes} node{'s' if plan.nodes > 1 else ''}"
    case = f"{'reduction' if reduction else 'normal'} cell of {nodes}, {role}, {batch}x{channels}x{height}x{width}"
    precisions = tuple(ALLOWED) if plan.nodes == 1 else ("fp32",)
    module = Named(_TwoStates(cell), "first state", "second state", "mixing", "drop-path").train(role != "evaluated")
    return Subject(case, module, inputs, LAYOUTS[0], role in ("weights", "final"), precisions)
