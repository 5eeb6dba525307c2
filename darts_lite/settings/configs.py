"""Configurations: one dataclass a verb, with the default, the range and the type of each setting; `conf/` spells the same values."""

from dataclasses import dataclass, fields
from typing import Any

from darts_lite.errors import UserError
from darts_lite.settings.datasets import DatasetConfig, preset_config
from darts_lite.settings.options import LARGEST_SEED, USUAL_BATCH, USUAL_FRACTION, option
from darts_lite.settings.parts import PartConfig

# What `method=darts_first_order` sets and the default does not: the published algorithm, which the benchmark compares with its reference.
PLAIN_DARTS: dict[str, Any] = {
    "method": "darts_first_order",
    "relaxation": "softmax",
    "alpha_optimizer": "adam",
    "alpha_lr": 3e-4,
    "alpha_weight_decay": 1e-3,
    "alpha_init_std": 1e-3,
}
MODES = ("search", "search_second_order", "retrain", "data", "growth", "gate")


def _accept_names(config: "SearchConfig | RetrainConfig | DiscretizeConfig") -> None:
    """Put settings where a name, or a part of the user's own, was given, as `dataset=<name>` does on the command line."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "dataset" and isinstance(value, str):
            setattr(config, field.name, preset_config(value))
        elif field.type in (PartConfig, PartConfig | None):
            setattr(config, field.name, PartConfig.of(value))
        elif field.type == list[PartConfig] and isinstance(value, (list, tuple)):
            setattr(config, field.name, [PartConfig.of(part) for part in value])


@dataclass
class SpaceConfig:
    """Settings of a search space: nodes of a cell and candidate operations."""

    name: str = option("darts")  # a name of darts_lite.spaces.SPACES
    nodes: int = option(4, low=1, high=16)  # intermediate nodes of a cell
    candidates: list[str] = option(
        [
            "none",
            "max_pool_3x3",
            "avg_pool_3x3",
            "skip_connect",
            "sep_conv_3x3",
            "sep_conv_5x5",
            "dil_conv_3x3",
            "dil_conv_5x5",
        ]
    )
    edge_candidates: dict[str, list] | None = option(None)  # cell type -> a list of names an edge, null: all candidates


@dataclass
class BenchmarkTableConfig:
    """Settings of a benchmark with known answers, which a search is judged by (`space=nasbench201`)."""

    table: str | None = option(None)  # CSV file, may be gzipped: a column arch, then metrics
    metric: str | None = option(None)  # name of the column that is the truth; None: the first after arch
    sample: int = option(50, low=2)  # random cells whose estimates are compared with the truth, at the end
    images: int = option(512, low=1)  # of the validation part, for each estimate


@dataclass
class RunConfig:
    """Settings of every training: seed, device, numbers, folder, resume, logging."""

    seed: int = option(0, low=0, high=LARGEST_SEED)
    device: str = option("auto")  # auto | cuda | cuda:N | cpu
    precision: str = option("auto", choices=("auto", "fp32", "bf16"))  # auto: bf16 on a GPU that has it, else fp32
    deterministic: bool = option(False)  # on CUDA: only deterministic kernels, so that resume is bit-identical
    # On CUDA: record a whole step once and replay it; the same numbers.
    cuda_graph: bool = option(True, without_effect=True)
    run_dir: str | None = option(None, without_effect=True)  # None: outputs/<verb>/<dataset>/<time>
    resume: str | None = option(None, without_effect=True)  # a run folder, or auto
    debug: str | None = option(None, choices=("fast", "overfit", "profile"))  # a short run that looks for faults
    log_every: int = option(10, low=1, without_effect=True)  # steps between two lines of metrics
    checkpoint_minutes: float = option(5.0, above=0, without_effect=True)
    checkpoint_steps: int | None = option(None, low=1, without_effect=True)  # also every so many steps


@dataclass
class SearchConfig(RunConfig):
    """All settings of a search; `conf/search.yaml` spells the same values."""

    dataset: DatasetConfig = option(DatasetConfig())
    space: SpaceConfig = option(SpaceConfig())
    benchmark: BenchmarkTableConfig = option(BenchmarkTableConfig())
    method: str = option("gaea")  # the names that chose the values below; kept for the record
    preset: str = option("quick")
    experiment: str | None = option(None)
    restarts: int = option(1, low=1, high=100)  # searches with the seeds seed, seed + 1, ..., of which one is picked
    # permuted_labels: of the validation half, so that the architecture has no signal
    control: str | None = option(None, choices=("permuted_labels",))
    # preset
    cells: int = option(5, low=1, high=100)
    channels: int = option(8, low=1, high=4096)
    reductions: list[int] | None = option(None, low=0)  # cells that halve the resolution; None: at 1/3 and 2/3
    stem: str = option("auto", choices=("auto", "cifar", "imagenet"))  # auto: imagenet from 96 pixels on
    epochs: int = option(12, low=1)
    batch_size: int = option(USUAL_BATCH, low=1)
    least_steps: int | None = option(132, low=1)  # epochs rise until there are as many, unless epochs is typed
    # alpha_lr = alpha_travel / steps, with Adam and unless alpha_lr is typed; None: alpha_lr as it is. See settings/pace.py.
    alpha_travel: float | None = option(5.85, above=0)
    restart_epochs: int = option(10, low=1)  # of the retraining that picks one of several restarts
    # method: the algorithm
    relaxation: PartConfig = option(PartConfig("identity_softmax", {"floor": 1e-5}))
    solver: PartConfig = option(PartConfig("first_order"))
    penalties: list[PartConfig] = option([])
    perturbation: PartConfig = option(PartConfig("none"))
    regularization: PartConfig = option(PartConfig("none"))
    alpha_optimizer: PartConfig = option(PartConfig("sgd"))
    monitor: PartConfig = option(PartConfig("none"))
    phases: PartConfig = option(PartConfig("one"))
    edge_weights: bool = option(False)  # also learn a weight of each edge, normalized over the edges into a node
    selection: PartConfig = option(PartConfig("darts"))
    warmup_epochs: int = option(0, low=0)  # epochs with frozen alphas
    # method: SGD on the weights, alpha_optimizer on the alphas
    lr: float = option(0.025, above=0)
    lr_min: float = option(0.001, low=0)
    momentum: float = option(0.9, low=0, high=0.9999)
    nesterov: bool = option(False)
    weight_decay: float = option(3e-4, low=0)
    gradient_clip: float | None = option(5.0, above=0)
    alpha_lr: float = option(0.1, above=0)
    alpha_betas: list[float] = option([0.5, 0.999], low=0, high=0.9999)
    alpha_weight_decay: float = option(0.0, low=0)
    alpha_init_std: float = option(0.0, low=0)
    # data
    # Of the training images, for the weights; the rest is for alphas. Not used where the data has a validation part.
    train_fraction: float = option(USUAL_FRACTION, above=0, high=0.99)
    cutout: int = option(0, low=0)  # side of the square, pixels; 0: off

    def __post_init__(self) -> None:
        _accept_names(self)


def refuse_mere_name(config: SearchConfig) -> None:
    """Raise UserError (2) where `method` names another than the default and every setting of the algorithm is still the default's."""
    names = [field.name for field in fields(SearchConfig)]
    chosen, usual = names[names.index("relaxation") : names.index("train_fraction")], SearchConfig()
    if config.method != usual.method and all(getattr(config, name) == getattr(usual, name) for name in chosen):
        reason = f"chooses nothing from Python: every setting of the algorithm is that of {usual.method}"
        fix = f'use darts_lite.cli.run.configuration("search", "method={config.method}")'
        raise UserError("method", reason, fix, value=config.method)


