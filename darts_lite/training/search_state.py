"""All that one phase of a search has: supernet, architecture, their optimizers, and the parts that the algorithm is put together from."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_lite.hardware.precision import call, computing
from darts_lite.methods.architecture import Architecture, unflatten
from darts_lite.methods.method import Method
from darts_lite.methods.phases import Phase
from darts_lite.methods.solvers.bilevel import Loss, Tensors
from darts_lite.seeds import derive
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.table import Mixing
from darts_lite.spaces.transfer import transfer
from darts_lite.training.clock import Clock
from darts_lite.training.health import Health
from darts_lite.training.meters import Meters
from darts_lite.training.optimizers import Descent, adam, memory, restore

Batch = tuple[Tensor, Tensor]  # images (N, C, H, W), labels (N,)


class SearchState:
    """The state of phase `number`. What `state_dict` holds, with the configuration, determines the rest of the run."""

    def __init__(
        self,
        config: Any,
        space: Any,
        skeleton: Skeleton,
        method: Method,
        device: torch.device,
        precision: str,
        *,
        epoch_steps: int,
        number: int = 0,
        alive: dict[str, Tensor] | None = None,
    ):
        self.config, self.method, self.device, self.precision = config, method, device, precision
        tables = space.tables(weighs_edges=config.edge_weights, alive=alive)
        tables = {cell: replace(table, alive=table.alive.to(device)) for cell, table in tables.items()}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(config.seed, "weights", number))
            self.supernet = space.supernet(skeleton, tables).to(device)
        draws = torch.Generator().manual_seed(derive(config.seed, "alphas", number))
        self.architecture = Architecture(tables, method.relaxation, init_std=config.alpha_init_std, generator=draws).to(
            device
        )
        self.descent = Descent(self.supernet, config)
        self.alpha_optimizer = adam(
            self.architecture.parameters(), betas=config.alpha_betas, weight_decay=config.alpha_weight_decay
        )
        self.alpha_lr = torch.tensor(config.alpha_lr, device=device)
        self.clock = Clock(config.seed, device, steps=method.phases[number].epochs * epoch_steps, phase=number)
        self.health = Health(device)
        self.meters = Meters()

    @property
    def phase(self) -> Phase:
        """What this phase is."""
        return self.method.phases[self.clock.phase]

    def loss(self, batch: Batch, mixing: dict[str, Mixing], precision: str | None = None) -> Loss:
        """Cross entropy on `batch` as a pure function of (weights, mixing tensors); `mixing` only gives their structure."""

        def loss(weights: Tensors, tensors: Tensors) -> Tensor:
            return self.forward(batch, weights, unflatten(mixing, tensors), precision)[0]

        return loss

    def forward(
        self, batch: Batch, weights: Tensors, mixing: dict[str, Mixing], precision: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy (0-d) and logits (N, classes) on `batch`."""
        (images, labels), precision = batch, precision or self.precision
        with computing(self.device, precision):
            logits = call(self.supernet, precision, self.descent.names, weights, images, mixing)
            return F.cross_entropy(logits, labels), logits

    def remaining(self, phase: Phase) -> dict[str, Tensor]:
        """The candidates that are alive in the phase after this one."""
        if phase.alive is not None:
            return phase.alive(self.architecture)
        return {cell: table.alive for cell, table in self.architecture.tables.items()}

    def carry_over(self, before: "SearchState") -> None:
        """Start from what the phase says that it takes from the one before."""
        self.clock.follow(before.clock)
        if self.phase.carry == "nothing":
            return
        self.supernet.load_state_dict(transfer(before.supernet, self.supernet, before.supernet.state_dict()))
        momentum = transfer(before.supernet, self.supernet, before.descent.momentum())
        for name, buffer in self.descent.momentum().items():
            buffer.copy_(momentum[name])
        if self.phase.carry == "all":
            self.architecture.load_state_dict(before.architecture.state_dict())
            restore(self.alpha_optimizer, memory(before.alpha_optimizer))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        return {
            "clock": self.clock.state_dict(),
            "skeleton": self.supernet.skeleton.describe(),
            "alive": {cell: table.alive for cell, table in self.architecture.tables.items()},
            "weights": self.descent.state_dict(),
            "architecture": self.architecture.state_dict(),
            "alpha_optimizer": memory(self.alpha_optimizer),
            "meters": self.meters.state_dict(),
            "parts": {name: part.state_dict() for name, part in self.method.with_memory().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored state of the same phase and masks."""
        self.clock.load_state_dict(state["clock"])
        self.descent.load_state_dict(state["weights"])
        self.architecture.load_state_dict(state["architecture"])
        restore(self.alpha_optimizer, state["alpha_optimizer"])
        self.meters.load_state_dict(state["meters"], self.device)
        for name, part in self.method.with_memory().items():
            part.load_state_dict(state["parts"][name])
