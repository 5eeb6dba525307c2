"""Which samples belong to which part: drawn class by class, from a seed or from names. Neither files nor torch are needed."""

import hashlib
from collections.abc import Sequence

import numpy as np

from darts_lite.seeds import derive


def split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint, sorted int64 index arrays that together cover `labels` (N,), drawn class by class.

    The first gets round(n_c * fraction) of the n_c images of class c; both get at least one when n_c >= 2.
    """
    first = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        random = np.random.default_rng(derive(seed, "split", int(label)))
        first[random.permutation(members)[: _share(len(members), fraction)]] = True
    return np.flatnonzero(first), np.flatnonzero(~first)


def held_out(names: Sequence[bytes], labels: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """(rest, held out): sorted int64 index arrays like `split`'s, but the names with the smallest hashes are held out.

    No seed, so that every run has the same test part; a sample that is added or removed moves at most one other of its class.
    """
    hashes = np.array([hashlib.sha256(name).digest()[:16] for name in names], dtype="S16")
    out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        out[members[np.argsort(hashes[members], kind="stable")][: _share(len(members), fraction)]] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def commonest(labels: np.ndarray) -> float:
    """Share of the commonest class among `labels` (N,), N > 0: the accuracy of a classifier that always says it."""
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def permuted(labels: np.ndarray, seed: int) -> np.ndarray:
    """`labels` (N,) in an order of the seed: as many of each class as before, and no signal."""
    return np.random.default_rng(derive(seed, "permuted labels")).permutation(labels)


def _share(members: int, fraction: float) -> int:
    number = int(members * fraction + 0.5)
    return min(max(number, 1), members - 1) if members >= 2 else number
