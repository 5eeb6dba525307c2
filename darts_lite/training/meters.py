"""Running means that stay on the device until they are read."""

import torch
from torch import Tensor


class Meters:
    """Means over the steps since the last `read`, by name."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one step's 0-d values."""
        for name, value in values.items():
            value = value.detach().to(torch.float64, copy=True)  # its place is that of the next step's value, too
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1

    def read(self) -> dict[str, float]:
        """The means, and start anew. Waits for the device."""
        means = read({name: total / self.count for name, total in self.sums.items()}) if self.count else {}
        self.sums, self.count = {}, 0
        return means

    def state_dict(self) -> dict:
        """Sums and count."""
        return {"sums": dict(self.sums), "count": self.count}

    def load_state_dict(self, state: dict, device: torch.device) -> None:
        """Go on from a stored state. Fails where it is none."""
        if type(state["count"]) is not int or state["count"] < 0:
            raise ValueError("the count of the meters is no count")
        self.sums = {name: value.to(device, torch.float64).reshape(()) for name, value in state["sums"].items()}
        self.count = state["count"]


def read(values: dict[str, Tensor]) -> dict[str, float]:
    """0-d tensors as numbers, in one transfer."""
    return (
        dict(zip(values, torch.stack([value.detach().double() for value in values.values()]).tolist(), strict=True))
        if values
        else {}
    )
