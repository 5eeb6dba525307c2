"""A space of another kind, from two lines in tables: one input, one cell type, `none` and an empty cell allowed, no running statistics."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from darts_lite.costs import Costs
from darts_lite.drawing import cells as drawing
from darts_lite.errors import UserError
from darts_lite.genotypes import schema
from darts_lite.genotypes.find import read
from darts_lite.genotypes.genotype import Cell, Edge, Genotype, from_json, to_json
from darts_lite.genotypes.text import to_text
from darts_lite.methods.views import SelectionView
from darts_lite.models import create_network
from darts_lite.operations.layers import FINAL, BatchNorm, Form
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces import SPACES, space_of
from darts_lite.spaces.network import Network, Skeleton
from darts_lite.spaces.plan import CellPlan
from darts_lite.spaces.table import Table

pytestmark = pytest.mark.usefixtures("tiny_folder", "chain")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
OPERATIONS = ("none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3")
SEARCHED = Form(affine=False, pool_norm=False, statistics=False)


class Chain:
    """Three nodes; every edge is kept, the last node is the output."""

    def __init__(self, config: SpaceConfig):
        self.name = config.name

    def tables(self, *, weighs_edges=False, alive=None):
        every = torch.ones(len(EDGES), len(OPERATIONS), dtype=torch.bool)
        return {"cell": Table(EDGES, OPERATIONS, alive["cell"] if alive else every, weighs_edges)}

    def supernet(self, skeleton, tables, *, partial=1):
        live = tuple(tables["cell"].live())
        return self._network(CellPlan(EDGES, OPERATIONS, live, 3, (3,), 1, partial), skeleton, SEARCHED)

    def network(self, genotype, skeleton, *, form="final", auxiliary=False):
        live = tuple((place, edge.operation) for place, edge in enumerate(genotype.cells["cell"].edges))
        plan = CellPlan(EDGES, OPERATIONS, live, 3, (3,), 1)
        return self._network(plan, skeleton, {"search": SEARCHED, "final": FINAL}[form], auxiliary)

    def _network(self, plan, skeleton, form, auxiliary=False):
        return Network({"cell": plan}, ["cell"] * skeleton.cells, skeleton, form, auxiliary=auxiliary)

    def costs(self, tables, skeleton, form="final"):
        return {"cell": [[Costs(0, 0)] * len(OPERATIONS) for _ in EDGES]}

    def picture(self, cell, title, paint=drawing.svg):
        return paint(cell, title, 1)


def strongest(view, judge=None):
    """Argmax on every edge, `none` included."""
    chosen = view.mixing["cell"].operations.argmax(-1).tolist()
    edges = tuple(Edge(OPERATIONS[column], *ends) for column, ends in zip(chosen, EDGES, strict=True))
    return Genotype(view.space, {"cell": Cell(edges, (3,))})


@pytest.fixture
def chain(monkeypatch):
    monkeypatch.setitem(SPACES, "chain", Chain)
    monkeypatch.setitem(schema.SPACE_RULES, "chain", schema.SpaceRules(("cell",), 1, OPERATIONS, least_edges=0))


def config(**changes):
    return tiny.search_config(space=SpaceConfig(name="chain"), selection=strongest, **changes)


def test_it_is_searched_discretized_drawn_and_retrained():
    tiny.run(config(alpha_init_std=1.0))
    genotype = read("run/genotype.json")
    assert genotype.space == "chain" and len(genotype.cells["cell"].edges) == 6
    assert set(json.loads(Path("run/genotype.json").read_text())["cells"]) == {"cell"}
    assert "<svg" in Path("run/cells/cell.svg").read_text()
    network = create_network(genotype, cells=3, channels=4, classes=3, input_channels=1, image_size=(8, 8))
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    result = tiny.run(tiny.retrain_config(genotype="run", run_dir="retrained", epochs=1))
    assert result["parameters"] == network.costs().parameters
    assert (Path("retrained") / "model.pt").is_file()


def test_what_is_discretized_is_the_network():
    """With copied weights and one-hot mixing, by the statistics of the batch in both modes."""
    from torch.nn import functional as F

    from darts_lite.spaces.table import Mixing
    from darts_lite.spaces.transfer import transfer

    space, skeleton = SPACES["chain"](SpaceConfig(name="chain")), Skeleton(3, 4, 3, 1, (8, 8))
    torch.manual_seed(0)
    supernet = space.supernet(skeleton, space.tables()).double()
    chosen = torch.tensor([1, 2, 0, 3, 2, 1])
    mixing = {"cell": Mixing(F.one_hot(chosen, 4).double())}
    genotype = strongest(SelectionView("chain", space.tables(), mixing, {}))
    network = space.network(genotype, skeleton, form="search").double()
    network.load_state_dict(transfer(supernet, network, supernet.state_dict()))
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    for training in (True, False):
        torch.testing.assert_close(network.train(training)(x), supernet.train(training)(x, mixing), rtol=0, atol=1e-12)
    norms = [module for cell in network.cells for module in cell.modules() if isinstance(module, BatchNorm)]
    assert norms and all(norm.running_mean is None for norm in norms)


def test_an_empty_cell_is_a_genotype_and_a_network():
    for edges in ((), tuple(Edge("none", *ends) for ends in EDGES)):
        genotype = Genotype("chain", {"cell": Cell(edges, (3,))})
        assert from_json(to_json(genotype)) == genotype and genotype.inputs == 1
        assert to_text(genotype) is None
        space = space_of(genotype)
        assert "<svg" in space.picture(genotype.cells["cell"], "cell")
        assert space.picture(genotype.cells["cell"], "cell", drawing.raster).size[0] > 0
    assert "zeros (no edge)" in drawing.describe(Genotype("chain", {"cell": Cell((), (3,))}))
    network = space.network(genotype, Skeleton(2, 4, 3, 1, (8, 8)))
    outputs = network(torch.randn(2, 1, 8, 8))
    assert torch.equal(outputs, network.classifier.bias.expand_as(outputs))


def test_rules_are_those_of_the_space():
    usual, one = Edge("skip_connect", 0, 1), replace(Edge("skip_connect", 0, 1), operation="dil_conv_3x3")
    with pytest.raises(UserError, match="unknown name, got 'dil_conv_3x3'"):
        Genotype("chain", {"cell": Cell((usual, one), (3,))})
    with pytest.raises(UserError, match=r"target: must be a node, got 1; fix: an integer, 2 to 17"):
        Genotype("darts", dict.fromkeys(("normal", "reduce"), Cell((usual,), (2,))))
    with pytest.raises(UserError, match="must be a list of 1 to 1368"):
        Genotype("darts", dict.fromkeys(("normal", "reduce"), Cell((), (2,))))
