"""Settings of torch for a run on CUDA: all of them are made, and taken back. Their setters work without a GPU."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from darts_lite.hardware.device import current, run_settings, without_trials

CUDA = torch.device("cuda:1")
CPU = torch.device("cpu")


@pytest.fixture
def devices(monkeypatch):
    """The devices that were made the current one, and None where that was taken back."""
    made = []

    @contextmanager
    def device(index):
        made.append(index)
        try:
            yield
        finally:
            made.append(None)

    monkeypatch.setattr(torch.cuda, "device", device)
    return made


@pytest.fixture
def emptying(monkeypatch):
    """Whether a trial of cuDNN empties the cache: the private functions of torch, which a build for a CPU does not have."""
    state = [True]
    monkeypatch.setattr(torch._C, "_cuda_get_conv_benchmark_empty_cache", lambda: state[0], raising=False)
    monkeypatch.setattr(
        torch._C, "_cudnn_set_conv_benchmark_empty_cache", lambda value: state.__setitem__(0, value), raising=False
    )
    return state


def settings():
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "filling": torch.utils.deterministic.fill_uninitialized_memory,
        "benchmark": torch.backends.cudnn.benchmark,
        "limit": torch.backends.cudnn.benchmark_limit,
        "reduced": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
    }


FAST = {"deterministic": False, "filling": False, "benchmark": True, "limit": 3, "reduced": False}
SAME = {"deterministic": True, "filling": False, "benchmark": False, "limit": 3, "reduced": False}


@pytest.mark.parametrize(("deterministic", "inside"), [(False, FAST), (True, SAME)])
@pytest.mark.parametrize("error", [False, True])
def test_settings_of_a_run_are_made_and_taken_back(deterministic, inside, error, devices, emptying):
    before, split = settings(), torch._C._get_cublas_allow_bf16_reduced_precision_reduction()
    assert [before[name] for name in ("deterministic", "filling", "benchmark", "reduced")] == [False, True, False, True]
    with pytest.raises(ArithmeticError) if error else nullcontext(), run_settings(CUDA, deterministic):
        assert settings() == inside and emptying == [False] and devices == [CUDA]
        if error:
            raise ArithmeticError
    assert settings() == before and emptying == [True] and devices == [CUDA, None]
    assert torch._C._get_cublas_allow_bf16_reduced_precision_reduction() == split


def test_what_somebody_else_has_set_is_kept(devices):
    limit = torch.backends.cudnn.benchmark_limit
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark_limit = 5
    try:
        before = settings()
        with run_settings(CUDA, False):
            assert settings()["deterministic"], "it is not for a run to allow what was forbidden"
        with run_settings(CUDA, True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert settings() == before and before["limit"] == 5 and torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark_limit = limit


def test_a_torch_without_the_private_functions(devices, monkeypatch):
    for name in ("_cuda_get_conv_benchmark_empty_cache", "_cudnn_set_conv_benchmark_empty_cache"):
        monkeypatch.delattr(torch._C, name, raising=False)
    with run_settings(CUDA, False):
        assert settings() == FAST


def test_a_cpu_needs_none(devices, emptying):
    before = settings()
    with run_settings(CPU, True), current(CPU):
        assert settings() == before and emptying == [True]
    assert not devices
    with current(CUDA):
        assert devices == [CUDA]


def test_without_trials():
    for before in (True, False):
        torch.backends.cudnn.benchmark = before
        with without_trials():
            assert torch.backends.cudnn.benchmark is False
        assert torch.backends.cudnn.benchmark is before