@dataclass
class RetrainConfig(RunConfig):
    """All settings of a retraining; `conf/retrain.yaml` spells the same values."""

    dataset: DatasetConfig = option(DatasetConfig())
    genotype: str | None = option(None)  # file, run folder, text, published name, random; None: newest finished search
    seeds: list[int] | None = option(None, low=0, high=LARGEST_SEED)  # a retraining with each; None: one, with seed
    baseline: str | None = option(None)  # random:N: so many random genotypes, and the heaviest, trained beside it
    init: str = option("none")  # where the weights start: none, supernet (of the genotype's search), or a run folder
    recipe: str = option("quick")
    experiment: str | None = option(None)
    # recipe: the network
    cells: int = option(5, low=1, high=100)
    channels: int = option(16, low=1, high=4096)
    reductions: list[int] | None = option(None, low=0)
    stem: str = option("auto", choices=("auto", "cifar", "imagenet"))  # auto: imagenet from 96 pixels on
    # recipe: the training
    epochs: int = option(30, low=1)
    batch_size: int = option(USUAL_BATCH, low=1)
    lr: float = option(0.05, above=0)
    lr_min: float = option(0.0, low=0)
    schedule: str = option("cosine", choices=("cosine", "linear", "exponential"))  # from lr to lr_min
    warmup_epochs: int = option(0, low=0)  # in which lr rises from 0, before that
    momentum: float = option(0.9, low=0, high=0.9999)
    nesterov: bool = option(False)
    weight_decay: float = option(3e-4, low=0)
    gradient_clip: float | None = option(5.0, above=0)
    auxiliary_weight: float = option(0.0, low=0)  # weight of the auxiliary head's loss; 0: no head
    drop_path: float = option(0.0, low=0, high=0.95)  # probability at the end; grows linearly from 0
    alternating_flip: bool = option(False)  # where dataset.flip: in one of every two epochs, not by chance
    cutout: int = option(0, low=0)  # side of the square, pixels; 0: off
    label_smoothing: float = option(0.0, low=0, high=0.99)
    ema: float | None = option(None, above=0, high=0.999999)  # decay of the averaged weights; None: no average
    test_every: int | None = option(None, low=1)  # epochs between two looks at the test part; None: only at the end
    train_fraction: float | None = option(None, above=0, high=0.99)  # None: all; else the rest replaces the test part

    def __post_init__(self) -> None:
        _accept_names(self)


