"""One contract for every candidate operation, and the layers they are made of."""

import importlib
from contextlib import nullcontext

import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from darts_lite.benchmarking.reference import create_operation
from darts_lite.operations import NOISE, NONE, layers
from darts_lite.operations import OPERATIONS as EVERY
from darts_lite.operations.kernels import pointwise
from darts_lite.operations.kernels import pools as pooling
from darts_lite.operations.kernels.depthwise import depthwise
from darts_lite.operations.kernels.every_second import every_second
from darts_lite.operations.kernels.fold import folded
from darts_lite.operations.kernels.pointwise import pointwise_norm
from darts_lite.operations.kernels.pools import AveragePool
from darts_lite.operations.kernels.thresholds import LARGE, VECTOR, WIDEST
from darts_lite.operations.layers import FORMS, BatchNorm, DepthwiseSeparable, FactorizedReduce, tracking_statistics

CHANNELS = 4
OPERATIONS = {name: candidate for name, candidate in EVERY.items() if name != NOISE}  # which reads no image

every_operation = pytest.mark.parametrize("name", OPERATIONS)
every_stride = pytest.mark.parametrize("stride", [1, 2])
every_form = pytest.mark.parametrize("form", ["search", "final"])
some_copies = pytest.mark.parametrize("copies", [1, 3])


def build(name, stride, form="search", copies=1, channels=CHANNELS, activation=nn.ReLU):
    """An operation with random weights and running statistics, in float64."""
    operation = OPERATIONS[name].build(channels, stride, copies, FORMS[form], activation).double()
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for key, tensor in operation.state_dict().items():
            draw = torch.randn(tensor.shape, dtype=torch.float64, generator=generator)
            tensor.copy_(0.5 + draw.abs() if key.endswith("running_var") else draw)
    return operation


def draw(copies=1, size=(7, 6), channels=CHANNELS, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, copies * channels, *size, dtype=torch.float64, generator=generator)


def call(name, stride, operation, x, scale=None):
    """The scale is only for operations that edges do not share."""
    return operation(x) if OPERATIONS[name].shared(stride) else operation(x, scale)


@every_operation
@every_stride
@every_form
@pytest.mark.parametrize("size", [(7, 6), (1, 5), (8, 9)])
def test_an_operation_is_that_of_the_reference(name, stride, form, size):
    """Values and gradients; tensors are in the same order."""
    ours, x = build(name, stride, form), draw(size=size, batch=3).requires_grad_()
    theirs = create_operation(name, CHANNELS, stride, nn.ReLU, form == "final").double()
    names = [key for key in theirs.state_dict() if not key.endswith("num_batches_tracked")]
    theirs.load_state_dict(dict(zip(names, ours.state_dict().values(), strict=True)), strict=False)
    found = []
    for operation in (lambda x: call(name, stride, ours, nn.ReLU()(x) if ours.activated else x), theirs):
        outputs = operation(x)
        found.append(
            [outputs, *torch.autograd.grad((outputs * draw(size=outputs.shape[2:], batch=3, seed=2)).sum(), x)]
        )
    torch.testing.assert_close(*found, rtol=0, atol=1e-11)


def test_none_is_not_built():
    assert NONE not in OPERATIONS


