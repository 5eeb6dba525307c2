"""Settings: the YAML files say what the dataclasses say, and the check of a configuration finds everything."""

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from darts_lite.cli import line as words
from darts_lite.cli.line import config_class, default_options, read_line
from darts_lite.errors import UserError
from darts_lite.retrain import RetrainConfig
from darts_lite.search import SearchConfig
from darts_lite.settings.configs import PLAIN_DARTS
from darts_lite.settings.datasets import DatasetConfig, preset_config
from darts_lite.settings.elsewhere import MISSING, OURS, spelled
from darts_lite.settings.identity import digest
from darts_lite.settings.schema import check, describe, flat, from_plain, leaves, part_kinds, to_plain
from darts_lite.training.optimizers import SCHEDULES

VERBS = words.VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_plain_files_equal_the_defaults(verb, composed):
    assert composed(verb) == words.config_class(verb)()


EVERY_OPTION = [
    (verb, group, option)
    for verb in VERBS
    for group in words.default_options(verb)
    for option in words.group_options(group, verb)
]


@pytest.mark.parametrize(("verb", "group", "option"), EVERY_OPTION)
def test_every_option_composes_and_is_recorded(verb, group, option, composed):
    made = composed(verb, [f"{group}={option}"])
    name = f"{group}.name" if f"{group}.name" in flat(made) else group
    several = part_kinds(words.config_class(verb)).get(group, False)
    assert [part.name for part in flat(made)[name]] == [option] if several else flat(made)[name] == option


def test_every_file_is_an_option_or_a_verb_and_names_its_command():
    used = {f"{verb}.yaml" for verb in VERBS} | {f"{group}/{option}.yaml" for _, group, option in EVERY_OPTION}
    files = {str(file.relative_to(words.conf_folder())): file for file in words.conf_folder().rglob("*.yaml")}
    assert set(files) == used
    for name, file in files.items():
        text = file.read_text(encoding="utf-8")
        header = text.partition("\n\n")[0]
        assert re.search(r"#   python -m darts_lite\.\w+", header), name
        assert "# Costs and reaches: " in header, name
        assert "_target_" not in text and "${" not in text, name


EXPERIMENTS = [(verb, option) for verb, group, option in EVERY_OPTION if group == "experiment"]


