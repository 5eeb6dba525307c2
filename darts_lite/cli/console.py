"""The reporter of the command line: a live bar with the time left on a terminal, plain lines everywhere else."""

import sys
import time
from typing import Any

from darts_lite.errors import printable
from darts_lite.runs.report import Pace, Plain, duration, warn, writable


def create() -> Any:
    """Reporter that suits stdout. rich is imported only for a terminal."""
    return Rich() if sys.stdout.isatty() else Plain()


class Rich:
    """A progress bar below the lines; same interface as Plain."""

    def __init__(self) -> None:
        from rich.console import Console, OverflowMethod
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
        from rich.table import Column
        from rich.text import Text

        self.stream = stream = sys.stdout  # a live display replaces it by one that hides its encoding
        overflow: OverflowMethod = "ellipsis" if writable("\u2026", stream) == "\u2026" else "crop"

        class Words(ProgressColumn):
            """The description, in one line: the only column that gives way where a terminal is narrow."""

            def render(self, task: Any) -> Text:
                return Text(writable(printable(task.description), stream), no_wrap=True, overflow=overflow)

        self.pace = Pace(time.monotonic)
        # Live display captures stderr only where stderr is the same terminal: a redirected one must get its lines.
        self.bar = Progress(
            BarColumn(bar_width=12, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", style="progress.remaining"),
            Words(table_column=Column(no_wrap=False)),
            console=Console(highlight=False, soft_wrap=True),
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        )
        self.task: Any = None

    def line(self, text: str) -> None:
        """One line on stdout, above the bar."""
        self.bar.console.print(writable(text, self.stream), markup=False, highlight=False, soft_wrap=True)

    def warning(self, text: str) -> None:
        """One line on stderr."""
        warn(text)

    def progress(self, done: int, total: int, text: str) -> None:
        """`done` of `total` steps; may be called at every step (the bar is drawn ten times a second)."""
        left = f"{time_left(self.pace.left(done, total))} left"
        if self.task is None:
            self.bar.start()
            self.task = self.bar.add_task(text, total=total, left=left)
        self.bar.update(self.task, completed=done, total=total, description=text, left=left)

    def close(self) -> None:
        """Take the bar away and give the terminal back."""
        self.bar.stop()


def time_left(seconds: float | None) -> str:
    """Seconds as h:mm:ss, and as many places while nothing is known."""
    return "-:--:--" if seconds is None else duration(seconds)
