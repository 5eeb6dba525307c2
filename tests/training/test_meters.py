"""Means of what steps measure."""

import pytest
import torch

from darts_lite.training.meters import Meters

CPU = torch.device("cpu")


def test_each_name_has_a_mean_over_the_steps_that_had_it():
    meters = Meters()
    for values in ({"train/loss": 4.0}, {"train/loss": 2.0, "validation/loss": 3.0}, {"train/loss": 0.0}):
        meters.add({name: torch.tensor(value) for name, value in values.items()})
    assert meters.read() == {"train/loss": 2.0, "validation/loss": 3.0}
    assert meters.read() == {}


def test_counts_are_stored():
    meters, resumed = Meters(), Meters()
    meters.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0)})
    meters.add({"a": torch.tensor(2.0)})
    resumed.load_state_dict(meters.state_dict(), CPU)
    for one in (meters, resumed):
        one.add({"a": torch.tensor(6.0), "b": torch.tensor(7.0)})
    assert resumed.read() == meters.read() == {"a": 3.0, "b": 6.0}


@pytest.mark.parametrize("counts", [{}, {"a": 0}, {"a": True}, {"a": "1"}, {"a": 1, "b": 1}])
def test_counts_that_are_none(counts):
    with pytest.raises(ValueError, match="counts"):
        Meters().load_state_dict({"sums": {"a": torch.tensor(1.0)}, "counts": counts}, CPU)
