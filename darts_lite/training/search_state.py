"""All that one phase of a search has: supernet, architecture, their optimizers, and the parts that the algorithm is put together from."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from darts_lite.data.parts import ImageSource, ShuffledImages
from darts_lite.hardware.gated import load_optimizer_state, optimizer_state
from darts_lite.hardware.precision import call, computing, lowered
from darts_lite.methods.architecture import Architecture, flatten, unflatten
from darts_lite.methods.method import Method
from darts_lite.methods.monitors import Verdict
from darts_lite.methods.phases import Phase
from darts_lite.methods.seams import Mixed
from darts_lite.methods.solvers.bilevel import Tensors
from darts_lite.methods.views import costs_of
from darts_lite.seeds import derive
from darts_lite.settings.configs import SearchConfig
from darts_lite.spaces.network import Skeleton
from darts_lite.spaces.plan import Pairs
from darts_lite.spaces.table import drawn_pairs, single_path
from darts_lite.spaces.transfer import transfer
from darts_lite.training.clock import Clock
from darts_lite.training.evaluation import at_once, batch_sizes, evaluate, evaluating
from darts_lite.training.health import Health
from darts_lite.training.meters import Meters
from darts_lite.training.optimizers import WeightOptimizer

Batch = tuple[Tensor, Tensor]  # images (N, C, H, W), labels (N,)
LEAST_BATCH = 32  # images whose statistics normalize an evaluation
Draws = dict | None  # random numbers of a forward pass, as `supernet.draw` makes them; None: it has none
Drawn = dict[str, Pairs] | None  # (edge, operation) pairs that are computed, by cell type; None: all


class SearchState:
    """State of phase `number` of a search: `state_dict` and the configuration determine the rest of the run.

    `validation`: images that the supernet is judged on; only steps can be done without.
    """

    def __init__(
        self,
        config: SearchConfig,
        space: Any,
        skeleton: Skeleton,
        method: Method,
        device: torch.device,
        precision: str,
        *,
        epoch_steps: int,
        number: int = 0,
        alive: dict[str, Tensor] | None = None,
        validation: ImageSource | None = None,
    ):
        config = replace(config, **method.phases[number].settings)
        self.config, self.method, self.device, self.precision = config, method, device, precision
        tables = space.tables(weighs_edges=config.edge_weights, alive=alive)
        tables = {cell: replace(table, alive=table.alive.to(device)) for cell, table in tables.items()}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(config.seed, "weights", number))
            self.supernet = space.supernet(skeleton, tables).to(device)
        start = Generator().manual_seed(derive(config.seed, "alphas", number))
        self.architecture = Architecture(tables, method.relaxation, init_std=config.alpha_init_std, generator=start)
        self.architecture.to(device)
        self.weight_optimizer = WeightOptimizer(self.supernet, config)
        self.alpha_optimizer = method.alpha_optimizer(list(self.architecture.parameters()), config)
        self.alpha_lr = torch.tensor(config.alpha_lr, device=device)
        self.costs = costs_of(space, tables, skeleton, device)
        self.clock = Clock(config.seed, device, steps=method.phases[number].epochs * epoch_steps, phase=number)
        self.health = Health(device)
        self.meters = Meters()
        self.verdict = Verdict()
        self.validation = validation

    @property
    def phase(self) -> Phase:
        """The phase that this is the state of."""
        return self.method.phases[self.clock.phase]

    def forward(
        self,
        batch: Batch,
        weights: Tensors,
        mixing: Mixed,
        draws: Draws = None,
        precision: str | None = None,
        *,
        drawn: Drawn = None,
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy (0-d) and logits (N, classes) on `batch`; of a sparse relaxation only `drawn`, of `mixing`, is computed."""
        (images, labels), precision = batch, precision or self.precision
        given = {"draws": draws, "drawn": drawn}
        with computing(self.device, precision):
            logits = call(self.supernet, precision, self.weight_optimizer.names, weights, images, mixing, **given)
            return F.cross_entropy(logits, labels), logits

    def drawn(self, mixing: Mixed) -> Drawn:
        """Operations that a sparse relaxation drew, read from the device; asked once for each sample."""
        return drawn_pairs(self.architecture.tables, mixing) if self.method.sparse else None

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """Loss and accuracies on the validation part, as `evaluate` returns them: at the expected mixing.

        The weights of a sparse relaxation have never seen a blend, so they are tried on paths that it draws, one for each batch.
        """
        architecture, progress = self.architecture, self.clock.progress
        if not self.method.sparse:
            return self.scores(architecture.expected(progress))
        generator = self._generator("paths")

        def path() -> tuple[Mixed, Drawn]:
            mixing = architecture.sample(progress, generator)
            return mixing, self.drawn(mixing)

        return self._evaluate(path, batch_statistics=True)

    def scores(self, mixing: Mixed, images: int | None = None, *, batch_statistics: bool = False) -> dict[str, Any]:
        """Loss and accuracies of the supernet at `mixing` on the validation part, as `evaluate` returns them.

        `images`: about so many of them, at most (None: all). `batch_statistics`: those of the batches, not the running ones, which are
        those of mixtures; of a cell (one operation an edge) only its own operations are computed then.
        """
        tables, most = self.architecture.tables, None if images is None else max(1, images // self._shuffled_batch())
        drawn = drawn_pairs(tables, mixing) if batch_statistics and single_path(tables, mixing) else None
        return self._evaluate(lambda: (mixing, drawn), most, batch_statistics=batch_statistics)

    def judge(self, mixing: Mixed, images: int | None = None) -> tuple[float, float]:
        """Accuracy and loss: `scores`, a cell's with the statistics of batches (Guo et al. 2020 count them anew for each cell)."""
        found = self.scores(mixing, images, batch_statistics=single_path(self.architecture.tables, mixing))
        return found["accuracy"], found["loss"]

    def _shuffled_batch(self) -> int:
        assert self.validation is not None
        return min(len(self.validation), max(LEAST_BATCH, at_once(self.device, self.config.batch_size)))

    def _generator(self, name: str) -> Generator:
        return Generator(self.device).manual_seed(derive(self.config.seed, name, self.clock.done))

    def _evaluate(
        self, mixed: Callable[[], tuple[Mixed, Drawn]], most: int | None = None, *, batch_statistics: bool = False
    ) -> dict[str, Any]:
        """Loss and accuracies on all or `most` validation batches, of the mixing and the computed operations that `mixed` says for each."""
        assert self.validation is not None
        supernet, generator = lowered(self.supernet, self.precision), self._generator("scores")

        def classify(images: Tensor) -> Tensor:
            mixing, drawn = mixed()
            # A recorded one is float64.
            mixing = unflatten(mixing, tuple(one.to(self.alpha_lr) for one in flatten(mixing)))
            return supernet(images, mixing, drawn=drawn, draws=self.supernet.draw(generator, len(images)))

        part: Any = self.validation
        sizes: int | list[int] = batch_sizes(self.validation, at_once(self.device, self.config.batch_size))
        if batch_statistics or most is not None or not self.supernet.form.statistics:
            part = ShuffledImages(self.validation, derive(self.config.seed, "evaluation order"), most)
            sizes = self._shuffled_batch()
        with nullcontext() if batch_statistics else evaluating(self.supernet):
            classes = self.supernet.skeleton.classes
            return evaluate(classify, part, classes, sizes=sizes, precision=self.precision)

    def heed(self, verdict: Verdict) -> None:
        """Go on as a monitor says. Its changes add up; of the rest the last word counts."""
        self.verdict = replace(verdict, change=self.verdict.change | verdict.change)
        self.config = replace(self.config, **self.verdict.change)
        self.weight_optimizer.follow(self.config)
        self.alpha_lr.copy_(torch.tensor(self.config.alpha_lr))  # `fill_` refuses what float32 cannot hold

    def remaining(self, phase: Phase) -> dict[str, Tensor]:
        """The candidates (R, O) of each cell type that are alive in `phase`, the one after this."""
        if phase.alive is not None:
            return phase.alive(self)
        return {cell: table.alive for cell, table in self.architecture.tables.items()}

    def take_over(self, before: "SearchState") -> None:
        """Start from what this phase keeps of the one before."""
        self.clock.follow(before.clock)
        self.heed(before.verdict)
        if self.phase.keeps == "nothing":
            return
        self.supernet.load_state_dict(transfer(before.supernet, self.supernet, before.supernet.state_dict()))
        momentum = transfer(before.supernet, self.supernet, before.weight_optimizer.momentum())
        for name, buffer in self.weight_optimizer.momentum().items():
            buffer.copy_(momentum[name])
        if self.phase.keeps == "all":
            self.architecture.load_state_dict(before.architecture.state_dict())
            load_optimizer_state(self.alpha_optimizer, optimizer_state(before.alpha_optimizer))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        return {
            "clock": self.clock.state_dict(),
            "skeleton": self.supernet.skeleton.describe(),
            "alive": {cell: table.alive for cell, table in self.architecture.tables.items()},
            "weights": self.weight_optimizer.state_dict(),
            "architecture": self.architecture.state_dict(),
            "alpha_optimizer": optimizer_state(self.alpha_optimizer),
            "meters": self.meters.state_dict(),
            "verdict": asdict(self.verdict),
            "parts": {name: part.state_dict() for name, part in self.method.stateful_parts().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored state of the same phase and masks."""
        self.clock.load_state_dict(state["clock"])
        self.weight_optimizer.load_state_dict(state["weights"])
        self.architecture.load_state_dict(state["architecture"])
        load_optimizer_state(self.alpha_optimizer, state["alpha_optimizer"])
        self.meters.load_state_dict(state["meters"], self.device)
        self.heed(Verdict(**state["verdict"]))
        for name, part in self.method.stateful_parts().items():
            part.load_state_dict(state["parts"][name])