@every_operation
@every_stride
@every_form
@some_copies
@pytest.mark.parametrize("channels", [2, 5])
def test_shape(name, stride, form, copies, channels):
    with torch.device("meta"):
        operation = OPERATIONS[name].build(channels, stride, copies, FORMS[form], nn.ReLU)
        for height, width in ((8, 8), (7, 6), (1, 5), (3, 3)):
            outputs = call(name, stride, operation, torch.empty(2, copies * channels, height, width))
            assert outputs.shape == (2, copies * channels, -(-height // stride), -(-width // stride))


@every_operation
@every_stride
@every_form
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_copies_are_independent(name, stride, form, training):
    """Changing the input of one copy changes the output of this copy alone."""
    copies = 3
    operation = build(name, stride, form, copies).train(training)
    x, other = draw(copies), draw(copies, seed=1)
    before = call(name, stride, operation, x).chunk(copies, 1)
    for i in range(copies):
        parts = list(x.chunk(copies, 1))
        parts[i] = other.chunk(copies, 1)[i]
        after = call(name, stride, operation, torch.cat(parts, 1)).chunk(copies, 1)
        assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [j != i for j in range(copies)]


@every_operation
@every_stride
@every_form
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("channels", [4, 5])
def test_a_copy_is_a_slice_of_every_tensor(name, stride, form, training, channels):
    """Copy i computes what a single operation does with slice i of dimension 0 of every parameter and buffer."""
    copies = 3
    stack = build(name, stride, form, copies, channels).train(training)
    single = build(name, stride, form, 1, channels).train(training)
    x = draw(copies, channels=channels)
    outputs = call(name, stride, stack, x).chunk(copies, 1)
    with tracking_statistics(stack):
        call(name, stride, stack, x)
    assert stack.state_dict().keys() == single.state_dict().keys()
    for i in range(copies):
        # Moved statistics are slices, too; in training they do not enter the output.
        source = build(name, stride, form, copies, channels)
        slices = {key: tensor.chunk(copies)[i] for key, tensor in source.state_dict().items()}
        assert all(tensor.shape == single.state_dict()[key].shape for key, tensor in slices.items())
        single.load_state_dict(slices)
        part = x.chunk(copies, 1)[i]
        torch.testing.assert_close(call(name, stride, single, part), outputs[i], rtol=0, atol=1e-12)
        with tracking_statistics(single):
            call(name, stride, single, part)
        for key, tensor in stack.state_dict().items():
            torch.testing.assert_close(single.state_dict()[key], tensor.chunk(copies)[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "stride"),
    [(name, stride) for name in OPERATIONS for stride in (1, 2) if not OPERATIONS[name].shared(stride)],
)
@every_form
@some_copies
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_scale_multiplies_the_output_of_each_copy(name, stride, form, copies, training):
    """Value, and gradients of the scale, of the input and of every parameter."""
    operation = build(name, stride, form, copies).train(training)
    x, scale = (
        draw(copies).requires_grad_(),
        torch.tensor([2.0, -0.5, 0.0], dtype=torch.float64)[:copies].requires_grad_(),
    )
    inputs = [x, scale, *operation.parameters()]

    def value_and_gradients(outputs):
        weight = draw(copies, outputs.shape[2:], seed=2)
        return outputs, *torch.autograd.grad((outputs * weight).sum(), inputs)

    inside = value_and_gradients(operation(x, scale))
    outside = value_and_gradients(operation(x) * scale.repeat_interleave(CHANNELS)[:, None, None])
    for found, expected in zip(inside, outside, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@every_operation
@every_stride
@every_form
def test_dtype_is_kept(name, stride, form):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        operation = build(name, stride, form).to(dtype)
        assert call(name, stride, operation, draw().to(dtype), torch.ones(1, dtype=dtype)).dtype == dtype


@every_operation
@every_stride
@every_form
def test_autocast_keeps_the_mixing_weights_from_widening_activations(name, stride, form):
    """bf16 activations stay bf16 under a float32 scale, and the scale's gradient is float32."""
    operation, scale = build(name, stride, form).float(), torch.ones(1, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = call(name, stride, operation, draw().bfloat16(), scale)
    assert outputs.dtype == torch.bfloat16
    if not OPERATIONS[name].shared(stride):
        outputs.sum().backward()
        assert scale.grad.dtype == torch.float32


@every_operation
@every_stride
@every_form
@some_copies
def test_channels_last_is_kept(name, stride, form, copies):
    """The fast memory format of convolutions, on CPU by a factor of five to ten."""
    operation = build(name, stride, form, copies).float().to(memory_format=torch.channels_last)
    x = draw(copies).float().contiguous(memory_format=torch.channels_last)
    outputs = call(name, stride, operation, x, torch.ones(copies))
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    assert not outputs.is_contiguous()


@every_operation
@every_stride
@every_form
def test_affine_parameters_and_what_is_shared(name, stride, form):
    """In the search form no BatchNorm is affine; what edges share has no parameter at all."""
    candidate, operation = OPERATIONS[name], build(name, stride, form)
    norms = [module for module in operation.modules() if isinstance(module, BatchNorm)]
    assert all((norm.weight is not None) == (norm.bias is not None) == (form == "final") for norm in norms)
    assert candidate.shared(stride) == (not list(operation.parameters()))
    convolutions = [module for module in operation.modules() if isinstance(module, nn.Conv2d)]
    assert all(convolution.bias is None for convolution in convolutions)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in operation.modules()), "ours alone can be held still"


@every_operation
@every_stride
def test_identity_says_so(name, stride):
    operation = build(name, stride)
    assert operation.identity == (name == "skip_connect" and stride == 1)
    if operation.identity:
        x = draw()
        assert operation(x) is x
    assert isinstance(operation.activated, bool)


@every_operation
@every_stride
@every_form
def test_the_activation_is_the_given_one(name, stride, form):
    operation = build(name, stride, form, activation=nn.SiLU)
    assert not any(isinstance(module, nn.ReLU) for module in operation.modules())


@every_operation
@every_stride
@every_form
def test_every_parameter_has_a_gradient(name, stride, form):
    operation = build(name, stride, form, 2)
    outputs = call(name, stride, operation, draw(2))
    (outputs * draw(2, outputs.shape[2:], seed=3)).sum().requires_grad_().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in operation.parameters())


# Layers ---------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_torchs(affine):
    ours, theirs = BatchNorm(4, affine=affine).double(), nn.BatchNorm2d(4, affine=affine).double()
    for seed in range(3):
        with tracking_statistics(ours):
            torch.testing.assert_close(ours(draw(seed=seed)), theirs(draw(seed=seed)), rtol=0, atol=1e-12)
    for buffer in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, buffer), getattr(theirs, buffer), rtol=0, atol=1e-12)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(draw()), theirs(draw()), rtol=0, atol=1e-12)


