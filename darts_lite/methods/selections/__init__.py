"""Selections: (space, tables, expected mixing) -> genotype."""

from darts_lite.methods.selections.darts import darts

SELECTIONS = {"darts": darts}
