"""Where a training stands, for the host and for the device, and the random numbers of a step."""

import torch
from torch import Generator

from darts_lite.seeds import derive


class Clock:
    """Counts steps. All that varies in time reads `progress`; every random draw of a step comes from `generator`.

    The generator is re-seeded at each step from (seed, phase, step), so that no generator state has to be saved.
    """

    def __init__(self, seed: int, device: torch.device, *, steps: int, phase: int = 0):
        self.seed, self.phase, self.steps = seed, phase, steps  # steps of this phase
        self.phase_step = 0  # those that are finished
        self.done = 0  # finished steps of all phases
        self.step = torch.zeros((), dtype=torch.int64, device=device)  # `done`, on the device
        self.progress = torch.zeros((), device=device)  # finished part of the phase, 0-d
        self.generator = Generator(device)
        self._tell_device()

    def renew_generator(self) -> None:
        """Replace the generator by one that draws the same numbers: a failed capture may leave the old one unusable."""
        self.generator = Generator(self.step.device)
        self._tell_device()

    @property
    def finished(self) -> bool:
        """Whether the phase is over."""
        return self.phase_step >= self.steps

    def tick(self) -> None:
        """Count a finished step."""
        self.phase_step += 1
        self.done += 1
        self._tell_device()

    def state_dict(self) -> dict[str, int]:
        """Phase, and finished steps of the phase and of all phases."""
        return {"phase": self.phase, "phase_step": self.phase_step, "done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a stored state. Fails where it is not one of this phase."""
        if state["phase"] != self.phase or not all(type(count) is int and count >= 0 for count in state.values()):
            raise ValueError("the clock shows no time of this phase")
        if state["phase_step"] > min(self.steps, state["done"]):
            raise ValueError("the clock shows a time after the end of the phase")
        self.phase, self.phase_step, self.done = state["phase"], state["phase_step"], state["done"]
        self._tell_device()

    def follow(self, before: "Clock") -> None:
        """Count on from the steps of the phase before."""
        self.done = before.done
        self._tell_device()

    def _tell_device(self) -> None:
        self.step.fill_(self.done)
        self.progress.fill_(self.phase_step / self.steps)
        self.generator.manual_seed(derive(self.seed, "step", self.phase, self.phase_step))
