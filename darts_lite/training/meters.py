"""Running means that stay on the device until they are read."""

import torch
from torch import Tensor


class Meters:
    """Mean of each name over the steps since the last `read` that had it: a step may leave a name out."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one step's 0-d values."""
        for name, value in values.items():
            value = value.detach().to(torch.float64, copy=True)  # its place is that of the next step's value, too
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """The means, and start anew. Waits for the device."""
        means = read({name: total / self.counts[name] for name, total in self.sums.items()})
        self.sums, self.counts = {}, {}
        return means

    def state_dict(self) -> dict[str, dict]:
        """Sum and count of each name."""
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, dict], device: torch.device) -> None:
        """Go on from a stored state. Fails where it is none."""
        sums, counts = state["sums"], state["counts"]
        if sums.keys() != counts.keys() or not all(type(count) is int and count > 0 for count in counts.values()):
            raise ValueError("the counts of the meters are no counts")
        self.sums = {name: value.to(device, torch.float64).reshape(()) for name, value in sums.items()}
        self.counts = dict(counts)


def read(values: dict[str, Tensor]) -> dict[str, float]:
    """0-d tensors as numbers, in one transfer."""
    if not values:
        return {}
    return dict(zip(values, torch.stack([value.detach().double() for value in values.values()]).tolist(), strict=True))
