"""The choice of a part of a method, by name and options: what is typed, stored and compared (no torch here).

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
    """A part by its name in a table of methods/, with options; or a part of the user's own, which is stored as `<its class>`."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    own: Any = field(default=None, compare=False, repr=False)  # the object given from Python, whatever it is

    @classmethod
    def of(cls, given: Any) -> Any:
        """The choice that a name or an object stands for; None, which chooses nothing, stays None."""
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