@pytest.mark.parametrize(("verb", "name"), EXPERIMENTS)
def test_experiments_say_how_they_are_run(verb, name, composed):
    """The command in the header is that of the file, and runs what it is named after."""
    header = (words.conf_folder() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").partition("\n\n")[0]
    command = re.search(r"#   python -m darts_lite\.(.+)", header)[1].split()
    line = words.read_line(verb, command[1:])
    assert command[0] == verb and line.overrides["experiment"] == name and not line.problems
    made = composed(verb, [f"experiment={name}"])
    first = (made.dataset.name, *([made.space.name] if verb == "search" else []))
    assert name.startswith(first), "the first word of an experiment is its data set, or its space"
    assert verb == ("retrain" if "retrain" in name else "search")


def test_published_sizes(composed):
    paper = composed("search", ["preset=paper", "method=darts_second_order"])
    assert (paper.cells, paper.channels, paper.epochs, paper.batch_size) == (8, 16, 50, 64)
    assert (paper.solver.name, paper.lr, paper.lr_min, paper.alpha_lr) == ("unrolled", 0.025, 0.001, 3e-4)
    darts = composed("retrain", ["recipe=darts"])
    assert (darts.cells, darts.channels, darts.epochs, darts.batch_size) == (20, 36, 600, 96)
    assert (darts.lr, darts.lr_min, darts.weight_decay, darts.gradient_clip) == (0.025, 0, 3e-4, 5)
    assert (darts.auxiliary_weight, darts.drop_path, darts.cutout) == (0.4, 0.2, 16)
    imagenet = composed("retrain", ["recipe=imagenet"])
    assert (imagenet.epochs, imagenet.batch_size, imagenet.lr, imagenet.weight_decay) == (250, 128, 0.1, 3e-5)
    assert (imagenet.schedule, imagenet.dataset.crop, imagenet.label_smoothing) == ("exponential", "resized", 0.1)
    assert imagenet.dataset.color_jitter == 0.4
    assert imagenet.dataset.mean == [0.485, 0.456, 0.406] and imagenet.dataset.std == [0.229, 0.224, 0.225]
    factor = (imagenet.lr_min / imagenet.lr) ** (1 / imagenet.epochs)
    assert abs(factor - 0.97) < 1e-5


@pytest.mark.parametrize(
    ("name", "verb", "steps"),  # of an epoch on CIFAR-10 and ImageNet
    [
        ("method/darts_first_order", "search", 390),
        ("method/darts_second_order", "search", 390),
        ("recipe/darts", "retrain", 520),
        ("recipe/imagenet", "retrain", 10_009),
    ],
)
def test_headers_name_the_sum_of_the_learning_rates(name, verb, steps, composed):
    """Relative to that of the authors' code, which sets the learning rate at the beginning of each epoch."""
    header = " ".join(
        (words.conf_folder() / f"{name}.yaml").read_text(encoding="utf-8").partition("\n\n")[0].split("\n# ")
    )
    epochs, claimed = re.search(r"over (\d+) epochs is (0\.\d+) of theirs", header).groups()
    made = composed(verb, [name.replace("/", "="), *(["preset=paper"] if verb == "search" else [])])
    assert int(epochs) == made.epochs
    schedule = SCHEDULES["cosine" if verb == "search" else made.schedule]

    def mean(number):
        progress = torch.arange(number, dtype=torch.float64) / number
        return schedule(progress, made.lr, made.lr_min).mean().item()

    assert abs(mean(made.epochs * steps) / mean(made.epochs) - float(claimed)) < 5e-4


@pytest.mark.parametrize(("verb", "name"), EXPERIMENTS)
def test_what_is_trained_as_published_computes_in_fp32(verb, name, composed):
    header = (words.conf_folder() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").partition("\n\n")[0]
    as_published = "as published" in header
    assert as_published == ("darts" in name), "named after what it does"
    assert composed(verb, [f"experiment={name}"]).precision == ("fp32" if as_published else "auto")
    assert composed(verb, [f"experiment={name}", "precision=bf16"]).precision == "bf16"


def test_presets_set_size_and_nothing_else(composed):
    size = {"preset", "cells", "channels", "epochs", "batch_size", "restart_epochs", "least_steps", "alpha_travel"}
    quick, paper = flat(composed("search")), flat(composed("search", ["preset=paper"]))
    assert {key for key in quick if quick[key] != paper[key]} <= size


def test_plain_darts_is_the_first_order_method(composed):
    assert composed("search", ["method=darts_first_order"]) == SearchConfig(**PLAIN_DARTS)


def test_methods_differ_in_the_solver_only(composed):
    first, second = (flat(composed("search", [f"method=darts_{one}_order"])) for one in ("first", "second"))
    assert {key for key in first if first[key] != second[key]} == {"method", "solver.name"}


def test_later_wins(composed):
    row = composed("search", ["experiment=npz_darts_second_order"])
    assert (row.solver.name, row.preset, row.cells, row.dataset.name, row.dataset.flip) == (
        "unrolled",
        "paper",
        8,
        "npz",
        True,
    )
    typed = ["experiment=npz_darts_second_order", "preset=quick", "epochs=3", "dataset.flip=false"]
    row = composed("search", typed)
    assert (row.preset, row.cells, row.epochs, row.dataset.flip) == ("quick", 5, 3, False)


def test_round_trip():
    config = SearchConfig(epochs=3, reductions=[1], penalties=["a"], gradient_clip=None)
    config.space.edge_candidates = {"normal": [["none"], None]}
    assert from_plain(SearchConfig, to_plain(config)) == config


def test_integers_become_floats_where_floats_are_wanted():
    config = from_plain(SearchConfig, {"lr": 1, "gradient_clip": 5, "alpha_betas": [0, 0.5]})
    assert [type(value) for value in (config.lr, config.gradient_clip, *config.alpha_betas)] == [float] * 4
    assert type(from_plain(SearchConfig, {"epochs": 3}).epochs) is int


def test_objects_are_for_python_only():
    class Mine:
        pass

    check(SearchConfig(relaxation=Mine(), solver=len, alpha_betas=(0.5, 0.999), lr=1))
    assert to_plain(SearchConfig(relaxation=Mine()))["relaxation"] == {"name": f"<{__name__}.{Mine.__qualname__}>"}
    with pytest.raises(UserError, match=r"relaxation.name: must be text"):
        from_plain(SearchConfig, {"relaxation": Mine()})
    for wrong in (None, ""):
        with pytest.raises(UserError, match="relaxation"):
            check(SearchConfig(relaxation=wrong))


@dataclass
class Weighted:  # neither hashable nor ordered
    weight: float

    def __call__(self, view):
        return self.weight * view.progress


@dataclass
class WeightedConfig(Weighted):
    pass


class Pair(NamedTuple):
    low: float
    high: float


class Vague:
    """Refuses everything that a part need not have."""

    __hash__ = None

    def __eq__(self, other):
        raise TypeError("cannot be compared")

    def __bool__(self):
        raise TypeError("is neither true nor false")

    def __repr__(self):
        raise TypeError("cannot be written")


class Numbers(list):
    pass


OWN = [Weighted(0.5), WeightedConfig(0.5), Pair(0.0, 1.0), Vague(), Numbers(), {1: 2}, {1, 2}, np.ones(3), 1.5, len]


@pytest.mark.parametrize("mine", OWN, ids=[type(mine).__name__ for mine in OWN])
def test_any_object_is_a_part(mine):
    """Nothing is asked of an object of the user's own; it is stored by its name, and that is read again."""
    keys = ("relaxation", "solver", "perturbation", "regularization", "phases", "selection")
    penalties = [mine, mine, type(mine)(*mine) if isinstance(mine, Pair) else mine]
    config = SearchConfig(penalties=penalties, **dict.fromkeys(keys, mine))
    check(config)
    plain = json.loads(json.dumps(to_plain(config)))
    assert all(plain[key]["name"].startswith("<") for key in keys) and len(plain["penalties"]) == 3
    assert to_plain(from_plain(SearchConfig, plain)) == plain
    assert digest(config) == digest(from_plain(SearchConfig, plain))
    assert "epochs: must be an integer" in str(UserError("epochs", "must be an integer", "give one", value=[mine]))


def test_penalties_are_named_once():
    for names in (["a", "a"], ["a", Weighted(1), "a"]):
        with pytest.raises(UserError, match="penalties: must be distinct"):
            check(SearchConfig(penalties=names))
    check(SearchConfig(penalties=["a", Weighted(1), Weighted(1)]))


@pytest.mark.parametrize("kind", [SearchConfig, RetrainConfig])
def test_a_name_stands_for_the_settings_of_a_data_set(kind):
    assert kind(dataset="digits") == kind()
    assert (
        kind(dataset="cifar10").dataset == preset_config("cifar10")
        and dataclasses.replace(kind(), dataset="mnist").dataset.root
    )
    check(kind(dataset="digits"))


def test_what_is_no_settings_says_what_to_give():
    for changes, said in (
        ({"dataset": 3}, "dataset: must be a DatasetConfig, got 3; fix: give DatasetConfig(name=...)"),
        ({"space": "darts"}, "space: must be a SpaceConfig, got 'darts'; fix: give SpaceConfig(name=...)"),
        ({"dataset": DatasetConfig}, "dataset: must be a DatasetConfig"),
    ):
        with pytest.raises(UserError) as error:
            check(SearchConfig(**changes))
        assert said in str(error.value)


def test_check_lists_every_problem():
    config = SearchConfig(epochs=0, lr=float("inf"), precision="fp8", alpha_betas=[0.5, 2])
    config.dataset.crop_padding = -1
    config.space.nodes = 2.0
    with pytest.raises(UserError) as caught:
        check(config)
    keys = {problem.key for problem in caught.value.problems}
    assert keys == {"precision", "epochs", "lr", "alpha_betas[1]", "dataset.crop_padding", "space.nodes"}


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        (None, "configuration: must be a mapping"),
        ([], "configuration: must be a mapping"),
        ({"dataset": None}, "dataset: must be a mapping"),
        ({"dataset": {"nam": 1}}, "dataset.nam: unknown key; fix: did you mean 'dataset.name'"),
        ({3: 4}, "3: unknown key"),
        ({"cells": 10**5000}, "cells: must be at most 100"),
        ({"lr": 10**400}, "lr: must be finite"),
        ({"run_dir": "a\0b"}, "run_dir: must not be empty or hold a NUL"),
    ],
)
def test_hostile_plain_data(plain, said):
    with pytest.raises(UserError) as caught:
        from_plain(SearchConfig, plain)
    assert said in str(caught.value)


