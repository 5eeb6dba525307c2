"""Small files in the formats of the published data sets, and a server that hands them out."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading
from dataclasses import replace

import numpy as np

from darts_lite.data import published

TRAIN, TEST = 40, 20  # images


def images(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def old_pickle(value):
    """A pickle as Python 2 wrote it (protocol 2, text as bytes, old names of numpy), of dicts, lists, str, int and uint8 arrays."""
    return b"\x80\x02" + _old(value) + b"."


def _old(value):
    if isinstance(value, dict):
        return b"}(" + b"".join(_old(item) for pair in value.items() for item in pair) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_old, value)) + b"e"
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode("latin-1")
    if isinstance(value, np.ndarray):
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"(" + b"".join(map(_old, value.shape)) + b"t"
        columns = value.ndim > 1 and value.flags.f_contiguous
        raw = value.tobytes("F" if columns else "C")
        return (
            empty
            + b"(K\x01"
            + shape
            + dtype
            + (b"\x88T" if columns else b"\x89T")
            + struct.pack("<i", len(raw))
            + raw
            + b"tb"
        )
    if value is True or value is False:
        return b"\x88" if value else b"\x89"
    return b"J" + struct.pack("<i", value) if isinstance(value, int) else b"G" + struct.pack(">d", value)


def idx(array, magic=None):
    magic = 2048 + array.ndim if magic is None else magic
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def batch(rows, labels, key="labels", /, **changes):
    plain = {"batch_label": "a batch", key: [int(label) for label in labels], "data": rows, "filenames": ["a.png"]}
    return {name: value for name, value in (plain | changes).items() if value is not None}


def cifar(name, **changes):
    """File name -> bytes, of a set of 40 and 20 images; `changes` are made in the batch of the test part."""
    files = {}
    source = published.PUBLISHED[name]
    key = "labels" if name == "cifar10" else "fine_labels"
    parts = [file for file in source.files if file.holds == "train"]
    for number, file in enumerate(source.files):
        count = TRAIN // len(parts) if file.holds == "train" else TEST
        labels = (np.arange(count) + (2 if file.holds == "train" else 0)) % 10
        plain = batch(images(count, 3072, seed=number), labels, key, **(changes if file.holds == "test" else {}))
        files[file.name] = old_pickle(plain)
    return files


def mnist(side=28, **changes):
    """Array name -> array, as the four idx files hold them."""
    return {
        "x_train": images(TRAIN, side, side),
        "y_train": np.arange(TRAIN, dtype=np.uint8) % 10,
        "x_test": images(TEST, side, side, seed=1),
        "y_test": np.arange(TEST, dtype=np.uint8) % 10,
    } | changes


def mnist_files(packed=False, **changes):
    """File name -> bytes; a change may also be the bytes themselves."""
    names = {file.holds: file.name for file in published.PUBLISHED["mnist"].files}
    files = {names[name]: value if isinstance(value, bytes) else idx(value) for name, value in mnist(**changes).items()}
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()} if packed else files


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def md5(content):
    return hashlib.md5(content).hexdigest()


def trust(monkeypatch, name, files, address="http://127.0.0.1:9/", packages=None):
    """Make the MD5 sums of `files` the published ones, and of `packages` (name -> bytes) those of what is downloaded."""
    source = published.PUBLISHED[name]
    changed = tuple(replace(file, md5=file.md5 and md5(files[file.name])) for file in source.files)
    downloads = tuple(
        replace(package, addresses=(f"{address}{package.name}",), md5=md5((packages or {}).get(package.name, b"")))
        for package in source.downloads
    )
    monkeypatch.setitem(published.PUBLISHED, name, replace(source, files=changed, downloads=downloads))


def tar(folder, files):
    """The bytes of a .tar.gz with `files` in `folder`."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


@contextlib.contextmanager
def server(files, cut=()):
    """Serve `files` (name -> bytes) on this machine; those in `cut` end after half of what was announced."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET(body=False)

        def do_GET(self, body=True):
            name = self.path.lstrip("/")
            if name not in files:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(files[name])))
            self.end_headers()
            if body:
                asked.append(name)
                self.wfile.write(files[name][: len(files[name]) // 2] if name in cut else files[name])

        def log_message(self, *args):
            pass

    asked = []
    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=functools.partial(host.serve_forever, 0.01), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{host.server_port}/", asked
    finally:
        host.shutdown()
        host.server_close()
