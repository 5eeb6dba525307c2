"""Settings: a plain dict becomes a dataclass, and every wrong type, range and relation in it is found at once.

The command line and the Python API are checked by the same code; nothing here knows torch or Hydra.

    config = from_plain(SearchConfig, {"epochs": 3})      # raises UserError; its `problems` are all there are
    check(SearchConfig(lr=-1))                            # the same for an instance made in Python
    to_plain(config)                                      # back to dicts, lists and scalars
"""

import dataclasses
import math
import types
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from darts_lite.errors import UserError, all_of, choice, nearest, show
from darts_lite.settings.elsewhere import MISSING, or_words, ours, spelled
from darts_lite.settings.relations import RELATIONS

Config = TypeVar("Config")

NOUNS = {int: "an integer", float: "a number", bool: "true or false", str: "text", list: "a list", dict: "a mapping"}
PLURALS = {int: "integers", float: "numbers", bool: "true or false", str: "names"}


class Leaf(NamedTuple):
    """One setting of a configuration class."""

    hint: Any
    limits: dict[str, Any]  # the metadata of `option`


def leaves(cls: Any, prefix: str = "") -> dict[str, Leaf]:
    """Dotted key -> leaf, of every setting in the dataclass `cls` and in the dataclasses inside it."""
    found: dict[str, Leaf] = {}
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            found.update(leaves(hint, f"{prefix}{field.name}."))
        else:
            found[prefix + field.name] = Leaf(hint, dict(field.metadata))
    return found


def flat(config: Any) -> dict[str, Any]:
    """Dotted key -> value, of a configuration."""
    return {key: _lookup(config, key) for key in leaves(type(config))}


def check(config: Any) -> None:
    """Raise one UserError with everything that is wrong with a configuration made in Python."""
    error = all_of(_misplaced(config)) or all_of(_inspect(config, objects=True))
    if error:
        raise error


