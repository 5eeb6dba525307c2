"""Choices of a part of a method, by name and options: these are typed, stored and compared (no torch here).

    relaxation=gumbel relaxation.start=5                     the shell
    SearchConfig(relaxation=PartConfig("gumbel", {"start": 5.0}))
    SearchConfig(relaxation=Gumbel(start=5.0))               the part itself, also one of the user's own

`methods.build` finds the part of a name, checks the options against its ranges and adds those that were not given.
"""

import types
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PartConfig:
    """Name of a part in a table of methods/, with options; an object of the user's own has its class as name, in angle brackets."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    own: Any = field(default=None, compare=False, repr=False)  # the object given from Python, whatever it is

    @classmethod
    def of(cls, given: Any) -> Any:
        """Choice that a name or an object stands for; None, which chooses nothing, stays None."""
        if given is None or isinstance(given, PartConfig):
            return given
        if isinstance(given, str):
            return cls(given)
        named = given if isinstance(given, (type, types.FunctionType)) else type(given)
        return cls(f"<{named.__module__}.{named.__qualname__}>", own=given)

    @property
    def is_own(self) -> bool:
        """Whether the part is an object from Python, which no name can bring back."""
        return str(self.name).startswith("<")
