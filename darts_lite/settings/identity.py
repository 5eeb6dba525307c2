"""What makes two configurations the same run: every setting except those that cannot change a result."""

import hashlib
import json
from collections.abc import Collection
from typing import Any

from darts_lite.settings.schema import leaves, to_plain

PLACES = ("resume", "run_dir")  # where a run lies, not what it is
DATA_PLACES = ("dataset.path", "dataset.root")  # where its data lies; what that is, its fingerprint tells


def plain_leaves(config: Any) -> dict[str, Any]:
    """Dotted key -> plain value (scalars, lists, dicts), of every setting."""
    plain = to_plain(config)
    result = {}
    for key in leaves(type(config)):
        value: Any = plain
        for name in key.split("."):
            value = value[name]
        result[key] = value
    return result


def inert(kind: type) -> set[str]:
    """The dotted keys of a configuration class that a resumed run may differ in."""
    return {key for key, leaf in leaves(kind).items() if leaf.limits.get("inert") or key in PLACES}


def essence(config: Any, without: Collection[str] = ()) -> dict[str, Any]:
    """Dotted key -> plain value, of the settings that can change a result, `without` some."""
    skipped = inert(type(config)).union(without)
    return {key: value for key, value in plain_leaves(config).items() if key not in skipped}


def digest(config: Any, without: Collection[str] = ()) -> str:
    """A short hash of `essence`: configurations that are equal have equal digests (1 and 1.0 are equal)."""
    text = json.dumps(_floats(essence(config, without)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _floats(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_floats(entry) for entry in value]
    return float(value) if type(value) is int else value
