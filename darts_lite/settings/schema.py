"""Schema: a plain dict becomes a dataclass, and every wrong type, range and relation in it is found at once.

The command line and the Python API are checked by the same code; nothing here knows torch or Hydra.

    config = from_plain(SearchConfig, {"epochs": 3})      # raises UserError; its `problems` are all there are
    check(SearchConfig(lr=-1))                            # the same for an instance made in Python
    to_plain(config)                                      # back to dicts, lists and scalars
"""

import dataclasses
import math
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from darts_lite.errors import UserError, choice, nearest, raise_all, show
from darts_lite.settings.elsewhere import MISSING, or_words, ours, spelled
from darts_lite.settings.parts import PartConfig
from darts_lite.settings.relations import RELATIONS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config")

NOUNS = {int: "an integer", float: "a number", bool: "true or false", str: "text", list: "a list", dict: "a mapping"}
PLURALS = {int: "integers", float: "numbers", bool: "true or false", str: "names", PartConfig: "names"}


class Leaf(NamedTuple):
    """Type and limits of one setting of a configuration class."""

    hint: Any
    limits: dict[str, Any]  # the metadata of `option`


def leaves(cls: Any, prefix: str = "") -> dict[str, Leaf]:
    """Dotted key -> leaf, of every setting in the dataclass `cls` and in the dataclasses inside it; of a part its name."""
    found: dict[str, Leaf] = {}
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, key = hints[field.name], prefix + field.name
        if not field.init:
            continue  # the state of a part
        if PartConfig in _alternatives(hint):
            found[f"{key}.name"] = Leaf(str | None if hint != PartConfig else str, dict(field.metadata))
        elif dataclasses.is_dataclass(hint):
            found.update(leaves(hint, f"{key}."))
        else:
            found[key] = Leaf(hint, dict(field.metadata))
    return found


def part_kinds(cls: type) -> dict[str, bool]:
    """The settings of a configuration class that choose a part of a method; True where they choose a list of them."""
    hints = get_type_hints(cls)
    return {
        name: hint == list[PartConfig]
        for name, hint in hints.items()
        if hint == list[PartConfig] or PartConfig in _alternatives(hint)
    }


def flat(config: "DataclassInstance") -> dict[str, Any]:
    """Dotted key -> value, of a configuration."""
    return {key: _lookup(config, key) for key in leaves(type(config))}


def check(config: "DataclassInstance") -> None:
    """Raise one UserError with all problems of a configuration made in Python, apart from the options of its parts."""
    raise_all(problems(config))


def problems(config: "DataclassInstance") -> list[UserError]:
    """All problems of a configuration made in Python, apart from the options of its parts."""
    return list(_misplaced(config)) or list(_inspect(config))


