"""All that a retraining has, and its step (Liu et al. 2019, section 3.1: drop-path, cutout, an auxiliary head)."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import record_function

from darts_lite.genotypes.genotype import Genotype
from darts_lite.hardware.precision import call, computing
from darts_lite.operations.layers import tracking_statistics
from darts_lite.seeds import derive
from darts_lite.settings.configs import RetrainConfig
from darts_lite.spaces import space_of
from darts_lite.spaces.network import Network, Skeleton
from darts_lite.training.average import Average
from darts_lite.training.clock import Clock
from darts_lite.training.health import Health
from darts_lite.training.meters import Meters
from darts_lite.training.optimizers import WeightOptimizer, warmed_up, weight_metrics


def new_network(genotype: Genotype, skeleton: Skeleton, config: RetrainConfig) -> Network:
    """The network of a genotype with the weights that belong to the seed, and an auxiliary head if its loss counts."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(config.seed, "weights"))
        return space_of(genotype).network(genotype, skeleton, auxiliary=config.auxiliary_weight > 0)


class RetrainState:
    """State of a retraining: `state_dict` and the configuration determine the rest of the run."""

    def __init__(self, config: RetrainConfig, network: Network, device: torch.device, precision: str, *, steps: int):
        self.config, self.network, self.device, self.precision = config, network, device, precision
        self.weight_optimizer = WeightOptimizer(network, config)
        self.clock = Clock(config.seed, device, steps=steps)
        self.health = Health(device)
        self.meters = Meters()
        self.average = None if config.ema is None else Average(network, config.ema)

    @property
    def reported(self) -> Network:
        """The network that is evaluated and kept: the average, where there is one."""
        return self.network if self.average is None else self.average.network

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        return {
            "clock": self.clock.state_dict(),
            "weights": self.weight_optimizer.state_dict(),
            "meters": self.meters.state_dict(),
            **({} if self.average is None else {"average": self.average.network.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored state."""
        self.clock.load_state_dict(state["clock"])
        self.weight_optimizer.load_state_dict(state["weights"])
        self.meters.load_state_dict(state["meters"], self.device)
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])


@record_function("weights")
def retrain_step(state: RetrainState, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Move the weights, and their average, once; returns 0-d metrics. Nothing in it waits for the device."""
    config, clock, health, optimizer = state.config, state.clock, state.health, state.weight_optimizer
    warmup = config.warmup_epochs / config.epochs
    learning_rate = warmed_up(clock.progress, config.schedule, config.lr, config.lr_min, warmup=warmup)
    drop_path = config.drop_path * clock.progress if config.drop_path else None
    how = {"drop_path": drop_path, "generator": clock.generator, "auxiliary": True}
    cross_entropy = partial(F.cross_entropy, target=labels, label_smoothing=config.label_smoothing)

    statistics = optimizer.statistics()
    optimizer.zero_grad()
    with tracking_statistics(state.network), computing(state.device, state.precision):
        logits, auxiliary = call(state.network, state.precision, optimizer.names, optimizer.weights, images, **how)
        loss = cross_entropy(logits)
        if auxiliary is not None:
            loss = loss + config.auxiliary_weight * cross_entropy(auxiliary)
    loss.backward()
    norm = optimizer.clip()
    optimizer.check(health, clock.step, loss, norm)
    optimizer.step(learning_rate, health.bad, statistics)
    if state.average is not None:
        state.average.update(clock.step, health.bad)
    return weight_metrics(loss, logits, labels, norm, learning_rate)
