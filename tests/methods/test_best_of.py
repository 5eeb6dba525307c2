"""The best of K cells by the shared weights: what is judged, what is picked, and that it is the supernet that judges."""

from pathlib import Path
from random import Random

import pytest
import tiny
import torch
import torch.nn.functional as F

from darts_lite.discretize import DiscretizeConfig, discretize
from darts_lite.errors import UserError
from darts_lite.genotypes.find import read
from darts_lite.methods.build import build_method
from darts_lite.methods.selections.best_of import BestOf
from darts_lite.methods.views import SelectionView
from darts_lite.seeds import derive
from darts_lite.settings.configs import SpaceConfig
from darts_lite.settings.parts import PartConfig
from darts_lite.spaces import SPACES
from darts_lite.spaces.table import Mixing, mixing_of, single_path
from darts_lite.spaces.transfer import transfer

SPACE = SPACES["darts"](tiny.SPACE)
TABLES = SPACE.tables()


def view(seed=0, tables=TABLES, space=SPACE):
    mixing = {cell: Mixing(table.alive.double()) for cell, table in tables.items()}
    return SelectionView("darts", tables, mixing, {}, space, seed)


class Judge:
    """Likes convolutions, and remembers what it was shown; the loss is the number of skips."""

    def __init__(self):
        self.seen = []

    def __call__(self, mixing, images=None):
        self.seen.append({cell: one.operations.clone() for cell, one in mixing.items()})
        self.images = images

        def count(name):
            return sum(int(one.operations[:, tiny.SPACE.candidates.index(name)].sum()) for one in mixing.values())

        return count("sep_conv_3x3") / 8, float(count("skip_connect"))


def convolutions(genotype):
    return sum(edge.operation == "sep_conv_3x3" for cell in genotype.cells.values() for edge in cell.edges)


@pytest.mark.parametrize("by", ["random", "mutation"])
def test_different_cells_are_judged_and_the_best_one_is_taken(by):
    judge = Judge()
    genotype = BestOf(samples=40, by=by, images=123)(view(), judge)
    keys = {tuple(tuple(one.flatten().tolist()) for one in seen.values()) for seen in judge.seen}
    assert len(judge.seen) == len(keys) == 40 and judge.images == 123
    best = max(judge.seen, key=lambda seen: Judge()({cell: Mixing(one) for cell, one in seen.items()})[0])
    assert convolutions(genotype) == sum(int(one[:, 3].sum()) for one in best.values())
    assert all(seen["normal"].sum() == 4 and seen["normal"].amax(1).le(1).all() for seen in judge.seen), (
        "2 edges a node"
    )
    assert BestOf(samples=40, by=by)(view(), Judge()) == genotype, "drawn from the seed"
    assert BestOf(samples=40, by=by)(view(seed=1), Judge()) != genotype


def test_random_cells_are_those_of_the_space():
    judge, random = Judge(), Random(derive(0, "selection"))
    BestOf(samples=5, by="random")(view(), judge)
    expected = [mixing_of(SPACE.random(random), TABLES) for _ in range(5)]
    for seen, mixing in zip(judge.seen, expected, strict=True):
        assert all(torch.equal(seen[cell], one.operations) for cell, one in mixing.items())


def test_mutation_finds_what_chance_does_not():
    """All eight operations convolutions: one random cell in 3^8 = 6,561."""
    assert convolutions(BestOf(samples=150)(view(), Judge())) == 8
    assert convolutions(BestOf(samples=150, by="random")(view(), Judge())) < 8


def test_ties_go_to_the_lower_loss_then_to_the_earlier_cell():
    losses = iter([0.3, 0.1, 0.2, 0.1, 0.5])
    first = Judge()

    def judge(mixing, images=None):
        first(mixing)
        return 0.5, next(losses)

    genotype = BestOf(samples=5, by="random")(view(), judge)
    assert all(torch.equal(first.seen[1][cell], one.operations) for cell, one in mixing_of(genotype, TABLES).items())


@pytest.mark.parametrize("by", ["random", "mutation"])
def test_a_small_space_ends_before_k(by):
    """Two operations on one edge, one on the rest: two cells."""
    rows = [["skip_connect", "sep_conv_3x3"], ["skip_connect"]]
    config = SpaceConfig(nodes=1, candidates=["skip_connect", "sep_conv_3x3"])
    config.edge_candidates = {"normal": rows, "reduce": [["skip_connect"]] * 2}
    space, judge = SPACES["darts"](config), Judge()

    def first_edge(mixing, images=None):
        judge.seen.append(mixing)
        return float(mixing["normal"].operations[0, 1]), 0.0

    genotype = BestOf(by=by, population=1)(view(tables=space.tables(), space=space), first_edge)
    assert len(judge.seen) == 2 and convolutions(genotype) == 1


