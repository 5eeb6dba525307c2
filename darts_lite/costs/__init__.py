"""Costs: parameters and multiply-accumulates."""

from darts_lite.costs.count import Costs, count, nearest

__all__ = ["Costs", "count", "nearest"]