def _misplaced(config: Any) -> Iterator[UserError]:
    """What stands where a dataclass of settings is wanted."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        hint, value = hints[field.name], getattr(config, field.name)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and not isinstance(value, hint):
            kind = hint.__name__
            yield UserError(field.name, f"must be a {kind}", f"give {kind}(name=...)", value=value)


def from_plain(cls: type[Config], plain: Any) -> Config:
    """The configuration that `plain` (nested dicts with string keys) describes; absent keys keep their defaults.

    An integer becomes a float where a float is wanted. Raises one UserError that carries every problem found.
    """
    problems: list[UserError] = []
    config = _build(cls, plain, "", problems)
    error = all_of([*problems, *_inspect(config, objects=False)])
    if error:
        raise error
    return config


def to_plain(config: Any) -> dict[str, Any]:
    """Nested dicts, lists and scalars; an object of the user's own is written as the name of its class or function."""
    hints = get_type_hints(type(config))
    return {field.name: _plain(hints[field.name], getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(hint: Any, value: Any) -> Any:
    """By the hint, not by what the value is: an object of the user's own may be a dataclass, a tuple or a number, too."""
    if dataclasses.is_dataclass(hint) and dataclasses.is_dataclass(value):
        return to_plain(value)
    kinds = _alternatives(hint)
    if value is None or isinstance(value, str) or (Any not in kinds and isinstance(value, (bool, int, float))):
        return value
    if Any not in kinds and isinstance(value, (list, tuple, dict)):
        inside = next((get_args(kind)[-1] for kind in kinds if get_args(kind)), None)
        if isinstance(value, dict):
            return {key: _plain(inside, item) for key, item in value.items()}
        return [_plain(inside, item) for item in value]
    named = value if isinstance(value, (type, types.FunctionType)) else type(value)
    return f"<{named.__module__}.{named.__qualname__}>"


def _lookup(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def _build(cls: Any, plain: Any, prefix: str, problems: list[UserError]) -> Any:
    """An instance whose values are not yet checked; unknown keys and misplaced values are added to `problems`."""
    if not isinstance(plain, dict):
        keys = ", ".join(field.name for field in dataclasses.fields(cls))
        problems.append(
            UserError(prefix.rstrip(".") or "configuration", "must be a mapping", f"its keys are {keys}", value=plain)
        )
        return cls()
    hints = get_type_hints(cls)
    values = {}
    for key, value in plain.items():
        hint = hints.get(key)
        if hint is None:
            problems.append(unknown_key(prefix + show(key, quote=False), [prefix + name for name in hints]))
        elif dataclasses.is_dataclass(hint):
            values[key] = _build(hint, value, f"{prefix}{key}.", problems)
        else:
            values[key] = _widen(hint, value)
    return cls(**values)


def unknown_key(key: str, known: list[str]) -> UserError:
    """The error for a key that no configuration has, with the nearest valid one, or what there is instead."""
    endings = [name for name in known if name.rpartition(".")[2] == key]
    if len(endings) != 1 and spelled(key) in MISSING:
        reason, fix = MISSING[spelled(key)]
        return UserError(key, f"unknown key: {reason}", fix)
    close = endings if len(endings) == 1 else ours(key, known)
    if not close and (found := nearest(key, known)):
        close = [found]
    return UserError(key, "unknown key", f"{or_words(close)}--help lists all keys")


def _widen(hint: Any, value: Any) -> Any:
    """Integers as floats where the hint wants floats, so that `lr=1` and `lr=1.0` are the same configuration."""
    for kind in _alternatives(hint):
        if kind is float and type(value) is int and abs(value) < 2**1023:
            return float(value)
        if get_origin(kind) is list and isinstance(value, list):
            return [_widen(get_args(kind)[0], item) for item in value]
    return value


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _inspect(config: Any, objects: bool) -> Iterator[UserError]:
    """Every problem of an instance; relations are asked only of values that are right by themselves."""
    values, wrong = flat(config), set()
    for key, leaf in leaves(type(config)).items():
        for problem in _value_problems(leaf.hint, values[key], leaf.limits, key, objects):
            wrong.add(key)
            yield problem
    for relation in RELATIONS:
        if all(key in values and key not in wrong for key in relation.keys) and not relation.holds(
            *(values[key] for key in relation.keys)
        ):
            yield UserError(relation.keys[0], relation.reason, relation.fix, value=values[relation.keys[0]])


def _value_problems(hint: Any, value: Any, limits: dict, key: str, objects: bool) -> Iterator[UserError]:
    kinds = _alternatives(hint)
    if value is None and type(None) in kinds:
        return
    if Any in kinds and objects and not isinstance(value, str) and value is not None:
        return  # an object of the user's own
    kind = next(kind for kind in kinds if kind not in (Any, type(None)))
    origin = get_origin(kind) or kind
    accepted = {float: (int, float), list: (list, tuple)}.get(origin, origin)
    if not isinstance(value, accepted) or (isinstance(value, bool) and origin is not bool):
        yield _wrong(key, f"must be {NOUNS[origin]}", value, hint, limits)
    elif origin is list:
        for place, item in enumerate(value if get_args(kind) else ()):
            yield from _value_problems(get_args(kind)[0], item, limits, f"{key}[{place}]", objects)
    elif origin is dict:
        for name, item in value.items():
            yield from _value_problems(get_args(kind)[1], item, limits, f"{key}.{show(name, quote=False)}", objects)
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
    """What a setting accepts, in words: `an integer of at least 1, or null`."""
    kinds = _alternatives(hint)
    kind = next(kind for kind in kinds if kind not in (Any, type(None)))
    if limits.get("choices"):
        text = f"one of {', '.join(limits['choices'])}"
    elif get_origin(kind) is list:
        item = next(item for item in _alternatives(get_args(kind)[0]) if item is not Any)
        text = f"a list of {PLURALS.get(item, 'values')}{_range(limits)}, e.g. [{EXAMPLES.get(item, '...')}]"
    else:
        text = NOUNS[get_origin(kind) or kind] + _range(limits)
    return f"{text}, or null" if type(None) in kinds else text


EXAMPLES = {int: "1,2", float: "0.5,0.9", str: "a,b"}


def _range(limits: dict) -> str:
    low, above, high = limits.get("low"), limits.get("above"), limits.get("high")
    parts = [f"of at least {low}"] if low is not None else [f"above {above}"] if above is not None else []
    if high is not None:
        parts.append(f"{'and ' if parts else ''}at most {high}")
    return " " + " ".join(parts) if parts else ""
