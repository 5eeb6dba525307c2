"""TensorBoard as a view: all that it shows is in the lines of a run's metrics.jsonl and alphas.jsonl, so it can be made again.

A `Board` begins by removing the event files of earlier sessions and replaying these lines; a resumed run therefore shows what an
uninterrupted one shows, without duplicates. A line of metrics: the tags in `values`, `time/...`, and where it has a `genotype` that
changed, that as text and each changed cell as a picture. A line of alphas: `alphas/<cell>/<source>-><target>/<operation>`, and edge
weights as `edges/<cell>/<source>-><target>`.

Events are written by hand (one a line, flushed) rather than by SummaryWriter, whose thread would report a full disk late or never.
"""

import io
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from darts_lite.drawing import cells as drawing
from darts_lite.errors import Exit, UserError
from darts_lite.genotypes.genotype import Genotype, from_plain, to_json
from darts_lite.runs.alphas import from_record
from darts_lite.spaces import space_of
from darts_lite.spaces.table import Table
from darts_lite.storage.files import make_folders, refusing
from darts_lite.storage.json_lines import JsonLines

_NUMBERS = itertools.count()


class Board:
    """The event file of one run; `tables` (cell type -> Table) of a search name the rows and columns of its alphas.

    Raises UserError: 4 for a line that does not fit, 6 when the disk refuses.
    """

    def __init__(
        self, folder: Path, metrics: JsonLines, alphas: JsonLines, tables: dict[str, Table] | None = None
    ) -> None:
        self.folder, self._tables = folder, tables or {}
        self._metrics_file, self._alphas_file = metrics.path, alphas.path
        self._shown: Genotype | None = None
        self._open()
        try:
            for record in metrics.read():
                self.metrics(record)
            for record in alphas.read():
                self.alphas(record)
        except BaseException:
            self.close()
            raise

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Show a line of metrics.jsonl: {"step": int, "values": {tag: number}, "time": {name: seconds}, "genotype": optional}.

        `time.wall` (seconds since 1970) becomes the wall time of the event. What is no number is left out.
        """
        times = _mapping(record.get("time"))
        wall = times.get("wall")
        scalars = {str(tag): value for tag, value in _mapping(record.get("values")).items()}
        scalars |= {f"time/{name}": value for name, value in times.items() if name != "wall"}
        self._scalars(_step(record), scalars, wall if _is_number(wall) else None)
        if "genotype" in record:
            with self._fitting(self._metrics_file):
                genotype = from_plain(record["genotype"])
            self.genotype(_step(record), genotype)

    def alphas(self, record: dict[str, Any]) -> None:
        """Show a line of alphas.jsonl, see `runs.alphas`."""
        with self._fitting(self._alphas_file):
            tables, mixing = from_record(record, self._tables)
        scalars = {}
        for cell, table in tables.items():
            weights, edges = mixing[cell].operations.tolist(), mixing[cell].edges
            names = [f"{cell}/{source}->{target}" for source, target in table.edges]
            for row, column in table.alive.nonzero().tolist():
                scalars[f"alphas/{names[row]}/{table.operations[column]}"] = weights[row][column]
            if edges is not None:
                scalars |= {f"edges/{name}": weight for name, weight in zip(names, edges.tolist(), strict=True)}
        self._scalars(_step(record), scalars)

    def genotype(self, step: int, genotype: Genotype) -> None:
        """Show a genotype as text and its cells as pictures, as far as they differ from what was shown last."""
        if genotype == self._shown:
            return
        text = "".join(f"    {line}\n" for line in to_json(genotype).splitlines())  # Markdown: a code block
        values = [_text("genotype", text)]
        for name, cell in genotype.cells.items():
            if self._shown is None or self._shown.cells.get(name) != cell:
                values.append(_image(f"cells/{name}", space_of(genotype).picture(cell, name, drawing.raster)))
        self._shown = genotype
        self._write(step, values)

    def settings(self, config: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """The settings (dotted key -> value) for the HPARAMS page, which compares runs by the scalar tags `metrics`."""
        from torch.utils.tensorboard.summary import hparams

        known = {
            key: value if isinstance(value, (bool, int, float, str)) else str(value)
            for key, value in config.items()
            if value is not None
        }
        for summary in hparams(known, dict.fromkeys(metrics, 0.0)):
            self._write(0, list(summary.value))

    def close(self) -> None:
        """Close the event file; every record is in it already."""
        self._file.close()

    @contextmanager
    def _fitting(self, file: Path) -> Iterator[None]:
        """Inside, what fails is a line of `file`, which may come from anywhere."""
        try:
            yield
        except (ArithmeticError, ValueError, UserError) as error:
            fix = "restore the file, or start a new run"
            raise UserError(file, f"a line does not fit: {error}", fix, code=Exit.RUN) from error

    def _open(self) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        make_folders(self.folder)
        # A new name each time: a TensorBoard that is looking remembers how far it has read the old one.
        name = f"events.out.tfevents.{time.time():.6f}.{next(_NUMBERS)}"
        with refusing(self.folder):
            for old in self.folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._file = open(self.folder / name, "xb")  # noqa: SIM115
        self._writer = RecordWriter(self._file)
        self._event(file_version="brain.Event:2")

    def _scalars(self, step: int, scalars: Mapping[str, Any], wall: float | None = None) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items() if _is_number(value)]
        if values:
            self._write(step, values, wall)

    def _write(self, step: int, values: list[Any], wall: float | None = None) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._event(step=step, summary=Summary(value=values), wall_time=wall)

    def _event(self, **parts: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        if parts.get("wall_time") is None:
            parts["wall_time"] = time.time()
        with refusing(self.folder):
            self._writer.write(Event(**parts).SerializeToString())
            self._writer.flush()


def _text(tag: str, text: str) -> Any:
    from torch.utils.tensorboard import summary

    return summary.text(tag, text).value[0]


def _image(tag: str, picture: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="PNG")
    image = Summary.Image(
        height=picture.height, width=picture.width, colorspace=3, encoded_image_string=buffer.getvalue()
    )
    return Summary.Value(tag=tag, image=image)


def _step(record: Mapping[str, Any]) -> int:
    step = record.get("step")
    return step if type(step) is int and 0 <= step < 2**63 else 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 3e38  # the largest float32
