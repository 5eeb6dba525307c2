"""Steps of a search and the way of its architecture weights: what a preset asks for, and what was typed instead.

Travel is alpha_lr x steps: Adam moves a logit by about alpha_lr a step, so by at most that far. DARTS on CIFAR-10 has 3e-4 x 50 epochs of
390 steps = 5.85; the same alpha_lr on the 132 steps of the digits has 0.04, and a softmax hardly leaves 1/8.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, TypeVar

from darts_lite.errors import UserError
from darts_lite.settings.configs import SearchConfig

PUBLISHED_TRAVEL = 5.85
STEP_IS_ALPHA_LR = ("adam",)  # alpha optimizers whose step is about alpha_lr, whatever the gradient; SGD's is not
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
    """Configuration whose epochs, of `epoch_steps` each, reach `least_steps`, and whose alpha_lr makes `alpha_travel`."""
    if config.least_steps is not None:
        config = replace(config, epochs=max(config.epochs, -(-config.least_steps // epoch_steps)))
    if config.alpha_travel is not None and _moves_by_alpha_lr(config):
        config = replace(config, alpha_lr=config.alpha_travel / _learning_steps(config, epoch_steps))
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
    if not _moves_by_alpha_lr(now):
        return found
    learning = _learning_steps(now, epoch_steps)
    if config.alpha_travel is not None:
        found.append(f"alpha_lr={now.alpha_lr:.3g}: {learning} steps, and alpha_travel={config.alpha_travel:g}")
    elif now.alpha_lr * learning < 0.99 * PUBLISHED_TRAVEL:
        far = f"an architecture weight moves by at most {now.alpha_lr * learning:.2g} in {learning} steps"
        found.append(f"alpha_lr={now.alpha_lr:g}: {far}; DARTS on CIFAR-10: {PUBLISHED_TRAVEL:g}")
    return found


def _moves_by_alpha_lr(config: SearchConfig) -> bool:
    return not config.alpha_optimizer.is_own and config.alpha_optimizer.name in STEP_IS_ALPHA_LR


def _learning_steps(config: SearchConfig, epoch_steps: int) -> int:
    """Steps in which the architecture learns."""
    return max(1, (config.epochs - config.warmup_epochs) * epoch_steps)
