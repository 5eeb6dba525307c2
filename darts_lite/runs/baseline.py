"""Networks that a found one is compared with: random genotypes of its space, and the one with most parameters at as many MACs."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from darts_lite.errors import UserError
from darts_lite.genotypes.find import genotype_folder
from darts_lite.genotypes.genotype import Genotype, to_plain
from darts_lite.methods.build import build_space
from darts_lite.runs.comparison import Row, summary
from darts_lite.runs.prepare import RunPlan
from darts_lite.runs.stored import stored_part
from darts_lite.seeds import derive
from darts_lite.settings.baseline import random_networks
from darts_lite.settings.configs import RetrainConfig, SpaceConfig
from darts_lite.spaces import SPACES, find_genotype
from darts_lite.storage import checkpoint
from darts_lite.storage.run_folder import silent

TRIES = 1000  # draws without a new genotype, after which a space is taken to have no more


@dataclass(frozen=True)
class Network:
    """A network beside the found one."""

    name: str  # heaviest, random_0, random_1, ...
    genotype: Genotype
    channels: int

    def changes(self) -> dict[str, Any]:
        """Settings of its training that are not those of the found one."""
        return {"genotype": as_text(self.genotype), "channels": self.channels}

    def to_plain(self) -> dict[str, Any]:
        """The network as `result.json` holds it."""
        return {"name": self.name, "genotype": to_plain(self.genotype), "channels": self.channels}


def networks_beside(plan: RunPlan[RetrainConfig], seed: int) -> list[Network]:
    """The heaviest genotype of the space, and as many random ones, drawn from `seed`, as the baseline of the plan says."""
    config, skeleton = plan.config, plan.skeleton()
    found = find_genotype(str(config.genotype), seed=seed)
    space = space_behind(found, config.genotype)
    with torch.device("meta"):
        macs = space.network(found, skeleton).costs().macs
    heaviest, channels = space.heaviest(skeleton, macs)
    drawn = random_genotypes(space, random_networks(config.baseline or "") or 0, seed, {found})
    return [
        Network("heaviest", heaviest, channels),
        *(Network(f"random_{i}", genotype, config.channels) for i, genotype in enumerate(drawn)),
    ]


def baseline_rows(networks: Sequence[Network], runs: Sequence[Sequence[dict[str, Any]]], whose: str) -> list[Row]:
    """Rows of the table: random genotypes (n of them, each the mean of its seeds), the best of them, the heaviest; `runs` of each network.

    The best one is chosen by the score that the table shows, in favour of the baseline.
    """
    named = list(zip(networks, runs, strict=True))
    scores = {network.name: [run[whose] for run in own] for network, own in named}
    costs = {network.name: (own[0]["parameters"], own[0]["macs"]) for network, own in named}
    drawn = [network.name for network in networks if network.name != "heaviest"]
    means = {name: {key: summary(scores[name])[key] for key in ("accuracy", "loss")} for name in drawn}
    best = max(drawn, key=lambda name: (means[name]["accuracy"], -means[name]["loss"]))  # the first of equals
    channels = next(network.channels for network in networks if network.name == "heaviest")
    return [
        Row("random genotypes", [means[name] for name in drawn]),
        Row(f"best of {len(drawn)}: {best}", scores[best], *costs[best]),
        Row(f"most parameters, channels={channels}", scores["heaviest"], *costs["heaviest"]),
    ]


def space_behind(genotype: Genotype, source: str | None) -> Any:
    """The space of the search in the folder `source`, with its candidates; else the usual one, with as many nodes as `genotype`."""
    folder = genotype_folder(source)
    if folder is not None and checkpoint.files(folder / "checkpoints"):
        state = checkpoint.load_newest(folder / "checkpoints", silent).state
        if state["run"].get("verb") == "search":
            return build_space(stored_part(state, "space", SpaceConfig, folder))
    nodes = max(cell.last for cell in genotype.cells.values()) - genotype.inputs + 1
    return SPACES[genotype.space](SpaceConfig(name=genotype.space, nodes=nodes))


def random_genotypes(space: Any, number: int, seed: int, apart_from: Collection[Genotype] = ()) -> list[Genotype]:
    """Distinct random genotypes of a space, none of which is in `apart_from`. Raises UserError (2) where it has fewer."""
    rng, found = Random(derive(seed, "baseline")), list[Genotype]()
    tries = 0
    while len(found) < number:
        genotype = space.random(rng)
        if genotype not in found and genotype not in apart_from:
            found.append(genotype)
            tries = 0
        elif (tries := tries + 1) == TRIES:
            fix = f"give baseline=random:{len(found)}" if found else "leave baseline out"
            raise UserError(
                "baseline", f"the space has only {len(found)} other genotypes", fix, value=f"random:{number}"
            )
    return found


def as_text(genotype: Genotype) -> str:
    """The value of `genotype=` that means this genotype, whatever its space: JSON in one line."""
    return json.dumps(to_plain(genotype))
