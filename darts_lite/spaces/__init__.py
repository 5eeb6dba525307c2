"""Search spaces: which cells, which edges, which networks. A space is one class in one file and one line in SPACES.

What a genotype of it may hold is listed in genotypes/schema.py, without torch. Nobody else imports the file of a space.
"""

from random import Random
from typing import Any

from darts_lite.genotypes.find import find_genotype as find
from darts_lite.genotypes.genotype import Genotype
from darts_lite.seeds import derive
from darts_lite.settings.configs import SpaceConfig
from darts_lite.spaces.darts import DartsSpace
from darts_lite.spaces.nasbench201 import NasBench201Space

SPACES: dict[str, Any] = {"darts": DartsSpace, "nasbench201": NasBench201Space}


def space_of(genotype: Genotype) -> Any:
    """The space of a genotype, with its usual settings."""
    return SPACES[genotype.space](SpaceConfig(name=genotype.space))


def find_genotype(value: str, *, seed: int = 0) -> Genotype:
    """The genotype that a text means, see genotypes/find.py; `random` is one of the usual space, drawn from `seed`."""
    usual = SpaceConfig()
    return find(value, lambda: SPACES[usual.name](usual).random(Random(derive(seed, "genotype"))))
