"""Sparse methods in every space: after real steps, what was not drawn has the weights, momentum and statistics that it had, bit for bit."""

import pytest
import tiny
import torch

from darts_lite.methods.method import said
from darts_lite.methods.relaxations import RELAXATIONS
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces import SPACES
from darts_lite.training import search_state
from darts_lite.training.search_step import search_step

SPARSE = [name for name, one in RELAXATIONS.items() if said(one(), "sparse")]


def copies(state):
    """(cell type, copy, name of the stack's tensor) -> bits, of weights, buffers and momentum of every stack."""
    tensors = {**state.supernet.state_dict(keep_vars=False)}
    tensors |= {f"{name} momentum": buffer for name, buffer in state.weight_optimizer.momentum().items()}
    found = {}
    for prefix, stage, operation, keys in state.supernet.stacks():
        kind, _ = state.supernet.kinds[keys[0][0]]
        for name in (name for name in tensors if name.startswith(prefix)):
            for copy, piece in enumerate(tensors[name].chunk(len(keys))):
                found[kind, stage, operation, copy, name] = tiny.frozen(piece.clone())
    return found


@pytest.mark.usefixtures("tiny_folder")
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("relaxation", SPARSE)
def test_what_was_not_drawn_rests(relaxation, space, monkeypatch):
    chosen = tiny.SPACE if space == "darts" else SpaceConfig(name=space)
    config = tiny.search_config(relaxation=relaxation, selection="best_of", space=chosen, cells=5)
    state, feeds, _ = tiny.training(config)
    drawn, read = [], search_state.drawn_pairs
    monkeypatch.setattr(search_state, "drawn_pairs", lambda *given: drawn.append(read(*given)) or drawn[-1])
    rested = moved = 0
    for number in range(3):
        for feed in feeds:
            feed.load(number)
        before = copies(state)
        search_step(state, *(feed.batch(state.clock.generator) for feed in feeds), learn_alphas=True)
        state.clock.tick()
        for (kind, stage, operation, copy, name), bits in copies(state).items():
            computed = copy in stage.drawn_copies(operation, drawn[-1][kind])  # the last sample is that of the weights
            if not computed:
                assert bits == before[kind, stage, operation, copy, name], (operation, copy, name)
            elif bits != before[kind, stage, operation, copy, name]:
                moved += 1
            rested += not computed
    assert rested > moved > 0
    assert torch.isfinite(torch.cat([weight.detach().flatten() for weight in state.supernet.parameters()])).all()