VALUES = [
    ("search", ["epochs=3.5"], ["epochs: must be an integer, got 3.5"]),
    ("search", ["epochs=3.0"], ["epochs: must be an integer, got 3.0"]),
    ("search", ["epochs=[1]"], ["epochs: must be an integer, got [1]"]),
    ("search", ["epochs="], ["epochs: must be an integer, got ''"]),
    ("search", ["seed=???"], ["seed: must be an integer"]),
    ("search", ["lr=fast"], ["lr: must be a number, got 'fast'"]),
    ("search", ["lr=true"], ["lr: must be a number, got True"]),
    ("search", ["deterministic=1"], ["deterministic: must be true or false, got 1"]),
    ("search", ["deterministic=maybe"], ["deterministic: must be true or false, got 'maybe'"]),
    ("search", ["device=0"], ["device: must be text, got 0"]),
    ("search", ["device=null"], ["device: must be text, got None"]),
    ("search", ["relaxation=3"], ["relaxation.name: must be text, got 3"]),
    ("search", ["space.candidates=[none,3]"], ["space.candidates[1]: must be text, got 3"]),
    ("search", ["space.candidates=[null]"], ["space.candidates[0]: must be text, got None"]),
    ("search", ["space.edge_candidates={normal: 3}"], ["space.edge_candidates.normal: must be a list"]),
    ("search", ["epochs=-1"], ["epochs: must be at least 1, got -1"]),
    ("retrain", ["batch_size=0"], ["batch_size: must be at least 1"]),
    ("search", [f"lr={'9' * 400}"], ["lr: must be finite"]),
    ("search", ["lr=-1"], ["lr: must be above 0"]),
    ("retrain", ["lr=0"], ["lr: must be above 0, got 0"]),
    ("search", ["alpha_lr=nan"], ["alpha_lr: must be finite"]),
    ("search", ["seed=-1"], ["seed: must be at least 0"]),
    ("search", ["train_fraction=1"], ["train_fraction: must be at most 0.99"]),
    ("search", ["alpha_betas=[0.5,1]"], ["alpha_betas[1]: must be at most"]),
    ("search", ["alpha_betas=[nan,0.9]"], ["alpha_betas[0]: must be finite"]),
    ("search", ["alpha_betas=[0.5]"], ["alpha_betas: must be two numbers"]),
    ("search", ["warmup_epochs=21"], ["warmup_epochs: must not be above epochs"]),
    ("search", ["reductions=[1,5]"], ["reductions: must be numbers of cells"]),
    ("search", ["reductions=[1,1]"], ["reductions: must be distinct"]),
    ("search", ["space.candidates=[none,none]"], ["space.candidates: must be distinct"]),
    ("search", ["dataset.mean=[127]", "dataset.std=[50]"], ["dataset.mean: must lie from 0 to 1"]),
]


