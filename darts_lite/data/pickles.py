"""Read what a pickle says, without doing it: containers, text, numbers and arrays of bytes, as in the batches of CIFAR.

`pickletools` splits the bytes into opcodes and executes none of them. The stack machine below knows those that build plain
data; the three names that numpy's arrays need become a `Stand`, and every other name or opcode is refused. Nothing is
imported or called, whatever the file asks for.
"""

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

RECONSTRUCT, ARRAY, DTYPE = "numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


@dataclass
class Stand:
    """What stands for a call that is not made: the name, its arguments, and the state that would have been set."""

    name: str
    arguments: Any = None
    state: Any = None


def read(content: bytes) -> Any:
    """The value of a pickle of protocol 0 to 2 (Python 2 wrote CIFAR's). Raises ValueError and other exceptions."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def marked() -> list[Any]:
        place = len(stack) - 1 - stack[::-1].index(_MARK)
        items = stack[place + 1 :]
        del stack[place:]
        return items

    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _TUPLES:
            split = len(stack) - _TUPLES[name]
            stack[split:] = [tuple(stack[split:])]
        elif name == "TUPLE":
            stack.append(tuple(marked()))
        elif name in ("EMPTY_LIST", "LIST"):
            stack.append([] if name == "EMPTY_LIST" else marked())
        elif name in ("APPEND", "APPENDS"):
            items = marked() if name == "APPENDS" else [stack.pop()]
            _extend(stack[-1], items)
        elif name in ("EMPTY_DICT", "DICT"):
            stack.append({} if name == "EMPTY_DICT" else _pairs(marked()))
        elif name in ("SETITEM", "SETITEMS"):
            items = marked() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            stack[-1].update(_pairs(items))
        elif name == "GLOBAL" and argument in (RECONSTRUCT, ARRAY, DTYPE):
            stack.append(Stand(argument))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(Stand(function.name, arguments))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].state = state
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            raise ValueError(f"it asks for {argument or name}, which is never done")
    raise ValueError("it has no end")


def array(value: Any) -> np.ndarray:
    """The uint8 array that a `Stand` describes. Raises ValueError and others unless it is one of bytes."""
    if not isinstance(value, Stand) or value.name != RECONSTRUCT:
        raise ValueError("there is no array where one should be")
    _, shape, kind, fortran, raw = value.state
    if kind.name != DTYPE or kind.arguments[0] != "u1":
        raise ValueError("the array is not one of uint8")
    return np.frombuffer(raw.encode("latin-1"), np.uint8).reshape(shape, order="F" if fortran else "C")


def _extend(target: Any, items: list[Any]) -> None:
    if type(target) is not list:
        raise ValueError("it appends to what is no list")
    target.extend(items)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))
