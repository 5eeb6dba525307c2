"""Append-only files of JSON lines: the record of a run, from which every view of it is rebuilt."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from darts_lite.errors import Exit, UserError
from darts_lite.storage.files import append_line, refusing

LINE_LIMIT = 2**24  # bytes of one line that is read back


class JsonLines:
    """One JSON object a line. A checkpoint stores `size`, so that a resumed run goes on at exactly that byte."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def size(self) -> int:
        """Length in bytes; 0 when there is no file yet."""
        with refusing(self.path, "cannot be read"):
            try:
                return os.lstat(self.path).st_size
            except FileNotFoundError:
                return 0

    def append(self, record: dict[str, Any]) -> None:
        """Add one line; it has reached the operating system when this returns. Raises UserError (environment).

        Numbers must be finite (JSON has no others): a ValueError here is a bug of the caller.
        """
        append_line(self.path, json.dumps(record, allow_nan=False, separators=(", ", ": ")))

    def sync(self) -> None:
        """Make what was appended durable; done before a checkpoint that refers to it."""
        if self.size == 0:
            return
        with refusing(self.path), open(self.path, "rb") as file:
            os.fsync(file.fileno())

    def check(self, offset: Any) -> None:
        """Refuse (exit code 4) an offset outside the file, or anything but JSON lines before it. Changes nothing."""
        if type(offset) is not int or not 0 <= offset <= self.size:
            reason = f"the checkpoint refers to byte {offset!r} of it, and it has {self.size}"
            raise UserError(self.path, reason, "restore the file, or start a new run", code=Exit.RUN)
        for _ in self.read(offset):
            pass

    def truncate(self, offset: int) -> None:
        """Drop what was written after `offset` (bytes). Raises UserError."""
        if self.size > offset:
            with refusing(self.path), open(os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b") as file:
                file.truncate(offset)
                os.fsync(file.fileno())

    def read(self, end: int | None = None) -> Iterator[dict[str, Any]]:
        """The records, up to byte `end`; UserError (exit code 4) at a line that is not one JSON object."""
        rest = self.size if end is None else end
        if rest == 0:
            return
        with refusing(self.path, "cannot be read"):
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            number = 0
            while rest > 0:
                number += 1
                line = file.readline(min(rest, LINE_LIMIT))
                rest -= len(line)
                yield self._parse(line, number)

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not line.endswith(b"\n"):
            fix = "restore the file, or start a new run"
            raise UserError(self.path, f"line {number} is not one JSON object", fix, code=Exit.RUN)
        return record


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
