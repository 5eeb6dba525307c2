"""TensorBoard as a view: all that it shows is computed from the records of a run, so it can be made again.

A `Board` begins by removing the event files of earlier sessions and replaying the records; a resumed run therefore
shows what an uninterrupted one shows, without duplicates. Scalars, a logged step or epoch: the tags in `values`, and
`time/...`. An epoch of a search: `alphas/<cell>/<source>-><target>/<operation>`, `edges/...` (edge weights),
`entropy/...` in nats, `skips/<cell>`; and when it has changed, the genotype as text and each changed cell as a picture.

Events are written by hand (one a record, flushed) rather than by SummaryWriter, whose thread would report a full disk
late or never.
"""

import io
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_lite.drawing import cells as drawing
from darts_lite.errors import Exit, UserError
from darts_lite.genotypes.genotype import Genotype, to_json
from darts_lite.spaces import space_of
from darts_lite.storage.files import make_folders, refused
from darts_lite.storage.records import Records

Edges = Mapping[str, Sequence[tuple[int, int]]]  # cell -> (source, target) of each row
Operations = Mapping[str, Sequence[str]]  # cell -> name of each column

_NUMBERS = itertools.count()


class Board:
    """The event file of one run. `edges`, `operations`, `discretize` (alphas record -> Genotype): for a search.

    Raises UserError: 4 for a record that does not fit, 6 when the disk refuses.
    """

    def __init__(
        self,
        folder: Path,
        metrics: Records,
        alphas: Records | None = None,
        *,
        edges: Edges | None = None,
        operations: Operations | None = None,
        discretize: Callable[[dict[str, Any]], Genotype] | None = None,
    ):
        self.folder = folder
        self._edges, self._operations, self._discretize = edges or {}, operations or {}, discretize
        self._shown: Genotype | None = None
        self._alphas_file = alphas.path if alphas else None
        self._open()
        for record in metrics.read():
            self.metrics(record)
        for record in alphas.read() if alphas else ():
            self.alphas(record)

    def metrics(self, record: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl: {"step": int, "values": {tag: number}, "time": {name: seconds}}.

        `time.wall` (seconds since 1970) becomes the wall time of the event. What is no number is left out.
        """
        times = _mapping(record.get("time"))
        wall = times.get("wall")
        scalars = {str(tag): value for tag, value in _mapping(record.get("values")).items()}
        scalars |= {f"time/{name}": value for name, value in times.items() if name != "wall"}
        self._scalars(_step(record), scalars, wall if _is_number(wall) else None)

    def alphas(self, record: Mapping[str, Any]) -> None:
        """A line of alphas.jsonl: {"step": int, "mixing": {cell: {"operations": (E, O), "edges": (E) or null}}}."""
        scalars: dict[str, Any] = {}
        for cell, edges in self._edges.items():
            mixing = _mapping(_mapping(record.get("mixing")).get(cell))
            operations = self._operations[cell]
            rows: Any = mixing.get("operations")
            weights: Any = mixing.get("edges")
            if not _fits(rows, weights, len(edges), len(operations)):
                fix = "restore the file, or start a new run"
                raise UserError(self._alphas_file, f"a record does not fit the cell {cell}", fix, code=Exit.RUN)
            for (source, target), row in zip(edges, rows, strict=True):
                edge = f"{cell}/{source}->{target}"
                scalars |= {f"alphas/{edge}/{name}": value for name, value in zip(operations, row, strict=True)}
                scalars[f"entropy/{edge}"] = entropy(row)
            for (source, target), weight in zip(edges, weights, strict=True) if weights else ():
                scalars[f"edges/{cell}/{source}->{target}"] = weight
        genotype = self._discretize(dict(record)) if self._discretize else None
        for cell, graph in genotype.cells.items() if genotype else ():
            scalars[f"skips/{cell}"] = sum(edge.operation == "skip_connect" for edge in graph.edges)
        self._scalars(_step(record), scalars)
        if genotype:
            self.genotype(_step(record), genotype)

    def genotype(self, step: int, genotype: Genotype) -> None:
        """Genotype as text and its cells as pictures, as far as they differ from what was shown last."""
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

    def _open(self) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        make_folders(self.folder)
        # A new name each time: a TensorBoard that is looking remembers how far it has read the old one.
        name = f"events.out.tfevents.{time.time():.6f}.{next(_NUMBERS)}"
        try:
            for old in self.folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._file = open(self.folder / name, "xb")  # noqa: SIM115
        except OSError as error:
            raise refused(self.folder, error) from error
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
        try:
            self._writer.write(Event(**parts).SerializeToString())
            self._writer.flush()
        except OSError as error:
            raise refused(self.folder, error) from error


def entropy(row: Sequence[float | None]) -> float:
    """Entropy in nats of one edge's mixing, dead candidates (None) aside; 0 where it has decided. Sigmoids are normalized first."""
    weights = [value for value in row if value]
    total = sum(weights)
    shares = [value / total for value in weights if value > 0] if total > 0 else []
    return -sum(share * math.log(share) for share in shares) + 0.0  # + 0.0: no negative zero


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


def _fits(rows: Any, weights: Any, edges: int, operations: int) -> bool:
    """Whether untrusted lists have the shapes (E, O) and, if given, (E), and hold numbers."""
    if not isinstance(rows, list) or len(rows) != edges:
        return False
    if any(not isinstance(row, list) or len(row) != operations for row in rows):
        return False
    if not all(value is None or _is_number(value) for row in rows for value in row):  # None: out of the race
        return False
    return weights is None or (isinstance(weights, list) and len(weights) == edges and all(map(_is_number, weights)))
