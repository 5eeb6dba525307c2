"""Plain data as YAML text for people to read (it is never read back): block style for keys, JSON scalars and lists."""

import json
import math
import re
from typing import Any

_PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}  # YAML 1.1 takes these for values


def to_yaml(value: dict[str, Any], indent: int = 0) -> str:
    """`value` (nested dicts of lists and scalars) as a YAML document that loads to the same data."""
    if not value and indent == 0:
        return "{}\n"
    lines = []
    for key, entry in value.items():
        key = str(key)
        name = key if _PLAIN_KEY.fullmatch(key) and key.lower() not in _WORDS else _flow(key)
        if isinstance(entry, dict) and entry:
            lines.append(f"{' ' * indent}{name}:\n{to_yaml(entry, indent + 2)}")
        else:
            lines.append(f"{' ' * indent}{name}: {_flow(entry)}\n")
    return "".join(lines)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(str(key))}: {_flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(entry) for entry in value) + "]"
    if isinstance(value, float):
        if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        # YAML 1.1 reads 1e-05 as text; 1.0e-05 is a number.
        mantissa, mark, exponent = repr(value).partition("e")
        return f"{mantissa if '.' in mantissa else mantissa + '.0'}{mark}{exponent}"
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
