"""Steps of a search and the way of its architecture weights: what a preset asks for, and what was typed instead.

Travel is alpha_lr x steps: Adam moves a logit by about alpha_lr a step, so by at most that far. DARTS on CIFAR-10 has 3e-4 x 50 epochs of
390 steps = 5.85; the same alpha_lr on the 132 steps of the digits has 0.04, and a softmax hardly leaves 1/8.

Plain gradient descent (GAEA) moves a logit by alpha_lr x gradient, so its alpha_lr stays what it is, unless a search is too short for it.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, TypeVar

from darts_lite.errors import UserError
from darts_lite.settings.configs import SearchConfig

PUBLISHED_TRAVEL = 5.85
STEP_IS_ALPHA_LR = ("adam",)  # alpha optimizers whose step is about alpha_lr, whatever the gradient
STEP_IS_GRADIENT = ("sgd",)  # and those whose step is alpha_lr x gradient
# alpha_lr x steps of the latter, at least. The reduced NAS-Bench-201 is decided with 0.1 x 781 (margins of 0.04 to 0.11 in eight runs); the
# digits with 0.1 x 132 are not (0.009, one run).
LEAST_DESCENT = 78.0
Config = TypeVar("Config", bound=Any)


def typed_wins(config: Config, typed_keys: Collection[str]) -> Config:
    """Configuration without `alpha_travel` where alpha_lr was typed, and without `least_steps` where epochs were; others as they are.

    Raises UserError (2) where both alpha_lr and alpha_travel were typed.
    """
    if not isinstance(config, SearchConfig):
        return config
    changes: dict[str, Any] = {}
    if "alpha_lr" in typed_keys:
        if "alpha_travel" in typed_keys and config.alpha_travel is not None:
            reason, fix = "is not used beside alpha_travel, from which it follows", "leave one of them out"
            raise UserError("alpha_lr", reason, fix, value=config.alpha_lr)
        changes["alpha_travel"] = None
    if "epochs" in typed_keys and "least_steps" not in typed_keys:
        changes["least_steps"] = None
    return replace(config, **changes)


def settled(config: SearchConfig, epoch_steps: int) -> SearchConfig:
    """Configuration whose epochs, of `epoch_steps` each, reach `least_steps`; its alpha_lr makes `alpha_travel` or `LEAST_DESCENT`."""
    if config.least_steps is not None:
        config = replace(config, epochs=max(config.epochs, -(-config.least_steps // epoch_steps)))
    if config.alpha_travel is not None:
        steps = _learning_steps(config, epoch_steps)
        if _moves_as(config, STEP_IS_ALPHA_LR):
            config = replace(config, alpha_lr=config.alpha_travel / steps)
        elif _moves_as(config, STEP_IS_GRADIENT):
            config = replace(config, alpha_lr=max(config.alpha_lr, LEAST_DESCENT / steps))
    return config


def pace_words(config: SearchConfig, images: int, epoch_steps: int) -> list[str]:
    """Lines that say what `settled` changes, and what was chosen below what the quick preset asks for.

    `images`: those that the weights learn from.
    """
    found, now, usual = [], settled(config, epoch_steps), SearchConfig()
    steps = now.epochs * epoch_steps
    if now.epochs != config.epochs:
        each = f"{epoch_steps} step{'' if epoch_steps == 1 else 's'} an epoch"
        instead = (
            f"{now.epochs} epochs instead of {config.epochs}, for {steps} steps (least_steps={config.least_steps})"
        )
        found.append(f"{images} images make {each}: {instead}")
    elif usual.least_steps is not None and steps < usual.least_steps:
        found.append(
            f"epochs={config.epochs}: {steps} steps; a search needs {usual.least_steps} or more to find anything"
        )
    learning = _learning_steps(now, epoch_steps)
    travel = now.alpha_lr * learning
    if _moves_as(now, STEP_IS_GRADIENT):
        if now.alpha_lr != config.alpha_lr:
            found.append(f"alpha_lr={now.alpha_lr:.3g} instead of {config.alpha_lr:g}: {learning} steps are few for it")
        elif travel < 0.99 * LEAST_DESCENT:
            usually = f"a search decides from alpha_lr={LEAST_DESCENT / learning:.3g} on"
            found.append(f"alpha_lr={now.alpha_lr:g}: small for {learning} steps of gradient descent; {usually}")
    elif _moves_as(now, STEP_IS_ALPHA_LR):
        if config.alpha_travel is not None:
            found.append(f"alpha_lr={now.alpha_lr:.3g}: {learning} steps, and alpha_travel={config.alpha_travel:g}")
        elif travel < 0.99 * PUBLISHED_TRAVEL:
            far = f"an architecture weight moves by at most {travel:.2g} in {learning} steps"
            found.append(f"alpha_lr={now.alpha_lr:g}: {far}; DARTS on CIFAR-10: {PUBLISHED_TRAVEL:g}")
    return found


def _moves_as(config: SearchConfig, optimizers: Collection[str]) -> bool:
    return not config.alpha_optimizer.is_own and config.alpha_optimizer.name in optimizers


def _learning_steps(config: SearchConfig, epoch_steps: int) -> int:
    """Steps in which the architecture learns."""
    return max(1, (config.epochs - config.warmup_epochs) * epoch_steps)
