"""One contract for every penalty; beta decay by its formula."""

import pytest
import torch

from darts_lite.methods.penalties import PENALTIES
from darts_lite.methods.relaxations.softmax import Softmax
from darts_lite.methods.views import ArchitectureView, OperationCosts
from darts_lite.spaces.table import Table

ALIVE = torch.tensor([[1, 1, 0], [1, 1, 1]], dtype=torch.bool)
TABLES = {
    "normal": Table(((0, 2), (1, 2)), ("none", "a", "b"), torch.ones_like(ALIVE)),
    "reduce": Table(((0, 2), (1, 2)), ("none", "a", "b"), ALIVE),
}


def view(progress=0.5):
    """Random logits, their softmax, and costs of 1."""
    generator = torch.Generator().manual_seed(0)
    logits = {cell: torch.randn(2, 3, dtype=torch.float64, generator=generator).requires_grad_() for cell in TABLES}
    mixing = {cell: Softmax().expected(one, TABLES[cell], torch.tensor(progress)) for cell, one in logits.items()}
    costs = dict.fromkeys(TABLES, OperationCosts(torch.ones(2, 3), torch.ones(2, 3)))
    return ArchitectureView(logits, mixing, mixing, TABLES, costs, torch.tensor(progress, dtype=torch.float64))


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_a_penalty_is_a_finite_number_with_a_gradient_of_the_living(name, progress):
    seen = view(progress)
    penalty = PENALTIES[name]()(seen)
    assert penalty.shape == () and penalty.isfinite() and torch.equal(penalty, PENALTIES[name]()(view(progress)))
    for cell, gradient in zip(TABLES, torch.autograd.grad(penalty, list(seen.logits.values())), strict=True):
        assert gradient.isfinite().all() and not gradient[~TABLES[cell].alive].any()


def test_beta_decay_by_hand():
    """lambda * mean over the four edges of log sum exp(alpha); its gradient is lambda / 4 * softmax(alpha)."""
    seen = view(0.25)
    found = PENALTIES["beta_decay"](start=2.0, end=10.0)(seen)
    rows = [
        one.exp()[row][TABLES[cell].alive[row]].sum().log() for cell, one in seen.logits.items() for row in range(2)
    ]
    torch.testing.assert_close(found, 4.0 * sum(rows) / 4, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(found, list(seen.logits.values()))
    for gradient, mixing in zip(gradients, seen.mixing.values(), strict=True):
        torch.testing.assert_close(gradient, 4.0 / 4 * mixing, rtol=0, atol=1e-12)


def test_its_weight_goes_from_0_to_50():
    weights = [
        float((PENALTIES["beta_decay"]()(view(p)) / PENALTIES["beta_decay"](1.0, 1.0)(view(p))).detach())
        for p in (0, 0.5, 1)
    ]
    assert weights == pytest.approx([0, 25, 50])