def _misplaced(config: "DataclassInstance") -> Iterator[UserError]:
    """Problems of values that stand where a dataclass of settings is wanted."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        hint, value = hints[field.name], getattr(config, field.name)
        kind = next((kind for kind in _alternatives(hint) if dataclasses.is_dataclass(kind)), None)
        if isinstance(kind, type) and not isinstance(value, _alternatives(hint)):
            yield UserError(field.name, f"must be a {kind.__name__}", f"give {kind.__name__}(name=...)", value=value)


def from_plain(cls: type[Config], plain: Any, prefix: str = "") -> Config:
    """Configuration that `plain` (nested dicts with string keys) describes; absent keys keep their defaults.

    An integer becomes a float where a float is wanted. Raises one UserError that carries every problem found, whose keys begin with
    `prefix`.
    """
    found: list[UserError] = []
    config: Any = _build(cls, plain, prefix, found)
    raise_all([*found, *_inspect(config, prefix)])
    return config


def to_plain(value: Any) -> Any:
    """Plain data (dicts, lists, scalars) of a configuration or of a value in one; an object of the user's own is its name."""
    if isinstance(value, PartConfig):
        return {"name": value.name, **to_plain(value.options)}
    if dataclasses.is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _lookup(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = None if config is None else getattr(config, part)
    return config


def _build(cls: Any, plain: Any, prefix: str, found: list[UserError]) -> Any:
    """Instance of `cls` whose values are not yet checked; unknown keys and misplaced values are added to `found`."""
    fields = [field.name for field in dataclasses.fields(cls) if field.init]
    if not isinstance(plain, dict):
        key = prefix.rstrip(".") or "configuration"
        found.append(UserError(key, "must be a mapping", f"its keys are {', '.join(fields)}", value=plain))
        return cls()
    hints = get_type_hints(cls)
    values = {}
    for key, value in plain.items():
        where = prefix + show(key, quote=False)
        if key not in fields:
            found.append(unknown_key(where, [prefix + name for name in fields]))
        elif hints[key] == list[PartConfig]:
            values[key] = _parts(value, where, found)
        elif PartConfig in _alternatives(hints[key]):
            values[key] = _part(value, where, found)
        elif dataclasses.is_dataclass(hints[key]):
            values[key] = _build(hints[key], value, f"{where}.", found)
        else:
            values[key] = _widen(hints[key], value)
    return cls(**values)


def _parts(plain: Any, key: str, found: list[UserError]) -> Any:
    """List of parts, from a list of names and mappings, or from a mapping name -> mapping, which the groups of conf/ make."""
    if isinstance(plain, dict):
        for name in [name for name, options in plain.items() if not isinstance(options, dict) or "name" not in options]:
            fix = f"add {key}=[{show(name, quote=False)}], or leave it out"
            found.append(
                UserError(f"{key}.{show(name, quote=False)}", "is set, but not chosen", fix, value=plain[name])
            )
        plain = [options for options in plain.values() if isinstance(options, dict) and "name" in options]
    return (
        [_part(part, f"{key}[{place}]", found) for place, part in enumerate(plain)]
        if isinstance(plain, list)
        else plain
    )


def _part(plain: Any, key: str, found: list[UserError]) -> Any:
    """Choice of a part, from a name or from a mapping with name and options; None, where there may be none, from no name."""
    if plain == {"name": None}:
        return None
    if isinstance(plain, dict) and "name" in plain:
        return PartConfig(plain["name"], {name: value for name, value in plain.items() if name != "name"})
    return plain if plain is None else PartConfig(plain)


def unknown_key(key: str, known: list[str]) -> UserError:
    """Error for a key that no configuration has, with the nearest valid one, or with the reason why there is none."""
    endings = [name for name in known if name.rpartition(".")[2] == key]
    if len(endings) != 1 and spelled(key) in MISSING:
        reason, fix = MISSING[spelled(key)]
        return UserError(key, f"unknown key: {reason}", fix)
    close = endings if len(endings) == 1 else ours(key, known)
    if not close and (found := nearest(key, known)):
        close = [found]
    return UserError(key, "unknown key", f"{or_words(close)}--help lists all keys")


def _widen(hint: Any, value: Any) -> Any:
    """Value with integers as floats where the hint wants floats, so that `lr=1` and `lr=1.0` are the same configuration."""
    for kind in _alternatives(hint):
        if kind is float and type(value) is int and abs(value) < 2**1023:
            return float(value)
        if get_origin(kind) is list and isinstance(value, list):
            return [_widen(get_args(kind)[0], item) for item in value]
    return value


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _kind(hint: Any) -> Any:
    """Type that a hint names besides None."""
    return next(kind for kind in _alternatives(hint) if kind is not type(None))


def _inspect(config: "DataclassInstance", prefix: str = "") -> Iterator[UserError]:
    """Problems of an instance; relations are checked only between values that are right by themselves."""
    values, wrong = {prefix + key: value for key, value in flat(config).items()}, set()
    for key, leaf in leaves(type(config), prefix).items():
        for problem in _value_problems(leaf.hint, values[key], leaf.limits, key):
            wrong.add(key)
            yield problem
    for relation in RELATIONS:
        if all(key in values and key not in wrong for key in relation.keys) and not relation.holds(
            *(values[key] for key in relation.keys)
        ):
            yield UserError(relation.keys[0], relation.reason, relation.fix, value=values[relation.keys[0]])


def _value_problems(hint: Any, value: Any, limits: dict, key: str) -> Iterator[UserError]:
    kinds = _alternatives(hint)
    if value is None and type(None) in kinds:
        return
    kind = _kind(hint)
    if kind is Any:  # checked by whom it is for
        return
    origin = get_origin(kind) or kind
    accepted = {float: (int, float), list: (list, tuple)}.get(origin, origin)
    if origin is PartConfig:
        name = value.name if isinstance(value, PartConfig) else value
        yield from _value_problems(str, name, limits, key)
    elif not isinstance(value, accepted) or (isinstance(value, bool) and origin is not bool):
        yield _wrong(key, f"must be {NOUNS[origin]}", value, hint, limits)
    elif origin is list:
        for place, item in enumerate(value if get_args(kind) else ()):
            yield from _value_problems(get_args(kind)[0], item, limits, f"{key}[{place}]")
    elif origin is dict:
        for name, item in value.items():
            yield from _value_problems(get_args(kind)[1], item, limits, f"{key}.{show(name, quote=False)}")
    elif origin is str:
        if not value or "\0" in value:
            yield _wrong(key, "must not be empty or hold a NUL character", value, hint, limits)
        elif limits.get("choices") and value not in limits["choices"]:
            yield choice(key, value, limits["choices"])
    elif origin in (int, float):
        yield from _number_problems(hint, value, limits, key)


def _number_problems(hint: Any, value: float, limits: dict, key: str) -> Iterator[UserError]:
    low, above, high = limits.get("low"), limits.get("above"), limits.get("high")
    if float in _alternatives(hint) and not (abs(value) < 2**1023 and math.isfinite(value)):
        yield _wrong(key, "must be finite", value, hint, limits)
    elif low is not None and value < low:
        yield _wrong(key, f"must be at least {low}", value, hint, limits)
    elif above is not None and value <= above:
        yield _wrong(key, f"must be above {above}", value, hint, limits)
    elif high is not None and value > high:
        yield _wrong(key, f"must be at most {high}", value, hint, limits)


def _wrong(key: str, reason: str, value: Any, hint: Any, limits: dict) -> UserError:
    return UserError(key, reason, f"give {describe(hint, limits)}", value=value)


def describe(hint: Any, limits: dict) -> str:
    """Values that a setting accepts, in words: `an integer of at least 1, or null`."""
    kind = _kind(hint)
    if limits.get("choices"):
        text = f"one of {', '.join(limits['choices'])}"
    elif get_origin(kind) is list:
        item = get_args(kind)[0]
        text = f"a list of {PLURALS.get(item, 'values')}{_range(limits)}, e.g. [{EXAMPLES.get(item, '...')}]"
    else:
        text = NOUNS[get_origin(kind) or kind] + _range(limits)
    return f"{text}, or null" if type(None) in _alternatives(hint) else text


EXAMPLES = {int: "1,2", float: "0.5,0.9", str: "a,b", PartConfig: "a,b"}


def _range(limits: dict) -> str:
    low, above, high = limits.get("low"), limits.get("above"), limits.get("high")
    parts = [f"of at least {low}"] if low is not None else [f"above {above}"] if above is not None else []
    if high is not None:
        parts.append(f"{'and ' if parts else ''}at most {high}")
    return " " + " ".join(parts) if parts else ""
