"""Only drawn operations: the pass of a dense supernet with one-hot mixing, computed by the drawn copies alone; the others rest."""

import pytest
import tiny
import torch
from test_supernet import CASES, OUTPUT, Case, close, gradients
from torch.nn import functional as F

from darts_lite.methods.relaxations.softmax import Softmax
from darts_lite.operations.layers import BatchNorm, tracking_statistics
from darts_lite.spaces.table import Mixing, drawn_pairs
from darts_lite.spaces.transfer import undrawn_kept

SPARSE = {
    "plain": Case(nodes=3, cells=4, channels=4),
    "own candidates": CASES["own candidates"],
    "edge factors, a mixing a cell": CASES["all at once"],
    "partial channels": CASES["a quarter of the channels"],
}
every_case = pytest.mark.parametrize("case", SPARSE.values(), ids=SPARSE)


def one_hot(case, seed=7):
    """One live operation on each edge, times a factor that has a gradient; tables, mixing, and what is drawn."""
    tables = case.space.tables(alive=case.alive)
    mixing = {}
    for cell, one in case.mixing(seed).items():
        chosen = one.operations.detach().masked_fill(~case.alive[cell], -torch.inf).argmax(-1)
        hot = F.one_hot(chosen, one.operations.shape[-1]) * (1.5 + one.operations.detach().tanh())
        mixing[cell] = Mixing(hot.requires_grad_(), one.edges)
    drawn = drawn_pairs({cell: tables[cell] for cell in mixing}, mixing)
    return mixing, drawn


@every_case
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_drawn_copies_make_what_the_dense_stage_makes(case, training):
    mixing, drawn = one_hot(case)
    network = case.stacked().train(training)
    outputs, weights, factors = gradients(network, case.images(), mixing)

    def sparse(images, mixing):
        return network(images, mixing, drawn=drawn)

    sparse.named_parameters = network.named_parameters
    found_outputs, found_weights, found_factors = gradients(sparse, case.images(), mixing)
    close({"": found_outputs}, {"": outputs}, OUTPUT)
    close(found_weights, weights, OUTPUT)
    for name, mask in ((f"{cell} operations", one.operations != 0) for cell, one in mixing.items()):
        close({name: found_factors[name] * mask}, {name: factors[name] * mask}, OUTPUT)
        computed = mask.any(0) if mask.dim() == 3 else mask  # for no cell of the type
        assert not (found_factors[name] * ~computed).any(), "what was not drawn has no gradient"


def test_only_drawn_copies_are_computed():
    case = SPARSE["plain"]
    mixing, drawn = one_hot(case)
    network, counts = case.stacked(), []
    for pairs in (None, drawn):
        channels = []
        hooks = [
            module.register_forward_hook(
                lambda module, inputs, output, channels=channels: channels.append(output.shape[1])
            )
            for stage in (stage for cell in network.cells for stage in cell.stages)
            for module in stage.modules()
            if isinstance(module, BatchNorm)
        ]
        network(case.images(), mixing, drawn=pairs)
        counts.append(sum(channels))
        for hook in hooks:
            hook.remove()
    assert 0 < counts[1] < counts[0] / 3


