"""Search spaces: which cells, which edges, which networks."""

from darts_lite.spaces.darts import DartsSpace

SPACES = {"darts": DartsSpace}
