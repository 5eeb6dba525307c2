"""Steps that a preset guarantees, and the learning rate of the architecture that follows from the number of steps."""

from dataclasses import replace

import pytest
import tiny

from darts_lite.cli.run import run_verb
from darts_lite.errors import Exit, UserError
from darts_lite.runs.stored import usable
from darts_lite.search import search
from darts_lite.settings.configs import RetrainConfig, SearchConfig
from darts_lite.settings.pace import LEAST_DESCENT, PUBLISHED_TRAVEL, pace_words, settled, typed_wins
from darts_lite.settings.schema import to_plain

QUICK = SearchConfig(relaxation="softmax", alpha_optimizer="adam")


def test_the_published_travel_is_that_of_the_paper(composed):
    paper = composed("search", ["preset=paper", "method=darts_first_order"])
    assert PUBLISHED_TRAVEL == QUICK.alpha_travel == pytest.approx(paper.alpha_lr * paper.epochs * (25_000 // 64))
    assert settled(paper, 390) == paper and pace_words(paper, 25_000, 390) == []


@pytest.mark.parametrize("epoch_steps", [1, 5, 11, 46])
@pytest.mark.parametrize("warmup", [0, 2])
def test_epochs_reach_the_steps_and_alpha_lr_the_travel(epoch_steps, warmup):
    made = settled(replace(QUICK, warmup_epochs=warmup), epoch_steps)
    assert made.epochs * epoch_steps >= QUICK.least_steps
    assert made.epochs == QUICK.epochs or (made.epochs - 1) * epoch_steps < QUICK.least_steps
    assert made.alpha_lr * (made.epochs - warmup) * epoch_steps == pytest.approx(QUICK.alpha_travel)
    assert settled(made, epoch_steps) == made


def test_the_digits_take_the_steps_that_they_took():
    assert settled(QUICK, 718 // 64).epochs == QUICK.epochs == 12


def test_gradient_descent_keeps_its_learning_rate_unless_the_search_is_short():
    usual = SearchConfig()
    long = settled(usual, 100)
    assert long.alpha_lr == usual.alpha_lr == 0.1 and pace_words(usual, 6400, 100) == []
    short = settled(usual, 11)
    assert short.alpha_lr * 132 == pytest.approx(LEAST_DESCENT) and settled(short, 11) == short
    assert pace_words(usual, 718, 11) == ["alpha_lr=0.591 instead of 0.1: 132 steps are few for it"]
    typed = typed_wins(replace(usual, alpha_lr=0.2), {"alpha_lr"})
    assert settled(typed, 11) == typed
    small = "small for 132 steps of gradient descent; a search decides from alpha_lr=0.591 on"
    assert pace_words(typed, 718, 11) == [f"alpha_lr=0.2: {small}"]
    paper = replace(usual, alpha_travel=None)
    assert settled(paper, 11) == paper


def test_what_is_typed_wins():
    typed = typed_wins(replace(QUICK, epochs=3, alpha_lr=0.01), {"epochs", "alpha_lr"})
    assert settled(typed, 1) == typed and (typed.epochs, typed.alpha_lr) == (3, 0.01)
    assert typed_wins(QUICK, {"seed", "dataset.path"}) == QUICK
    assert typed_wins(replace(QUICK, epochs=3, least_steps=20), {"epochs", "least_steps"}).least_steps == 20
    assert typed_wins(RetrainConfig(epochs=3), {"epochs"}) == RetrainConfig(epochs=3)
    with pytest.raises(UserError, match="alpha_travel"):
        typed_wins(QUICK, {"alpha_lr", "alpha_travel"})


def test_what_changes_is_said_and_what_is_below():
    said = pace_words(QUICK, 120, 1)
    assert said == [
        "120 images make 1 step an epoch: 132 epochs instead of 12, for 132 steps (least_steps=132)",
        "alpha_lr=0.0443: 132 steps, and alpha_travel=5.85",
    ]
    typed = typed_wins(replace(QUICK, epochs=2, alpha_lr=3e-4), {"epochs", "alpha_lr"})
    assert pace_words(typed, 120, 1) == [
        "epochs=2: 2 steps; a search needs 132 or more to find anything",
        "alpha_lr=0.0003: an architecture weight moves by at most 0.0006 in 2 steps; DARTS on CIFAR-10: 5.85",
    ]


def test_a_command_line_is_settled_and_found_again(tiny_folder, capsys):
    """One epoch of 3 steps becomes 2, for 4 steps; alpha_lr reaches the run; resume=auto knows the run by what was typed."""
    words = [
        "dataset=npz",
        "dataset.path=data.npz",
        "space.nodes=2",
        "space.candidates=[none,skip_connect,max_pool_3x3]",
    ]
    words += ["cells=1", "channels=2", "batch_size=16", "least_steps=4", "epochs=1", "alpha_travel=1.2", "resume=auto"]
    words.append("method=darts_first_order")
    assert run_verb("search", words) == Exit.FINISHED
    said = capsys.readouterr().out
    assert "48 images make 3 steps an epoch: 2 epochs instead of 1, for 6 steps (least_steps=4)" in said
    assert "alpha_lr=0.2: 6 steps, and alpha_travel=1.2" in said and "6/6" in said
    assert run_verb("search", words) == Exit.FINISHED and "already finished" in capsys.readouterr().out
    assert run_verb("search", [*words, "alpha_lr=0.1"]) == Exit.CONFIGURATION


def test_a_run_from_before_these_settings_goes_on_as_it_began():
    plain = to_plain(QUICK)
    del plain["least_steps"], plain["alpha_travel"]
    old = usable(SearchConfig, plain, "run")
    assert settled(old, 1) == old and usable(SearchConfig, to_plain(QUICK), "run").alpha_travel == QUICK.alpha_travel


def test_from_python_what_is_off_its_default_wins(tiny_folder):
    report = tiny.Report()
    search(tiny.search_config(alpha_travel=QUICK.alpha_travel, cells=1), report=report)
    assert any(line.startswith("alpha_lr=0.975: 6 steps") for line in report.lines)
    report = tiny.Report()
    search(tiny.search_config(run_dir="other", cells=1), report=report)
    assert any(line.startswith("alpha_lr=0.1: an architecture weight moves") for line in report.lines)


@pytest.mark.slow
def test_few_images_are_learned_and_decided(tiny_folder):
    """240 images of three classes with quick: at least 132 steps, a supernet above chance, a margin above the limit."""
    tiny.write_data("few.npz", train=240)
    dataset = replace(tiny.data_config(), path="few.npz")
    result = search(
        SearchConfig(dataset=dataset, run_dir="few", cells=2, channels=4, space=tiny.SPACE), report=tiny.Report()
    )
    assert result["steps"] == 132 and not result["decided"]["at_chance"]
    assert result["validation"]["accuracy"] > 0.9 and result["decided"]["margin"] > 0.01
