"""The Triton kernels for CUDA: each against torch's operators in float64. Without a GPU they are interpreted on the CPU."""

import itertools
from math import prod

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

from darts_lite.operations.kernels.triton import depthwise, launch, matrices, mix, moments, pools
from darts_lite.operations.kernels.triton.matrices import Folded, Gradients, Scales, room

pytestmark = [pytest.mark.cuda] if torch.cuda.is_available() else []
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BF16 = torch.bfloat16


def planes(images, dtype=torch.float32):
    """(planes, N, C, H, W) as the kernels have them."""
    return images.permute(0, 1, 3, 4, 2).to(DEVICE, dtype).contiguous()


def images(planes):
    """And back, in float64."""
    return planes.permute(0, 1, 4, 2, 3).cpu().double()


def integers(*numbers):
    return torch.tensor(numbers, dtype=torch.int32, device=DEVICE)


def empty(*shape, dtype=torch.float32):
    return torch.empty(*shape, dtype=dtype, device=DEVICE)


def off(found, expected):
    """The largest error, as a part of the largest value."""
    return float((found.cpu().double() - expected.cpu()).abs().max() / expected.abs().max().clamp_min(1e-3))


def tolerance(dtype):
    return 1e-5 if dtype == torch.float32 else 1e-2  # the interpreter rounds towards zero


@pytest.fixture
def many_programs(monkeypatch):
    """Blocks so small that images take several."""
    monkeypatch.setattr(launch, "TILE", 1024)


KINDS = [
    (3, 1, 1),
    (5, 1, 1),
    (3, 1, 2),
    (5, 1, 2),
    (3, 2, 1),
    (5, 2, 2),
    (7, 1, 1),
    (1, 2, 1),
]  # kernel, stride, dilation
SIZES = [(1, 5, (4, 7)), (2, 20, (3, 2)), (1, 16, (1, 1))]  # images, channels, height and width


DEPTHWISE = [
    *((kind, SIZES[0], torch.float32) for kind in KINDS),
    *((kind, SIZES[0], BF16) for kind in KINDS[4:6]),
    *((kind, size, torch.float32) for kind in (KINDS[3], KINDS[5]) for size in SIZES[1:]),
]


