"""Selections: (space, tables, expected mixing) -> genotype."""

from darts_lite.selections.darts import darts

SELECTIONS = {"darts": darts}
