"""The field's form of a genotype as data, wherever its programs leave it: an argument, a file, a line of a log (no torch here).

    # found on Monday
    from genotypes import Genotype
    DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=...)
    DARTS = DARTS_V2

Blanks, line breaks and comments may stand anywhere, and words and numbers (a time stamp, say) before a genotype. Nothing is ever evaluated
or imported; whatever else stands there is refused, with its line and column.
"""

import contextlib
import re
from dataclasses import dataclass
from typing import Any

from darts_lite.errors import UserError
from darts_lite.genotypes.schema import MOST_NODES, SPACE_RULES, refuse_deep

MOST_CHARACTERS = 65_536  # tokens take some hundred times the memory of their text
LONGEST_NUMBER = 18  # digits

_TOKEN = re.compile(
    r"""(?P<blank>(?:\s|\\\r?\n|\#[^\n]*)+)
      | (?P<string>'[^']*'|"[^"]*")
      | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
      | (?P<name>[^\W\d]\w*)
      | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_BEFORE = frozenset(":=,./|-+[]%")  # signs that may stand in front of a genotype in a line of a log
_CONSTANTS = {"True": True, "False": False, "None": None}
_WRAPPERS = ("list", "tuple", "int", "int32", "int64")  # list(range(2, 6)), np.int64(2)


@dataclass(frozen=True)
class Definition:
    """One `Genotype(...)` in a text: its named arguments, the name that it is assigned to ("" where there is none), and its line."""

    arguments: dict[str, Any]
    name: str
    line: int


def definitions(text: str, key: object = "genotype") -> tuple[list[Definition], str | None]:
    """Definitions in a text, in order, and the last name that stands for another one, or None. Raises UserError with line and column."""
    if len(text) > MOST_CHARACTERS:
        raise UserError(key, f"is text of {len(text):,} characters", f"give at most {MOST_CHARACTERS:,}, or JSON")
    return _Reader(text, key).everything()


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int


class _Reader:
    """A text as tokens, and the next one that is to be read."""

    def __init__(self, text: str, key: object):
        self.text, self.key, self.next = text, key, 0
        self.tokens = [
            _Token(match.lastgroup or "", match[0], match.start())
            for match in _TOKEN.finditer(text)
            if match.lastgroup != "blank"
        ]
        self.tokens.append(_Token("end", "", len(text)))
        refuse_deep("".join(token.text for token in self.tokens if token.kind == "sign"), key)

    # Tokens

    def at(self, *texts: str) -> bool:
        """Whether exactly these names and signs come next."""
        found = self.tokens[self.next : self.next + len(texts)]
        return [token.text for token in found if token.kind in ("name", "sign")] == list(texts)

    def at_kind(self, kind: str, ahead: int = 0) -> bool:
        return self.next + ahead < len(self.tokens) and self.tokens[self.next + ahead].kind == kind

    def take(self) -> _Token:
        token = self.tokens[self.next]
        if token.kind != "end":
            self.next += 1
        return token

    def taken(self, *texts: str) -> bool:
        """Whether these come next; then they are passed."""
        there = self.at(*texts)
        self.next += len(texts) if there else 0
        return there

    def line(self, token: _Token) -> int:
        return self.text.count("\n", 0, token.start) + 1

    def wrong(self, reason: str, number: int | None = None) -> UserError:
        """The error about token `number` (the next one), with the expression that begins there."""
        number = min(self.next if number is None else number, len(self.tokens) - 1)
        token, last, depth = self.tokens[number], number, 0
        for place in range(number, len(self.tokens) - 1):
            sign = self.tokens[place].text
            if depth == 0 and place > number and (sign in (",", ";") or sign in _CLOSING.values()):
                break
            depth += (sign in _CLOSING) - (sign in _CLOSING.values())
            last = place
            if self.tokens[place].start > token.start + 60:
                break
        shown = self.text[token.start : self.tokens[last].start + len(self.tokens[last].text)][:60]
        where = f"line {self.line(token)}, column {token.start - self.text.rfind(chr(10), 0, token.start)}"
        form = "Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=...)"
        return UserError(self.key, f"is not a genotype ({where}: {reason})", f"write {form} or JSON", value=shown)

    # Statements

    def everything(self) -> tuple[list[Definition], str | None]:
        found: list[Definition] = []
        alias = None
        while not self.at_kind("end"):
            if self.taken(";") or self.skipped():
                continue
            alias = self.alias()
            if alias is None:
                found.append(self.definition(alone=not found))
        if not found and alias is None:
            raise self.wrong("no Genotype( ... ) is there")
        return found, alias

    def skipped(self) -> bool:
        """Whether something stood here that defines no genotype: an import, a text, the type itself, a list of names; it is passed."""
        before = self.next
        for part in (lambda: self.take().kind == "string", self.an_import, self.the_type, self.a_list_of_names):
            with contextlib.suppress(UserError):
                if part():
                    return True
            self.next = before
        return False

    def an_import(self) -> bool:
        if self.taken("from"):
            self.dotted()
        if not self.taken("import"):
            return False
        if self.taken("*"):
            return True
        bracket = self.taken("(")
        while True:
            self.dotted()
            if self.taken("as"):
                self.dotted()
            if not self.taken(","):
                break
        return not bracket or self.taken(")")

    def the_type(self) -> bool:
        if not self.taken("Genotype", "="):
            return False
        return self.dotted() == "namedtuple" and self.at("(") and self.brackets()

    def a_list_of_names(self) -> bool:
        if not (self.at_kind("name") and self.tokens[self.next + 1].text == "=") or self.bare():
            return False
        self.next += 2
        value = self.value()
        return isinstance(value, list) and all(isinstance(name, str) for name in value)

    def brackets(self) -> bool:
        """Whether the bracket that opens here is closed; it is passed."""
        depth = 0
        while not self.at_kind("end"):
            text = self.take().text
            depth += (text in _CLOSING) - (text in _CLOSING.values())
            if depth == 0:
                return True
        return False

    def dotted(self) -> str:
        """The last name of `a.b.c`, which is passed."""
        while self.at_kind("name"):
            name = self.take().text
            if not self.taken("."):
                return name
        raise self.wrong("a name was expected")

    def alias(self) -> str | None:
        """OTHER of `NAME = OTHER` on a line of its own, which is passed."""
        before = self.next
        if self.at_kind("name") and self.tokens[self.next + 1].text == "=" and self.at_kind("name", 2):
            self.next += 2
            target = self.dotted()
            last, after = self.tokens[self.next - 1], self.tokens[self.next]
            if after.kind == "end" or after.text == ";" or (after.text != "(" and self.line(after) > self.line(last)):
                return target
        self.next = before
        return None

    def bare(self) -> bool:
        """Whether the arguments of a genotype come next, without a `Genotype(` around them."""
        return any(self.at(name, "=") for name in ("normal", "normal_concat", "reduce", "reduce_concat"))

    def definition(self, *, alone: bool) -> Definition:
        """The genotype that comes next, behind anything that a log writes before it."""
        first = self.next
        if alone and self.bare():
            arguments = self.arguments("end")
            return Definition(arguments, "", self.line(self.tokens[first]))
        while not self.at("Genotype", "("):
            token = self.take()
            if token.kind not in ("name", "number") and token.text not in _BEFORE:
                fits = "only genotypes, comments, imports and other names for them may stand here"
                raise self.wrong(fits, first if token.kind == "end" or token.text == "(" else self.next - 1)
        opening = self.next
        while self.tokens[opening - 1].text == "." and opening - 2 >= first:  # genotypes.Genotype
            opening -= 2
        named = opening - 2 >= first and self.tokens[opening - 1].text in ("=", ":")
        name = self.tokens[opening - 2].text if named and self.tokens[opening - 2].kind == "name" else ""
        line = self.line(self.tokens[self.next])
        self.next += 2
        return Definition(self.arguments(")"), name, line)

    # Values

    def arguments(self, last: str) -> dict[str, Any]:
        """Named values up to a bracket, or to the end."""
        values: dict[str, Any] = {}
        opening = self.next - 1
        while not self.taken(last) and not (last == "end" and self.at_kind("end")):
            if self.at_kind("end"):
                raise self.wrong("this bracket is never closed", opening)
            if not (self.at_kind("name") and self.tokens[self.next + 1].text == "="):
                raise self.wrong("a name and = were expected, such as normal=")
            name = self.take().text
            self.take()
            if name in values:
                raise UserError(f"{self.key} {name}", "is given twice", "leave one of them out")
            values[name] = self.value()
            if not (self.taken(",") or self.at(last) or self.at_kind("end")):
                raise self.wrong("a comma was expected")
        return values

    def value(self) -> Any:
        """Strings, numbers, lists, tuples and `range(a, b)` as data; anything else is refused."""
        first, token = self.next, self.take()
        if token.kind == "string":
            return re.sub(r"\s*\n\s*", "", token.text[1:-1]).strip()
        if token.kind == "number" or (token.text == "-" and self.at_kind("number")):
            sign = 1 if token.kind == "number" else -1
            return sign * self.number(token if sign == 1 else self.take())
        if token.text in ("(", "["):
            return self.items(token.text, first)
        if token.kind == "name":
            if token.text in ("u", "b") and self.at_kind("string"):
                return self.value()
            if token.text in _CONSTANTS:
                return _CONSTANTS[token.text]
            if token.text == "range" and self.at("("):
                return self.span(first)
            self.next = first
            if self.dotted() in _WRAPPERS and self.taken("("):
                value = self.value()
                if self.taken(")"):
                    return value
        raise self.wrong("only strings, integers, lists, pairs and range(2, 6) may stand here", first)

    def number(self, token: _Token) -> int | float:
        if token.text.isdecimal():
            if len(token.text) <= LONGEST_NUMBER:
                return int(token.text)
            raise self.wrong("a number of so many digits", self.next - 1)
        return float(token.text)

    def items(self, opening: str, first: int) -> Any:
        """Values in a bracket; the value itself where round ones hold just one and no comma, as in Python."""
        values, comma = [], False
        while not self.taken(_CLOSING[opening]):
            if self.at_kind("end"):
                raise self.wrong("this bracket is never closed", first)
            values.append(self.value())
            comma = self.taken(",")
            if not comma and not self.at(_CLOSING[opening]) and not self.at_kind("end"):
                raise self.wrong(f"a comma or {_CLOSING[opening]} was expected")
        return values[0] if opening == "(" and len(values) == 1 and not comma else values

    def span(self, start: int) -> list[int]:
        """The integers of `range(first, last)`, which may be nodes."""
        self.take()
        if self.at_kind("number") and self.at_kind("number", 2) and self.tokens[self.next + 1].text == ",":
            first = self.number(self.take())
            self.take()
            last = self.number(self.take())
            if (
                self.taken(")")
                and type(first) is type(last) is int
                and 0 <= first < last <= SPACE_RULES["darts"].inputs + MOST_NODES
            ):
                return list(range(first, last))
        raise self.wrong("only strings, integers, lists, pairs and range(2, 6) may stand here", start)