@pytest.mark.parametrize(
    ("verb", "typed", "said"), VALUES, ids=lambda value: value if isinstance(value, str) else value[0][:40]
)
def test_wrong_values(verb, typed, said):
    plain = {}
    for word in typed:
        override = OverridesParser.create().parse_override(word)
        *parents, name = override.key_or_group.split(".")
        inner = plain
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = override.value()
    with pytest.raises(UserError) as caught:
        from_plain(words.config_class(verb), plain)
    assert len(caught.value.problems) == 1
    assert all(text in str(caught.value) for text in said)


def test_descriptions():
    known = leaves(SearchConfig)
    said = {key: describe(leaf.hint, leaf.limits) for key, leaf in known.items()}
    assert said["epochs"] == "an integer of at least 1"
    assert said["momentum"] == "a number of at least 0 and at most 0.9999"
    assert said["gradient_clip"] == "a number above 0, or null"
    assert said["precision"] == "one of auto, fp32, bf16"
    assert said["reductions"] == "a list of integers of at least 0, e.g. [1,2], or null"


@pytest.mark.parametrize("verb", VERBS)
def test_defaults_are_valid(verb):
    check(words.config_class(verb)())


def read(*argv, verb="search"):
    line = words.read_line(verb, list(argv))
    assert line.problems == []
    return line


def test_typed_keys():
    line = read("seed=1", "seed=2", "dataset=npz", "method=darts_second_order", "space.nodes=3", "hydra.verbose=true")
    assert line.typed_keys == {"seed", "dataset.name", "method", "space.nodes"}
    assert line.overrides["seed"] == "2", "of a key given twice the last value counts"


def test_sweeps_are_recognized():
    assert read("-m", "seed=0,1").sweep and read("seed=0,1", "--multirun").sweep and read("hydra.mode=MULTIRUN").sweep
    assert not read("seed=0").sweep


@pytest.mark.parametrize(
    ("value", "pieces"),
    [
        ("a", ["'a'"]),
        ("a b,c", ["'a b'", "'c'"]),
        ("'a,b',c", ["'a,b'", "'c'"]),
        ("it's,b", ["'it\\'s'", "'b'"]),
        ("null,b", ["null", "'b'"]),
    ],
)
def test_path_sweeps_split_at_commas(value, pieces):
    assert read("-m", f"run_dir={value}").overrides["run_dir"] == ",".join(pieces)


def test_words_of_other_programs_lead_to_keys_that_there_are():
    keys = {verb: {*leaves(config_class(verb)), *default_options(verb)} for verb in VERBS}
    for word, meant in OURS.items():
        assert word not in MISSING and word == spelled(word)
        assert all(any(name in known for known in keys.values()) for name in meant), word
    for reason, fix in MISSING.values():
        assert len(str(UserError("k" * 30, f"unknown option: {reason}", fix))) < 300


@pytest.mark.parametrize("verb", ["search", "retrain"])
def test_every_word_of_another_program_is_answered(verb):
    known = {*leaves(config_class(verb)), *default_options(verb)}
    for word in {*OURS, *MISSING} - known:
        (problem,) = read_line(verb, [f"{word}=1"]).problems
        if word in MISSING:
            assert problem.reason == f"unknown key: {MISSING[word][0]}"
        else:
            assert any(f"'{name}'" in problem.fix for name in OURS[word]), (word, problem)
            assert problem.fix.startswith("did you mean ")
