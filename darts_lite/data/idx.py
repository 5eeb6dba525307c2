"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017): 28x28 grey images, 60,000 to train and 10,000 to test.

An idx file is a big-endian header, `0 0 8 d` and d lengths of four bytes, then uint8 values; here it may also be gzipped. The
header is held against the size of the file before memory is taken, so the files need no hash: nothing in them acts.
"""

import gzip
import math
import os
import struct
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from darts_lite.data.dataset import Dataset
from darts_lite.data.files import check_memory, damage, open_regular
from darts_lite.data.published import AGAIN, File, actual, load_published
from darts_lite.settings.datasets import DatasetConfig

UINT8 = 8  # the idx code of the type of values
DEFLATE_LIMIT = 1032  # bytes that one byte of a gzip file can stand for, at most (zlib's technical notes)
_CHUNK = 1 << 22  # bytes read at once


def load(config: DatasetConfig) -> Dataset:
    """Images uint8 (N, 28, 28, 1). Raises UserError: DATA for the files, ENVIRONMENT for their download."""

    def read(path: Path, file: File) -> dict[str, np.ndarray]:
        return {file.holds: read_idx(actual(path, file) or path, dimensions=3 if file.holds[0] == "x" else 1)}

    return load_published(config, read)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array in a file, which is gzipped if it is named .gz. Raises UserError (DATA)."""
    with damage(path, AGAIN), open_regular(path, "the idx file", AGAIN) as file:
        packed = path.suffix == ".gz"
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
        header = stream.read(4 * (1 + dimensions))
        magic, *shape = struct.unpack(f">{1 + dimensions}I", header)
        if magic != (UINT8 << 8) + dimensions:
            raise ValueError(f"it does not begin as an idx file of uint8 in {dimensions} dimensions")
        size, held = math.prod(shape), os.fstat(file.fileno()).st_size
        if size > DEFLATE_LIMIT * held if packed else size != held - len(header):
            raise ValueError(f"{held} bytes cannot hold the {size} values of its header")
        check_memory(size, path)
        return _values(stream, size).reshape(shape)


def _values(stream: BinaryIO, size: int) -> np.ndarray:
    """Exactly `size` values, after which the stream ends (where gzip checks its CRC-32)."""
    values, position = np.empty(size, np.uint8), 0
    while piece := stream.read(_CHUNK):
        if position + len(piece) > size:
            raise ValueError(f"it goes on after the {size} values of its header")
        values[position : position + len(piece)] = np.frombuffer(piece, np.uint8)
        position += len(piece)
    if position != size:
        raise ValueError(f"it ends after {position} of {size} values")
    return values
