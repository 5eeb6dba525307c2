"""Out of memory: what was held is given back, then smaller batches are tried, and one line says which is the largest that fits."""

import contextlib
import gc
import traceback
from collections.abc import Callable
from typing import Any

import torch

from darts_lite.errors import Exit, UserError, out_of_memory
from darts_lite.hardware.device import GIB, peak_memory, resolve_device, total_memory
from darts_lite.runs.resume import resolve
from darts_lite.runs.trial import trial
from darts_lite.settings.configs import (
    BenchmarkConfig,
    DiscretizeConfig,
    EvaluateConfig,
    RetrainConfig,
    SearchConfig,
)

WITH_BATCHES = (SearchConfig, RetrainConfig, EvaluateConfig, BenchmarkConfig)


def memory_error(error: BaseException, verb: str, function: Callable[..., Any], config: Any) -> UserError:
    """The error to end with after `function(config)` ran out of memory: batch size, peak, and the largest batch that fits, tried.

    `config.batch_size` is halved until two real steps of a fresh run fit.
    """
    peak = f" (peak {_peak(config)} GiB)"
    release(error)
    if not isinstance(config, WITH_BATCHES):
        return UserError("memory", f"out of memory{peak}", "use a machine with more", code=Exit.ENVIRONMENT)
    resumed = False
    if isinstance(config, SearchConfig | RetrainConfig) and config.resume is not None:
        resumed = True
        with contextlib.suppress(UserError):
            config = resolve(verb, config, ()).config  # as stored
    fits = largest_batch(function, config)
    fix = f"batch_size={fits} fits (tried)" if fits else "no smaller batch fits (tried)"
    fix += "" if isinstance(config, EvaluateConfig) else "; or lower channels or cells"
    if resumed:
        fix = f"free memory and resume again, or start a new run: {fix}"
    reason = f"out of memory at batch size {config.batch_size}{peak}"
    return UserError("batch_size", reason, fix, code=Exit.ENVIRONMENT)


def largest_batch(function: Callable[..., Any], config: Any) -> int | None:
    """The largest of half the batch size, a quarter, ... with which the first steps fit; None: none of them."""
    size = config.batch_size // 2
    while size:
        try:
            trial(function, config, batch_size=size)
        except UserError:  # such as a batch of one, which BatchNorm does not take
            return None
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            release(error)
        else:
            return size
        size //= 2
    return None


def release(error: BaseException | None) -> None:
    """Give back what the frames of an exception hold: network, activations, graph."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _peak(config: Any) -> str:
    device = resolve_device("cpu" if isinstance(config, DiscretizeConfig) else config.device)
    return f"{peak_memory(device) / GIB:.2f} of {total_memory(device) / GIB:.2f}"
