"""Spearman's rank correlation."""

import random

import numpy as np
import pytest

from darts_lite.runs.ranks import spearman


def test_spearman():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(3**0.5 / 2)  # ranks 1.5, 1.5, 3 and 1, 2, 3
    assert spearman([5, 5, 5], [1, 2, 3]) is None and spearman([], []) is None
    rng = random.Random(0)
    a, b = ([rng.random() for _ in range(30)] for _ in range(2))
    squares = sum((sorted(a).index(x) - sorted(b).index(y)) ** 2 for x, y in zip(a, b, strict=True))
    assert spearman(a, b) == pytest.approx(1 - 6 * squares / (30 * (30**2 - 1)))
    assert spearman(np.array([1, 2, 3]), np.array([10, 20, 99])) == pytest.approx(1)
    assert spearman(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    # ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: covariance 4.5, variances 4.5 and 5
    assert spearman(np.array([1, 2, 2, 5]), np.array([1, 2, 3, 4])) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert spearman(np.array([1, 1]), np.array([1, 2])) is None and spearman(np.array([1]), np.array([1])) is None
