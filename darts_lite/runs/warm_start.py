"""Warm start of a retraining's weights: `init=none` (from scratch), `supernet`, or the folder of a finished retraining of an equal network.

`supernet`: the newest checkpoint of the search that the genotype comes from. Each copy is taken by (cell, operation, edge); what the search
does not have starts as ever: the scales and shifts of BatchNorm inside the cells (1 and 0), and the auxiliary head. In the search pools are
followed by BatchNorm and edges are weighted, in the final network not, so this is a warm start and not the network that the search saw.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darts_lite.errors import Exit, UserError, did_you_mean, show
from darts_lite.genotypes.find import genotype_folder
from darts_lite.genotypes.genotype import Genotype, to_plain
from darts_lite.methods.build import build_space
from darts_lite.runs.fit import check_fit
from darts_lite.runs.stored import stored_part
from darts_lite.runs.trained import restore_model
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces.network import Network, Skeleton
from darts_lite.spaces.transfer import transfer
from darts_lite.storage import checkpoint
from darts_lite.storage.files import is_folder, read_json
from darts_lite.storage.run_folder import silent

NAMES = ("none", "supernet")


def initialize(network: Network, init: str, genotype: Genotype, source: str | None) -> None:
    """Put the weights that `init` names into a fresh network; `source` is where the configuration says that the genotype lies.

    Raises UserError: 2 when they belong to another network, 4 when the folder is missing or damaged.
    """
    if init == "none":
        return
    tensors = _from_supernet(network, source) if init == "supernet" else _from_run(network, init, genotype)
    own = network.state_dict()
    network.load_state_dict(own | {name: tensor for name, tensor in tensors.items() if name in own})


def _from_run(network: Network, init: str, genotype: Genotype) -> dict[str, Tensor]:
    if not is_folder(init):
        fix = f"{did_you_mean(init, NAMES)}give none, supernet, or the folder of a finished retraining"
        raise UserError("init", "no such run folder", fix, value=init, code=Exit.RUN)
    stored, state = restore_model(init, "init")
    _check_equal(stored.skeleton.describe(), network.skeleton.describe(), "the run")
    if state["model"]["genotype"] != to_plain(genotype):
        fix = f"give genotype={init}, or init=none"
        raise UserError("init", "the run has another genotype than this one", fix, value=init)
    return stored.state_dict()


def _from_supernet(network: Network, source: str | None) -> dict[str, Tensor]:
    folder = _search_folder(source)
    state = checkpoint.load_newest(folder / "checkpoints", silent).state
    if state["run"].get("verb") != "search":
        raise _no_supernet(source)
    try:
        skeleton = Skeleton.described(state["skeleton"])
    except (LookupError, TypeError, ValueError) as error:
        raise _unfit(folder, error) from error
    _check_equal(skeleton.describe(), network.skeleton.describe(), "the supernet")
    space = build_space(stored_part(state, "space", SpaceConfig, folder))
    try:
        with torch.device("meta"):
            supernet = space.supernet(skeleton, space.tables(alive=state["alive"]))
        weights = state["weights"]["network"]
        check_fit(lambda: supernet, skeleton.cells, weights)
        return transfer(supernet, network, weights)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _unfit(folder, error) from error


def _search_folder(source: str | None) -> Path:
    """The folder of the search that found a genotype: of several restarts the one that was picked."""
    folder = genotype_folder(source)
    if folder is None:
        raise _no_supernet(source)
    result = read_json(folder / "result.json")
    picked = result.get("picked")
    if isinstance(picked, str) and re.fullmatch(r"restart_\d{1,6}", picked):
        folder = folder / picked
    elif "picked" in result:  # of random candidates
        raise _no_supernet(source)
    if not checkpoint.files(folder / "checkpoints"):
        raise _no_supernet(source)
    return folder


def _no_supernet(source: str | None) -> UserError:
    reason = f"the genotype {show(source)} is not the folder of a search, so there is no supernet"
    return UserError("init", reason, "give genotype=<folder of a search>, or init=none", value="supernet")


def _unfit(folder: Path, error: Exception) -> UserError:
    reason = f"its supernet does not fit: {error}"
    return UserError(folder, reason, "give init=none, or search again", code=Exit.RUN)


def _check_equal(theirs: dict[str, Any], ours: dict[str, Any], whose: str) -> None:
    """Name the first thing around the cells that differs."""
    for name, value in ours.items():
        if theirs[name] != value:
            reason = f"{whose} has {name} {show(theirs[name])}, this network {show(value)}"
            raise UserError("init", reason, f"make {name} equal, or give init=none")
