"""Environment of a run: the facts on which bit-identical resume depends, and those that a reader of results wants to know."""

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from darts_lite.errors import show

_PACKAGE = Path(__file__).resolve().parents[1]
_COMPARED = ("machine", "processor", "instructions", "device", "threads", "ranks")


def describe(device: str | torch.device, fingerprint: str | None, source: str | None = None) -> dict[str, Any]:
    """Plain data for env.json and checkpoints: versions, device, threads, git commit, data (see Dataset.source)."""
    device = torch.device(device)
    names = ("darts_lite", "torchvision", "numpy", "tensorboard", "hydra-core")
    versions: dict[str, str | None] = {"python": platform.python_version(), "torch": str(torch.__version__)}
    versions |= {name: _version(name) for name in names}
    versions |= {"cuda": _text(torch.version.cuda), "cudnn": None}
    if device.type == "cuda":
        versions["cudnn"] = _text(torch.backends.cudnn.version())
    return {
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "ranks": 1,
        "git_commit": git_commit(_PACKAGE),
        "data": fingerprint,
        "source": source or fingerprint,
    }


def differences(old: Any, new: dict[str, Any]) -> list[str]:
    """Differences in what a bit-identical resume depends on, each as `name old -> new`; `old` is untrusted."""
    old = old if isinstance(old, dict) else {}
    before = old.get("versions") if isinstance(old.get("versions"), dict) else {}
    pairs = [(name, before.get(name), value) for name, value in new["versions"].items()]
    pairs += [(name, old.get(name), new[name]) for name in _COMPARED]
    return [f"{name} {show(was, quote=False)} -> {show(now, quote=False)}" for name, was, now in pairs if was != now]


def git_commit(package: Path) -> str | None:
    """The commit of the checkout that holds `package`; None when it is installed, without git, on any failure."""
    if not (package.parent / ".git").exists():
        return None
    # GIT_DIR and the like would point git at another repository.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(package), "rev-parse", "--verify", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, UnicodeDecodeError):
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=3, check=True, env=clean, stdin=subprocess.DEVNULL
        )
        return answer.stdout.strip() or None
    return None


def _version(name: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return str(metadata.version(name))
    return None


def _processor() -> str:
    """The model of the CPU: kernels are chosen by it, so results can depend on it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _text(value: object) -> str | None:
    return None if value is None else str(value)
