"""Copies of stacks by (cell, operation, edge): moved from one network to another, or left alone by a step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from darts_lite.spaces.network import Network
from darts_lite.spaces.plan import Pairs


def transfer(old: Network, new: Network, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for `new`, taken from `tensors` of `old`: weights, buffers or optimizer state, by parameter name.

    The copies of each stack are taken by (cell, operation, edge); what is in no stack (stem, preprocessing, classifier) as it is. This one
    primitive serves pruning, discretization and warm start: momentum moves with its weight. Where `new` has wider operations (partial
    channels with a smaller K), the channels that are added repeat the others, see `_widened`. Fails with KeyError on a copy that `old`
    does not have, with ValueError where other numbers of cells, channels, ... make other tensors.
    """
    if old.skeleton.describe() != new.skeleton.describe():
        raise ValueError(f"weights of {old.skeleton.describe()} do not fit {new.skeleton.describe()}")
    homes = {
        key: (prefix, i, len(keys), stage.width)
        for prefix, stage, _, keys in old.stacks()
        for i, key in enumerate(keys)
    }
    stacked = {prefix for prefix, *_ in old.stacks()}
    taken = {name: value for name, value in tensors.items() if not any(map(name.startswith, stacked))}
    for prefix, stage, _, keys in new.stacks():
        old_prefix, _, number, width = homes[keys[0]]
        for name, value in tensors.items():
            if name.startswith(old_prefix):
                rest = name.removeprefix(old_prefix)
                # A stack's copies lie together in one stack of `old`: stages are the same, only copies are missing.
                copies = value.unflatten(0, (number, -1))[[homes[key][1] for key in keys]]
                copies = copies if width == stage.width else _widened(rest, copies, width, stage.width)
                taken[prefix + rest] = copies.flatten(0, 1)
    return taken


def _widened(name: str, copies: Tensor, old: int, new: int) -> Tensor:
    """(copies, channels, ...) of an operation on `old` channels -> the tensor of that name for one on `new`: channel i repeats i % old.

    Weights on repeated input channels are divided by their number (Chen et al. 2016, Net2Net): where the added channels of the input
    repeat the others, so do those of the output. The two halves of a factorized reduction see other pixels, so each repeats itself.
    """
    if not 1 < old < new:
        raise ValueError(f"operations on {old} channels cannot become those on {new}")
    channels = torch.arange(new, device=copies.device)
    even = channels[: new // 2] % (old // 2)
    odd = channels[: new - new // 2] % (old - old // 2)
    halves = {"reduce.even": even, "reduce.odd": odd, "reduce.norm": torch.cat((even, old // 2 + odd))}
    rows = next((half for part, half in halves.items() if name.startswith(part)), channels % old)
    wider = copies[:, rows]
    if copies.dim() < 5 or copies.shape[2] == 1:  # statistics, or depthwise filters, which have one input channel
        return wider
    times = (channels % old).bincount(minlength=old)[channels % old].to(copies.dtype)
    return wider[:, :, channels % old] / times[:, None, None]


@contextmanager
def undrawn_kept(network: Network, drawn: dict[str, Pairs] | None, momentum: dict[str, Tensor]) -> Iterator[None]:
    """Inside, a step of an optimizer moves neither weights nor momentum (by name of its weight) of copies that were not drawn.

    In a stack these have the gradient zero, not None, so weight decay and momentum would move them. `drawn` None: all copies were.
    """
    if drawn is None:
        yield
        return
    named = dict(network.named_parameters())
    kept = []
    for prefix, stage, operation, keys in network.stacks():
        kind, _ = network.kinds[keys[0][0]]
        computed = stage.drawn_copies(operation, drawn[kind])
        rest = [copy for copy in range(len(keys)) if copy not in computed]
        for name in (name for name in named if rest and name.startswith(prefix)):
            for tensor in (named[name], momentum[name]):
                stacked = tensor.detach().unflatten(0, (len(keys), -1))  # a view
                kept.append((stacked, rest, stacked[rest]))
    yield
    for stacked, rows, values in kept:
        stacked[rows] = values
