"""Identity of a run: every setting counts except those that cannot change a result."""

import dataclasses
import hashlib
import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from darts_lite.settings.parts import PartConfig
from darts_lite.settings.schema import leaves, to_plain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PLACES = ("resume", "run_dir")  # where a run lies, not what it is
DATA_PLACES = ("dataset.path", "dataset.root")  # where its data lies; what that is, its fingerprint tells


def plain_leaves(config: "DataclassInstance", prefix: str = "") -> dict[str, Any]:
    """Dotted key -> plain value (scalars, lists, dicts), of every setting, options of parts included."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        key, value = prefix + field.name, getattr(config, field.name)
        if isinstance(value, PartConfig):
            found |= {f"{key}.{name}": option for name, option in to_plain(value).items()}
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            found |= plain_leaves(value, f"{key}.")
        else:
            found[key] = to_plain(value)
    return found


def without_effect(kind: type) -> set[str]:
    """Dotted keys of a configuration class that cannot change a result, so that a resumed run may differ in them."""
    return {key for key, leaf in leaves(kind).items() if leaf.limits.get("without_effect") or key in PLACES}


def result_settings(config: "DataclassInstance", without: Collection[str] = ()) -> dict[str, Any]:
    """Dotted key -> plain value, of the settings that can change a result, `without` some."""
    skipped = without_effect(type(config)).union(without)
    return {key: value for key, value in plain_leaves(config).items() if key not in skipped}


def digest(config: "DataclassInstance", without: Collection[str] = ()) -> str:
    """Short hash of `result_settings`: configurations that are equal have equal digests (1 and 1.0 are equal)."""
    text = json.dumps(_floats(result_settings(config, without)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _floats(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_floats(entry) for entry in value]
    return float(value) if type(value) is int else value