def test_candidates_that_a_phase_has_removed_are_not_judged():
    alive = {cell: table.alive.clone() for cell, table in TABLES.items()}
    alive["normal"][:, 3] = False
    judge = Judge()
    BestOf(samples=20)(view(tables=SPACE.tables(alive=alive)), judge)
    assert len(judge.seen) == 20 and not any(seen["normal"][:, 3].any() for seen in judge.seen)
    with pytest.raises(ValueError, match="no candidate"):
        mixing_of(
            SPACE.random(Random(1)), SPACE.tables(alive={c: a & (torch.arange(4) == 0) for c, a in alive.items()})
        )


def test_a_view_without_weights_is_refused():
    with pytest.raises(ValueError, match="only, by its weights"):
        BestOf()(view(), None)


# The judge ------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_folder")
def test_a_cell_is_judged_as_the_network_it_becomes_by_the_statistics_of_batches():
    """Whole batches in an order that mixes the classes; nothing moves, and another order of the cells asked changes nothing."""
    state, feeds, _ = tiny.training(tiny.search_config(relaxation="uniform_path", selection="best_of"))
    state.validation = feeds[1].part
    before = tiny.frozen(state.supernet.state_dict())
    genotype = SPACE.random(Random(3))
    mixing = mixing_of(genotype, TABLES)
    assert single_path(TABLES, mixing) and not single_path(TABLES, state.architecture.expected(state.clock.progress))
    accuracy, loss = state.judge(mixing)
    assert state.judge(mixing_of(SPACE.random(Random(4)), TABLES)) != (accuracy, loss) == state.judge(mixing)
    assert tiny.frozen(state.supernet.state_dict()) == before and state.supernet.training

    network = SPACE.network(genotype, state.supernet.skeleton, form="search")
    network.load_state_dict(transfer(state.supernet, network, state.supernet.state_dict()))
    part = feeds[1].part
    order = torch.randperm(48, generator=torch.Generator().manual_seed(derive(0, "order", 0)))
    losses, hits = [], 0
    for chosen in order.split(16):
        images = part.preparation.normalized(part._pixels[chosen])
        logits, labels = network.train()(images), part.labels[chosen]
        losses.append(F.cross_entropy(logits, labels).detach())
        hits += int((logits.argmax(1) == labels).sum())
    assert accuracy == hits / 48 and loss == pytest.approx(float(sum(losses)) / 3, rel=1e-5)
    assert state.judge(mixing, images=16)[1] == pytest.approx(float(losses[0]), rel=1e-5)


@pytest.mark.usefixtures("tiny_folder")
def test_a_search_takes_the_cell_that_its_weights_like_best():
    config = tiny.search_config(relaxation="uniform_path", selection=PartConfig("best_of", {"samples": 12}), epochs=1)
    tiny.run(config)
    genotype = read("run/genotype.json")
    with pytest.raises(UserError, match="learns nothing that a genotype could be made of"):
        discretize(DiscretizeConfig(run="run"))
    state, feeds, _ = tiny.training(config)
    state.load_state_dict({**tiny.newest("run"), **{key: state.state_dict()[key] for key in ("meters", "clock")}})
    state.validation = feeds[1].part
    assert BestOf(samples=12)(view(), state.judge) == genotype
    assert Path("run/cells/normal.svg").exists()


# What makes no sense ------------------------------------------------------------------

REFUSED = [
    ({"solver": "unrolled"}, "solver: differentiates with respect to the mixing, and relaxation=uniform_path learns nothing"),
    ({"penalties": ["beta_decay"]}, "penalties: act on the logits"),
    ({"edge_weights": True}, "edge_weights: would learn"),
    ({"selection": "darts"}, "selection: reads the alphas, and relaxation=uniform_path learns nothing.*give selection=best_of"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_would_learn_is_refused_where_nothing_is_learned(changes, said):
    usual = {"relaxation": "uniform_path", "selection": "best_of"}
    with pytest.raises(UserError, match=said):
        build_method(tiny.search_config(**(usual | changes)))
    assert build_method(tiny.search_config(**usual)).obstacle()
    with pytest.raises(UserError) as caught:
        build_method(tiny.search_config(**(usual | REFUSED[0][0] | REFUSED[1][0] | REFUSED[2][0] | REFUSED[3][0])))
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize("relaxation", ["softmax", "identity_softmax", "dirichlet", "gumbel"])
@pytest.mark.parametrize("selection", ["darts", "best_of"])
def test_the_rest_combines(relaxation, selection):
    for solver in ("first_order", "unrolled"):
        for optimizer in ("adam", "sgd"):
            config = tiny.search_config(
                relaxation=relaxation, selection=selection, solver=solver, alpha_optimizer=optimizer,
                penalties=["beta_decay"], edge_weights=True,
            )  # fmt: skip
            assert build_method(config).learns
