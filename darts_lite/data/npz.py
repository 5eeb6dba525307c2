"""A NumPy archive of the user's own: `dataset=npz dataset.path=my.npz` with x_train, y_train, x_test, y_test.

Images are uint8 (N, H, W) or (N, H, W, C), labels integers (N,) or (N, 1). x_val and y_val may be there too, and `class_names`, text
(classes,), in which labels are then places. MedMNIST's names (train_images, train_labels, ...) are read as well. The file is untrusted:
nothing is ever unpickled, and what the zip directory says of sizes is held against the memory before anything is unpacked.
"""

import os
import zipfile

import numpy as np

from darts_lite.data.dataset import ARRAYS, OPTIONAL, Dataset, assemble, check_class_names
from darts_lite.data.files import check_memory, damage, data_error, open_regular
from darts_lite.settings.datasets import DatasetConfig

_WRITE = "write it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"
_MISSING = "check dataset.path; a relative path starts in the working directory"
MEDMNIST = {
    f"{axis}_{part}": f"{part}_{kind}"
    for part in ("train", "val", "test")
    for axis, kind in (("x", "images"), ("y", "labels"))
}
NAMES = "class_names"


def load(config: DatasetConfig) -> Dataset:
    """The data set of the archive at `config.path`. Raises UserError (DATA); the key is the path, or path:array."""
    path = os.fspath(config.path or "")
    with open_regular(path, "the .npz file", _MISSING) as file, damage(path, _WRITE):
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise data_error(path, "is not an .npz archive, or only the beginning of one", _WRITE) from error
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        published = "x_train" not in members and MEDMNIST["x_train"] in members
        called = MEDMNIST if published else {name: name for name in ARRAYS + OPTIONAL}
        wanted = ARRAYS + OPTIONAL if any(called[name] in members for name in OPTIONAL) else ARRAYS
        if missing := [called[name] for name in wanted if called[name] not in members]:
            reason = f"missing: {', '.join(missing)}; the archive has {', '.join(sorted(members))[:60] or 'nothing'}"
            raise data_error(f"{path}:{missing[0]}", reason, _WRITE)
        sources = {name: called[name] for name in wanted} | ({NAMES: NAMES} if NAMES in members else {})
        check_memory(sum(members[source].file_size for source in sources.values()), path)
        arrays = {name: _read(archive, members[source], f"{path}:{source}") for name, source in sources.items()}
    class_names = _class_names(arrays.pop(NAMES), f"{path}:{NAMES}") if NAMES in arrays else None
    return assemble("npz", arrays, config, path, class_names, called=called)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, key: str) -> np.ndarray:
    """One array of the archive, row by row in memory. Its CRC-32 is checked when the stream has ended."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may take memory as they like
        raise data_error(key, "unknown compression", "write it with numpy.savez or numpy.savez_compressed")
    with damage(key, "copy or write the file again, as arrays of plain numbers"), archive.open(info) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):
            raise ValueError("it goes on after the values of its header")
    return np.asarray(array, order="C")


def _class_names(names: np.ndarray, key: str) -> list[str]:
    """The names of the classes. Raises UserError (DATA) unless they are distinct, and text that can be written down."""
    if names.dtype.kind not in "US" or names.ndim != 1 or len(names) < 2 or not names.nbytes:
        fix = "store them as numpy.array([...]) of text, in the order of the labels 0, 1, 2, ..."
        raise data_error(key, "must be the names of at least two classes", fix, value=f"{names.dtype} {names.shape}")
    with damage(key, "store plain text"):
        texts = [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
    check_class_names(texts, key)
    return texts