@pytest.mark.parametrize(("kind", "size", "dtype"), DEPTHWISE)
def test_depthwise(kind, size, dtype):
    """Forward and both gradients; planes of one layer read sources in any order, some of them twice."""
    (kernel, stride, dilation), (n, c, (h, w)) = kind, size
    generator = torch.Generator().manual_seed(0)
    sources = [0, 2, 2]
    x = planes(torch.randn(3, n, c, h, w, generator=generator), dtype)
    weight = torch.randn(len(sources) * c, 1, kernel, kernel, generator=generator).to(dtype)
    read, learned = images(x).requires_grad_(), weight.double().requires_grad_()
    how = {"stride": stride, "padding": dilation * (kernel // 2), "dilation": dilation, "groups": c}
    expected = torch.stack(
        [F.conv2d(F.relu(read[s]), part, **how) for s, part in zip(sources, learned.chunk(3), strict=True)]
    )
    g = planes(torch.randn(expected.shape, generator=generator), dtype)
    expected.backward(images(g))

    y, kernels = torch.empty_like(g), weight.to(DEVICE)
    settings = {"stride": stride, "dilation": dilation}
    depthwise.forward(x, y, kernels, integers(*sources), read=2, **settings)
    assert off(images(y), expected.detach()) < tolerance(dtype)
    found = depthwise.weight_gradient(g, x, kernels, integers(*sources), read=2, **settings)
    assert found.dtype == torch.float32 and off(found, learned.grad) < 1e-5
    # The gradients of planes 0 and 2 are numbers 1 and 0 of what is added to.
    readers = integers(0, 2), integers(1, 0), integers(0, 1, 3), integers(0, 1, 2)
    for add in (True, False):
        of_x = torch.ones_like(x[:2])
        depthwise.input_gradient(g, of_x, x, kernels, readers, add=add, **settings)
        assert off(images(of_x), read.grad[[2, 0]] + add) < tolerance(dtype)


@pytest.mark.parametrize("wanted", ["most", "mean", "both"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_pools(wanted, stride, size):
    """Also where windows hold equal numbers: torch takes the first one."""
    n, c, (h, w) = size
    generator = torch.Generator().manual_seed(0)
    x = planes(torch.randn(2, n, c, h, w, generator=generator).round())
    read = images(x).requires_grad_()
    expected = {
        "most": torch.stack([F.max_pool2d(read[s], 3, stride, 1) for s in (1, 0)]),
        "mean": torch.stack([F.avg_pool2d(read[s], 3, stride, 1, count_include_pad=False) for s in (1, 0)]),
    }
    expected = {name: value for name, value in expected.items() if wanted in (name, "both")}
    g = {name: planes(torch.randn(value.shape, generator=generator)) for name, value in expected.items()}
    torch.autograd.backward(list(expected.values()), [images(one) for one in g.values()])
    made = {name: torch.empty_like(one) for name, one in g.items()}
    where = torch.empty_like(g["most"], dtype=torch.int8) if "most" in g else None
    pools.forward(x, made.get("most"), made.get("mean"), where, integers(1, 0), stride=stride)
    for name, value in expected.items():
        assert off(images(made[name]), value.detach()) < 1e-6
    of_x = torch.ones_like(x)
    pools.gradient(g.get("most"), g.get("mean"), of_x, where, integers(1, 0), stride=stride)
    assert off(images(of_x), read.grad + 1) < 1e-6


@pytest.mark.parametrize(
    ("c", "dtype", "bound"), [(5, torch.float32, 1e-5), (36, torch.float32, 1e-5), (16, BF16, 3e-3)]
)
def test_moments(c, dtype, bound, many_programs):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(2, 3, 5, 7, c, generator=generator) + 10 * torch.randn(c, generator=generator)).to(DEVICE, dtype)
    mean, covariance = empty(2, c), empty(2, c, c)
    moments.moments(x, mean, covariance)
    pixels = x.double().flatten(1, 3)
    centred = pixels - pixels.mean(1, keepdim=True)
    assert off(mean, pixels.mean(1)) < 1e-6
    assert off(covariance, centred.transpose(1, 2) @ centred / pixels.shape[1]) < bound


def test_a_mean_of_a_thousand_deviations_costs_no_digits(many_programs):
    x = torch.randn(1, 4, 8, 8, 16, generator=torch.Generator().manual_seed(0)).to(DEVICE) + 1000
    mean, covariance = empty(1, 16), empty(1, 16, 16)
    moments.moments(x, mean, covariance)
    pixels = x.double().flatten(1, 3)[0]
    assert off(covariance[0], torch.cov(pixels.T, correction=0)) < 1e-4
    # So the normalized output is exact, too.
    matrix = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    into = room(Folded, 1, 16, DEVICE)
    matrices.fold(matrix, (mean, covariance), Scales(None, None), None, integers(0), integers(1), into, eps=1e-5)
    y = torch.empty_like(x)
    mix.mix(x, y, mean, into, None, (integers(0), integers(-1), integers(0, 1), integers(0)), read=1)
    expected = F.batch_norm(pixels @ matrix[0].double().T, None, None, training=True)
    assert off(y.flatten(1, 3)[0], expected) < 1e-4


TERMS = {"planes": (0, 2, 2, 1), "targets": (0, 0, 1, 1), "edges": (0, -1, 1, 2)}  # plane 1 has no BatchNorm


@pytest.mark.parametrize("affine", [False, True], ids=["factors", "affine"])
@pytest.mark.parametrize(
    ("c", "dtype", "bound"), [(5, torch.float32, 2e-5), (36, torch.float32, 2e-5), (16, BF16, 2e-2)]
)
def test_mixed_sums(c, dtype, bound, affine, many_programs):
    """Two targets, each the sum of two terms, and all gradients; `keep` drops edges of samples, and spares one."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(DEVICE)

    x = (draw(3, 2, 5, 4, c) + draw(c)).to(dtype)
    matrix, keep = draw(4, c, c).to(dtype).float(), (draw(2, 3) > 0).float() * 2  # fmt: skip
    factor, weight, bias = (None, draw(4, c), draw(4, c)) if affine else (draw(4), None, None)
    normed = integers(1, 1, 1, 0)
    numbers, targets, edges = (integers(*TERMS[name]) for name in ("planes", "targets", "edges"))

    leaves = {"x": x, "matrix": matrix} | ({"weight": weight, "bias": bias} if affine else {"factor": factor})
    leaves = {name: leaf.double().requires_grad_() for name, leaf in leaves.items()}
    expected = torch.zeros(2, 2, 5, 4, c, dtype=torch.float64, device=DEVICE)
    for term, (plane, target, edge) in enumerate(zip(*TERMS.values(), strict=True)):
        y = leaves["x"][plane] @ leaves["matrix"][term].T
        if normed[term]:
            y = F.batch_norm(y.permute(0, 3, 1, 2), None, None, training=True).permute(0, 2, 3, 1)
        y = y * leaves["weight"][term] + leaves["bias"][term] if affine else y * leaves["factor"][term]
        share = 1 if edge < 0 else keep[:, edge, None, None, None].double()
        expected = torch.stack([one + y * share if i == target else one for i, one in enumerate(expected)])
    g = draw(*expected.shape).to(dtype)
    expected.backward(g.double())

    mean, covariance, into = empty(3, c), empty(3, c, c), room(Folded, 4, c, DEVICE)
    moments.moments(x, mean, covariance)
    mean[1] = 0
    scales = Scales(factor, weight)
    matrices.fold(matrix, (mean, covariance), scales, bias, numbers, normed, into, eps=1e-5)
    y = torch.empty_like(g)
    mix.mix(x, y, mean, into, keep, (numbers, edges, integers(0, 2, 4), integers(0, 1, 2, 3)), read=3)
    assert off(y, expected.detach()) < bound

    sums = moments.products(g, x, mean, keep, (targets, numbers, edges), read=5)
    of_planes = integers(0, 1, 2, 4), integers(0, 3, 1, 2)
    back = room(Gradients, 4, c, DEVICE)
    bent = matrices.unfold(sums, matrix, into, scales, normed, of_planes, back, pixels=prod(x.shape[1:4]))
    assert off(back.matrix, leaves["matrix"].grad) < bound
    if affine:
        assert off(back.scale, leaves["weight"].grad) < bound and off(back.shift, leaves["bias"].grad) < bound
    else:
        assert off(back.scale.sum(1), leaves["factor"].grad) < bound
    of_x = torch.empty_like(x)
    mix.unmix(g, x, of_x, mean, into, bent, keep, (integers(0, 1, 2), *of_planes, targets, edges), read=5)
    assert off(of_x, leaves["x"].grad) < bound


def test_a_factor_has_sixteen_bits_in_bf16():
    """A skip passes on a plane times its mixing weight: of the weight, rounded alone, 8 bits would be left."""
    x = torch.ones(1, 1, 4, 4, 16, dtype=BF16, device=DEVICE)
    factor = torch.tensor([0.1234567], device=DEVICE)
    into, y = room(Folded, 1, 16, DEVICE), empty(1, 1, 4, 4, 16)
    moved = empty(1, 16).zero_(), empty(1, 16, 16)
    matrices.fold(
        torch.eye(16, device=DEVICE)[None], moved, Scales(factor, None), None, integers(0), integers(0), into, eps=1e-5
    )
    mix.mix(x, y, moved[0], into, None, (integers(0), integers(-1), integers(0, 1), integers(0)), read=1)
    assert off(y, factor.double().expand_as(y)) < 2**-15


def test_a_block_holds_the_channels():
    assert [launch.matrix_block(c) for c in (1, 16, 17, 36, 144)] == [16, 16, 32, 32, 32]
    assert [launch.unit(c) for c in (1, 16, 36, 72, 144, 48)] == [1, 16, 4, 8, 16, 16]
    for pixels, block, others in itertools.product((1, 100, 65536), (64, 128), (1, 56, 4000)):
        size, number = launch.chunks(pixels, block, others)
        assert size % block == 0 and (number - 1) * size < pixels <= number * size


def test_what_is_launched_is_counted():
    x, kernels = empty(2, 1, 4, 4, 5).zero_(), empty(10, 1, 3, 3).zero_()
    with launch.counting() as ledger:
        depthwise.forward(x, torch.empty_like(x), kernels, integers(0, 0), read=1, stride=1, dilation=1)
    assert [one.kernel.__name__ for one in ledger.launches] == ["_forward"]
    assert ledger.bytes() == 3 * 80 * 4 and ledger.bytes(2) == 3 * 80 * 2, "one plane read, two written"