def test_batch_norm_scales_its_bias_too():
    norm = BatchNorm(2, copies=2, affine=True).double()
    with torch.no_grad():
        norm.bias.copy_(torch.arange(4.0))
    scale = torch.tensor([3.0, -1.0], dtype=torch.float64)
    expected = norm(draw()) * scale.repeat_interleave(2)[:, None, None]
    torch.testing.assert_close(norm(draw(), scale), expected, rtol=0, atol=1e-12)


def test_tracking_statistics_reaches_every_norm_and_ends():
    network = nn.Sequential(BatchNorm(4, affine=False), nn.Sequential(BatchNorm(4, affine=True)))
    with tracking_statistics(network):
        assert network[0].tracks and network[1][0].tracks
    assert not network[0].tracks and not network[1][0].tracks


@pytest.fixture(params=["cpu", "product"])
def convolved(request, monkeypatch):
    """How a pointwise convolution is computed: as on a CPU, or as one matrix product as on other devices."""
    monkeypatch.setattr(pointwise, "as_product", lambda x: request.param == "product")


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("c_out", [4, 2, 6])
def test_pointwise_norm_and_its_derivatives(c_out, groups, scaled, frozen, convolved):
    def draw(*shape):
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    x, weight, terms = draw(3, 4, 3, 2), draw(c_out, 4 // groups, 1, 1), (draw(c_out),) if scaled else ()
    running = torch.zeros(c_out, dtype=torch.float64), torch.ones(c_out, dtype=torch.float64)
    expected = [buffer.clone() for buffer in running]

    def ours(x, weight, scale=None, statistics=(None, None)):
        weight = weight.detach() if frozen else weight
        return pointwise_norm(x, weight, scale, statistics, groups=groups, momentum=0.1, eps=1e-5)

    inputs = (x, weight, *terms)
    theirs = F.batch_norm(F.conv2d(x, weight, groups=groups), *expected, *terms, training=True)
    torch.testing.assert_close(ours(*inputs, *([] if terms else [None]), running), theirs)
    torch.testing.assert_close(list(running), expected)
    if frozen:
        inputs = (x, *terms)
        function = lambda x, *terms: ours(x, weight, *terms)  # noqa: E731
    else:
        function = ours
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_pointwise_and_its_derivatives(groups, convolved):
    """Values, gradients, second derivatives; in channels_last."""
    torch.manual_seed(0)
    x = torch.randn(3, 8, 3, 2).double().contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(4, 8 // groups, 1, 1, dtype=torch.float64, requires_grad=True)
    outputs = pointwise.pointwise(x, weight, groups)
    torch.testing.assert_close(outputs, F.conv2d(x, weight, groups=groups), rtol=1e-12, atol=1e-12)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    for chosen in ((True, True), (True, False), (False, True)):
        inputs = [tensor.detach().requires_grad_(wanted) for tensor, wanted in zip((x, weight), chosen, strict=True)]
        assert torch.autograd.gradcheck(lambda x, w: pointwise.pointwise(x, w, groups), inputs)
        assert torch.autograd.gradgradcheck(lambda x, w: pointwise.pointwise(x, w, groups), inputs)


def test_a_product_is_no_convolution(monkeypatch):
    """Of stacked copies, forward and both gradients, alone and with BatchNorm."""
    monkeypatch.setattr(pointwise, "as_product", lambda x: True)
    settings = {"groups": 2, "momentum": 0.1, "eps": 1e-5}
    x, weight = draw().requires_grad_(), draw(channels=2, size=(1, 1), batch=4).requires_grad_()
    with tiny.Counting() as counting:
        (pointwise.pointwise(x, weight, 2) + pointwise_norm(x, weight, None, (None, None), **settings)).sum().backward()
    assert not any("convolution" in name for name in counting.calls)
    assert counting.calls["mm"] == 3 + 4  # with BatchNorm the backward pass convolves once more


def convolutions_in_a_second_derivative(function, x, weight):
    """Their number, with their gradients and with products of a batch of matrices."""
    inputs = x.requires_grad_(), weight.requires_grad_()
    first = torch.autograd.grad(function(*inputs).pow(3).sum(), inputs, create_graph=True)
    with tiny.Counting() as counting:
        torch.autograd.grad(sum(gradient.square().sum() for gradient in first), inputs)
    return sum(number for name, number in counting.calls.items() if "convolution" in name or name in ("mm", "bmm"))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_second_derivative_of_depthwise_has_no_loop_over_channels(device, stride, dilation):
    def number(channels):
        x, weight = torch.randn(2, channels, 8, 8, device=device), torch.randn(channels, 1, 3, 3, device=device)
        return convolutions_in_a_second_derivative(
            lambda x, weight: depthwise(x, weight, stride=stride, dilation=dilation), x, weight
        )

    assert number(2) == number(7) < 20


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_second_derivative_of_pointwise_has_no_loop_over_groups(device, norm):
    def number(groups):
        def function(x, weight):
            if not norm:
                return pointwise.pointwise(x, weight, groups)
            return pointwise_norm(x, weight, None, (None, None), groups=groups, momentum=0.1, eps=1e-5)

        x, weight = torch.randn(2, 3 * groups, 4, 4, device=device), torch.randn(3 * groups, 3, 1, 1, device=device)
        return convolutions_in_a_second_derivative(function, x, weight)

    assert number(2) == number(7) < 20


@pytest.mark.parametrize("size", [(5, 5), (4, 6), (2, 2), (1, 3)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("device", ["cpu", "other"])
def test_second_derivatives_of_depthwise(device, kernel, stride, dilation, size, monkeypatch):
    """Also through the kernels that other devices than a CPU use."""
    if device == "other":
        kernels = importlib.import_module("darts_lite.operations.kernels.depthwise")
        monkeypatch.setattr(kernels, "on_cpu", lambda x: False)
    torch.manual_seed(0)
    x, weight = torch.randn(2, 2, *size).double(), torch.randn(2, 1, kernel, kernel).double()
    for chosen in ((True, True), (True, False), (False, True)):
        inputs = [tensor.requires_grad_(wanted) for tensor, wanted in zip((x, weight), chosen, strict=True)]

        def function(x, weight):
            return depthwise(x, weight, stride=stride, dilation=dilation)

        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_with_dilation_and_stride_every_second_pixel_is_convolved():
    """On every device: a convolution of a quarter of the pixels, without dilation."""
    x, weight = torch.empty(2, 4, 8, 8, device="meta"), torch.empty(4, 1, 3, 3, device="meta")
    seen = []

    class Convolutions(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution.default:
                seen.append((args[0].shape, args[3], args[5]))
            return func(*args, **(kwargs or {}))

    with Convolutions():
        assert depthwise(x, weight, stride=2, dilation=2).shape == (2, 4, 4, 4)
    assert seen == [((2, 4, 4, 4), [1, 1], [1, 1])]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_no_gradient_for_what_takes_none(groups, scaled, frozen, precision, convolved):
    """Whatever an operator answers against its mask: the same gradients, and no error."""
    settings = {"groups": groups, "momentum": 0.1, "eps": 1e-5}
    x, weight = draw().float().requires_grad_(), draw(channels=4 // groups, size=(1, 1), batch=4).float()
    scale = torch.rand(4, requires_grad=True) if scaled else None
    inputs = [x, *([] if frozen else [weight.requires_grad_()]), *([scale] if scaled else [])]
    found = []
    for mode in (nullcontext(), tiny.Generous()):
        with mode:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                y = depthwise(x, torch.ones(4, 1, 3, 3), stride=1, dilation=1)
                y = pointwise_norm(y, weight, scale, (None, None), **settings) + pointwise.pointwise(y, weight, groups)
            assert y.dtype == precision
            found.append(torch.autograd.grad(y.float().pow(3).sum(), inputs))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("groups", [1, 2])
def test_pointwise_norm_in_bf16_is_what_autocast_makes(groups, convolved):
    """Also where the weights were not cast before, and in the backward pass, where autocast is not."""
    x, weight, scale, sign = (
        draw(batch=4).bfloat16(),
        draw(size=(1, 1), batch=4).float(),
        draw()[0, :, 0, 0].float(),
        draw(batch=4),
    )
    inputs = [tensor.requires_grad_() for tensor in (x, weight[:, : 4 // groups].contiguous(), scale)]

    def plain(x, weight, scale):
        return F.batch_norm(F.conv2d(x, weight, groups=groups), None, None, scale, None, training=True)

    def ours(x, weight, scale):
        return pointwise_norm(x, weight, scale, (None, None), groups=groups, momentum=0.1, eps=1e-5)

    found = []
    for function in (ours, plain):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = function(*inputs)
        found.append([outputs, *torch.autograd.grad(outputs, inputs, sign.bfloat16())])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * float(other.detach().abs().max()))


@pytest.mark.parametrize("given", [0, 1, 2])  # of scale and bias
def test_folded_and_its_derivatives(given):
    x, weight = draw(batch=3), draw(size=(1, 1), batch=5, seed=1)
    terms = draw(channels=2, size=(5, 1), batch=1, seed=2)[0, :given, :, 0].clone().unbind()
    shift, running = draw(seed=3)[0, :, 0, 0], (torch.zeros(5).double(), torch.ones(5).double())
    expected = [buffer.clone() for buffer in running]

    def ours(x, weight, scale=None, bias=None, statistics=(None, None)):
        return folded(x, weight, statistics, scale, bias, shift, momentum=0.1, eps=1e-5)

    theirs = F.batch_norm(F.conv2d(x + shift[:, None, None], weight), *expected, *terms, training=True)
    torch.testing.assert_close(ours(x, weight, *terms, statistics=running), theirs)
    torch.testing.assert_close(list(running), expected)
    inputs = (x, weight, *terms)
    for wanted in (range(4), [0], [1, 2, 3]):
        chosen = [tensor.detach().requires_grad_(i in wanted) for i, tensor in enumerate(inputs)]
        assert torch.autograd.gradcheck(ours, chosen)
        assert torch.autograd.gradgradcheck(ours, chosen)


@pytest.fixture
def foldings(monkeypatch):
    """Every image is a large one; what is folded then is noted."""
    noted = []
    monkeypatch.setattr(LARGE, "value", 1)
    monkeypatch.setattr(layers, "folded", lambda x, *rest, **settings: noted.append(x) or folded(x, *rest, **settings))
    return noted


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("size", [(7, 6), (1, 1)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_a_folded_layer_is_the_same_layer(stride, dilation, size, affine, foldings, monkeypatch):
    """Values, gradients, second derivatives, running statistics."""
    settings = {"stride": stride, "dilation": dilation, "copies": 1, "affine": affine}
    found = []
    for widest in (WIDEST.value, 0):
        monkeypatch.setattr(WIDEST, "value", widest)
        torch.manual_seed(0)
        layer, x = DepthwiseSeparable(4, 3, **settings).double(), (draw(size=size, batch=4) + 2).requires_grad_()
        for parameter in layer.norm.parameters():
            nn.init.normal_(parameter)
        scale = torch.tensor([-0.7], dtype=torch.float64, requires_grad=True)
        inputs = [x, scale, *layer.parameters()]
        with tracking_statistics(layer):
            outputs = layer(x, scale)
        loss = (outputs * draw(size=outputs.shape[2:], batch=4, seed=2)).sum()
        once = torch.autograd.grad(loss, inputs, retain_graph=True)
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        loss = sum(gradient.square().sum() for gradient in first)
        second = torch.autograd.grad(loss, inputs, materialize_grads=True)
        found.append([outputs, *once, *first, *second, *layer.buffers()])
    assert len(foldings) == 1
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10 * float(plain.detach().abs().max()))


def test_some_copies_of_a_stack_may_be_folded(foldings):
    """A stack of three, first two together, then the last one."""
    layer = DepthwiseSeparable(4, 3, stride=1, dilation=1, copies=3, affine=True).double()
    x, found = draw(3, batch=4), []
    for parts in ([(0, 2), (2, 3)], [(0, 3)]):
        layer.norm.running_mean.zero_(), layer.norm.running_var.fill_(1)
        with tracking_statistics(layer):
            outputs = torch.cat([layer(x[:, 4 * first : 4 * last], None, first) for first, last in parts], dim=1)
        found.append([outputs, *torch.autograd.grad(outputs.sin().sum(), layer.parameters()), *layer.buffers()])
        found[-1] = [tensor.clone() for tensor in found[-1]]
    assert len(foldings) == 1
    torch.testing.assert_close(*found)


def test_folding_is_exact_where_the_mean_is_a_thousand_deviations(foldings, monkeypatch):
    """In float32, where a covariance from plain sums of products would be lost."""
    layer = DepthwiseSeparable(4, 3, stride=1, dilation=1, copies=1, affine=True)
    with torch.no_grad():  # of the kernels only the middle, which meets no zeros beyond the border
        layer.depthwise.weight.mul_(0).select(2, 1).select(2, 1).fill_(1)
    x = (draw(size=(16, 16), batch=8) + 1000).float()
    exact = layer.double()(x.double())  # folded, too: exact enough in float64
    layer.float()

    def error():
        return float((layer(x) - exact).detach().abs().max())

    ours = error()
    monkeypatch.setattr(WIDEST, "value", 0)
    plain = error()
    monkeypatch.undo()
    monkeypatch.setattr(LARGE, "value", 1)
    monkeypatch.setattr(layers, "likely_mean", lambda x, weight: x.new_zeros(4))
    assert ours < 2 * plain < 0.01 < error()


@pytest.mark.parametrize(
    ("folds", "channels", "case"),
    [
        (True, 4, "frozen"),
        (True, 4, "search form"),
        (False, 4, "several"),
        (False, 4, "autocast"),
        (False, 4, "eval"),
        (False, WIDEST.value + 1, ""),
        (True, VECTOR.value, ""),
        (False, VECTOR.value, "frozen"),
        (False, VECTOR.value, "search form"),
    ],
)
def test_what_is_folded(folds, channels, case, foldings):
    copies = 2 if case == "several" else 1
    layer = DepthwiseSeparable(channels, 3, stride=1, dilation=1, copies=copies, affine=case != "search form")
    layer.train(case != "eval").requires_grad_(case != "frozen")
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        layer(draw(copies, channels=channels).float())
    assert bool(foldings) == folds


@pytest.mark.parametrize("size", [(8, 8), (7, 6), (3, 3), (2, 2), (1, 5), (1, 1)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_depthwise_separable_is_its_convolutions(kernel, stride, dilation, size):
    """Whatever a device has a faster way for: values, gradients and second derivatives."""
    layer = DepthwiseSeparable(4, kernel, stride=stride, dilation=dilation, copies=2, affine=False).double().eval()
    x, parameters = draw(2, size).requires_grad_(), list(layer.parameters())

    def convolve(x):
        padding = dilation * (kernel // 2)
        return F.conv2d(x, layer.depthwise.weight, None, stride, padding, dilation, groups=8)

    for format in (torch.contiguous_format, torch.channels_last):
        found = []
        for forward in (layer, lambda x: layer.norm(layer.pointwise(convolve(x)))):
            outputs = forward(x.contiguous(memory_format=format))
            loss = outputs.pow(3).sum()
            once = torch.autograd.grad(loss, [x, *parameters], retain_graph=True)  # takes other ways than the next line
            first = torch.autograd.grad(loss, [x, *parameters], create_graph=True)
            second = torch.autograd.grad(sum(g.square().sum() for g in first), [x, *parameters])
            found.append([outputs, *once, *first, *second])
        for fast, plain in zip(*found, strict=True):
            torch.testing.assert_close(fast, plain, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 6), (5, 7), (1, 1)])
def test_factorized_reduction_reads_every_pixel(size):
    """Even pixels through one convolution, odd ones through the other; zeros beyond an odd border."""
    reduce = FactorizedReduce(4, 5, affine=False).double()
    x = draw(size=size)
    padded = F.pad(x, (0, 1, 0, 1))
    rows, columns = (-(-side // 2) for side in size)
    halves = [
        F.conv2d(padded[:, :, i::2, i::2][:, :, :rows, :columns], convolution.weight)
        for i, convolution in enumerate((reduce.even, reduce.odd))
    ]
    torch.testing.assert_close(reduce(x), reduce.norm(torch.cat(halves, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 6), (5, 7), (1, 1)])
@pytest.mark.parametrize("first", [(0,), (0, 1)])
def test_every_second_pixel_is_a_slice(size, first):
    x = draw(size=size).requires_grad_()
    for got, i in zip(every_second(x, *first), first, strict=True):
        assert torch.equal(got, x[:, :, i::2, i::2])
    square = lambda *pixels: tuple(one.square() for one in pixels)  # noqa: E731  # so that a second derivative is not zero
    assert torch.autograd.gradcheck(lambda x: square(*every_second(x, *first)), x)
    assert torch.autograd.gradgradcheck(lambda x: square(*every_second(x, *first)), x)
    (gradient,) = torch.autograd.grad(sum(one.sum() for one in every_second(x, *first)), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(8, 8), (7, 6), (5, 3), (2, 2), (1, 3), (1, 1)])
@every_stride
@pytest.mark.parametrize("device", ["cpu", "other"])
def test_average_pool_and_its_derivatives(device, stride, size, monkeypatch):
    """Against torch's own on a CPU, which is right."""
    monkeypatch.setattr(pooling, "as_torch", lambda x: device == "cpu")
    x, found = draw(size=size).contiguous(memory_format=torch.channels_last).requires_grad_(), []
    for pool in (AveragePool(stride), lambda x: F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)):
        outputs = pool(x)
        (first,) = torch.autograd.grad(outputs.pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sin().sum(), x)
        assert first.is_contiguous(memory_format=torch.channels_last)
        found.append([outputs, first, second])
    torch.testing.assert_close(*found, rtol=1e-13, atol=1e-13)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.autograd.gradcheck(AveragePool(stride), x)
    assert torch.autograd.gradgradcheck(lambda x: AveragePool(stride)(x).square(), x)


@every_stride
def test_average_pool_in_bf16_rounds_its_gradient_as_torch_does(stride, monkeypatch):
    """At most one rounding more than the exact gradient's."""
    monkeypatch.setattr(pooling, "as_torch", lambda x: False)
    x = draw(size=(6, 6)).bfloat16().requires_grad_()
    outputs = AveragePool(stride)(x)
    gradient = torch.randn_like(outputs)
    (found,) = torch.autograd.grad(outputs, x, gradient)
    exact = x.detach().double().requires_grad_()
    plain = F.avg_pool2d(exact, 3, stride, 1, count_include_pad=False)
    (expected,) = torch.autograd.grad(plain, exact, gradient.double())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=2**-8)


@every_stride
def test_a_gpu_never_takes_the_gradient_of_a_padded_average(stride):
    """Wrong there until torch 2.13; neither a second derivative takes it."""
    x = torch.empty(2, 4, 8, 8, device="meta", requires_grad=True)
    with tiny.Counting() as counting:
        (first,) = torch.autograd.grad(AveragePool(stride)(x).square().sum(), x, create_graph=True)
        torch.autograd.grad(first.square().sum(), x)
    assert counting.calls["avg_pool2d"] > 2 and counting.calls["avg_pool2d_backward"] == 0