@every_case
def test_what_was_not_drawn_rests(case):
    """Weights, momentum and statistics of the other copies are bit-equal after a step; the drawn ones move as if each were apart."""
    network = case.stacked().train()
    images, labels = case.images(), torch.arange(3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    names = dict(network.named_parameters())
    for seed in (3, 4):
        mixing, drawn = one_hot(case, seed)
        for weight in names.values():
            optimizer.state[weight].setdefault("momentum_buffer", torch.ones_like(weight))
        momentum = {name: optimizer.state[weight]["momentum_buffer"] for name, weight in names.items()}
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        velocity = {name: tensor.clone() for name, tensor in momentum.items()}
        optimizer.zero_grad(set_to_none=False)
        with tracking_statistics(network):
            F.cross_entropy(network(images, mixing, drawn=drawn), labels).backward()
        with undrawn_kept(network, drawn, momentum):
            optimizer.step()
        after = network.state_dict()
        rested = moved = 0
        for prefix, _, operation, keys in network.stacks():
            for copy, (cell, (_, source, target)) in enumerate(keys):
                plan, kind = network.cells[cell].plan, network.kinds[cell][0]
                out = {e for e, ends in enumerate(plan.edges) if ends[0] == source and target in (None, ends[1])}
                computed = any((edge, operation) in drawn[kind] for edge in out)
                for name in (name for name in before if name.startswith(prefix)):
                    pieces = [(after[name], before[name])]
                    pieces += [(momentum[name], velocity[name])] if name in momentum else []
                    for new, old in pieces:
                        equal = torch.equal(new.chunk(len(keys))[copy], old.chunk(len(keys))[copy])
                        assert equal is not computed, (name, copy)
                rested, moved = rested + (not computed), moved + computed
        assert rested and moved


class OnePath(Softmax):
    """One operation an edge, drawn with the probabilities of the softmax, whose gradient it has."""

    sparse = True

    def sample(self, logits, table, progress, generator):
        likely = self.expected(logits, table, progress)
        noise = -torch.empty_like(logits).exponential_(generator=generator).log()
        chosen = (logits.detach() + noise).masked_fill(~table.alive, -torch.inf).argmax(-1)
        return F.one_hot(chosen, logits.shape[1]) - likely.detach() + likely


class OnePathOfAll(OnePath):
    sparse = False


def test_a_step_of_a_sparse_search_is_the_dense_one_but_for_what_rests(tiny_folder):
    found = []
    for relaxation in (OnePath, OnePathOfAll):
        state, feeds, step = tiny.training(tiny.search_config(relaxation=relaxation))
        for feed in feeds:
            feed.load(0)
        before = {name: weight.detach().clone() for name, weight in state.supernet.named_parameters()}
        metrics = step(state, learn_alphas=False)
        rested = {
            (name, copy)
            for prefix, _, _, keys in state.supernet.stacks()
            for name, weight in state.supernet.named_parameters()
            if name.startswith(prefix)
            for copy in range(len(keys))
            if torch.equal(weight.chunk(len(keys))[copy], before[name].chunk(len(keys))[copy])
        }
        copies = {
            name: len(keys)
            for prefix, _, _, keys in state.supernet.stacks()
            for name in before
            if name.startswith(prefix)
        }
        apart = {
            (name, copy): piece.clone()
            for name, weight in state.supernet.state_dict().items()
            for copy, piece in enumerate(weight.chunk(copies.get(name, 1)))
        }
        found.append((metrics, rested, apart))
        step(state)
        assert all(tensor.isfinite().all() for tensor in state.architecture.parameters())
    (sparse, rested, weights), (dense, moved, others) = found
    torch.testing.assert_close(sparse["train/loss"], dense["train/loss"])
    assert rested and not moved, "weight decay moves what is computed with the factor zero"
    for key in weights.keys() - rested:
        if "running" not in key[0]:
            torch.testing.assert_close(weights[key], others[key])


def test_a_cell_of_which_nothing_is_drawn():
    case = Case(cells=1, nodes=1, reductions=())
    network, mixing = case.stacked(), case.mixing()
    outputs = network(case.images(), mixing, drawn={"normal": frozenset()})
    assert torch.equal(outputs, network.classifier.bias.expand_as(outputs))


def test_drawn_pairs_are_read_from_zeros():
    tables = tiny.SPACES["darts"](tiny.SPACE).tables()
    factors = torch.zeros(5, 4)
    factors[0, 2] = factors[4, 0] = -1e-30
    mixing = {"normal": Mixing(factors), "reduce": Mixing(torch.stack((factors, factors.roll(1, 1))))}
    found = drawn_pairs(tables, mixing)
    assert found["normal"] == {(0, "skip_connect"), (4, "none")}
    assert found["reduce"] == {(0, "skip_connect"), (4, "none"), (0, "sep_conv_3x3"), (4, "max_pool_3x3")}