@dataclass
class EvaluateConfig:
    """All settings of an evaluation; `conf/evaluate.yaml` spells the same values."""

    run: str | None = option(None)  # folder of a finished retraining
    dataset_path: str | None = option(None)  # where the data lies now, if it has moved
    batch_size: int = option(256, low=1)
    device: str = option("auto")
    precision: str = option("auto", choices=("auto", "fp32", "bf16"))
    run_dir: str | None = option(None)


@dataclass
class DiscretizeConfig:
    """All settings of a discretization; `conf/discretize.yaml` spells the same values."""

    run: str | None = option(None)  # folder of a search
    epoch: int | None = option(None, low=0)  # None: the last one
    selection: PartConfig | None = option(None)  # None: the one of the search
    run_dir: str | None = option(None)

    def __post_init__(self) -> None:
        _accept_names(self)


@dataclass
class DoctorConfig:
    """All settings of a check; `conf/doctor.yaml` spells the same values."""

    dataset: DatasetConfig = option(DatasetConfig())
    device: str = option("auto")  # auto | cuda | cuda:N | cpu
    run_dir: str | None = option(None)  # folder that runs will write to; None: outputs


@dataclass
class BenchmarkConfig:
    """All settings of a benchmark; `conf/benchmark.yaml` spells the same values."""

    mode: str = option("search", choices=MODES)
    cells: int = option(8, low=1, high=100)
    channels: int = option(16, low=1, high=4096)
    batch_size: int = option(64, low=2)
    turns: int = option(2, low=1)  # of each arm, in a process of its own
    steps: int = option(3, low=1)  # of a turn, that count
    warm_up: int = option(1, low=0)  # steps before them
    gate_steps: int = option(200, low=4)  # mode=gate: of each curve
    device: str = option("auto")
    precision: str = option("auto", choices=("auto", "fp32", "bf16"))
    run_dir: str | None = option(None)


AnyConfig = SearchConfig | RetrainConfig | EvaluateConfig | DiscretizeConfig | DoctorConfig | BenchmarkConfig

# In the order of their use.
CONFIGS: dict[str, type[AnyConfig]] = {
    "search": SearchConfig,
    "discretize": DiscretizeConfig,
    "retrain": RetrainConfig,
    "evaluate": EvaluateConfig,
    "doctor": DoctorConfig,
    "benchmark": BenchmarkConfig,
}
