"""What `load_model` returns predicts what `evaluate` counted, from arrays, images and files alike."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from test_image_folder import folder

from darts_lite import data
from darts_lite.classifier import Classifier
from darts_lite.errors import Exit, UserError
from darts_lite.evaluate import EvaluateConfig, evaluate
from darts_lite.genotypes.genotype import Cell, Edge, Genotype
from darts_lite.models import create_network, load_model
from darts_lite.operations import OPERATIONS
from darts_lite.operations.kernels.thresholds import CACHE
from darts_lite.settings.datasets import DatasetConfig


def agrees(model, dataset, images):
    """Names and probabilities of the test images give the accuracies and the loss that `evaluate` found."""
    test = evaluate(EvaluateConfig(run="run", device="cpu"), report=tiny.Report())["test"]
    names, probabilities = model.predict(images, batch_size=16)
    right = np.array([name == dataset.class_names[label] for name, label in zip(names, dataset.y_test, strict=True)])
    assert right.mean() == test["accuracy"]
    assert [right[dataset.y_test == label].mean() for label in range(dataset.classes)] == test["per_class"]
    losses = -probabilities[torch.arange(len(names)), torch.from_numpy(dataset.y_test)].log()
    assert losses.mean().item() == pytest.approx(test["loss"], rel=1e-4)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(names)))


def test_predictions_are_those_of_evaluate(tiny_folder):
    config = DatasetConfig(name="digits")
    tiny.run(tiny.retrain_config(dataset=config, epochs=1, batch_size=128, test_every=None))
    model, dataset = load_model("run"), data.load(config)
    assert not model.training and model.class_names == dataset.class_names and model.image_shape == (8, 8, 1)
    agrees(model, dataset, dataset.x_test)
    expected = model.predict(dataset.x_test)[1]
    few = dataset.x_test[:20]
    for images in (few[..., 0], torch.from_numpy(few), np.repeat(few, 3, axis=3),
                   [Image.fromarray(one[..., 0]) for one in few]):  # fmt: skip
        torch.testing.assert_close(model.predict(images)[1], expected[:20])
    torch.testing.assert_close(model(model.prepare(few)).softmax(1), expected[:20])
    model.train().predict(few)
    assert model.training
    torch.testing.assert_close(model.double().predict(few)[1], expected[:20])


@pytest.mark.parametrize("center", [1.0, 0.75])
def test_files_of_an_image_folder(center, tiny_folder):
    """Cropped and resized as in training, from the same files and from arrays."""
    root = folder(Path("photos"), parts=("train", "test"), images=16, shape=(12, 9, 3))
    config = DatasetConfig(name="image_folder", root=str(root), image_size=8, test_center=center)
    tiny.run(tiny.retrain_config(dataset=config, epochs=1, batch_size=8, test_every=None))
    model, dataset = load_model("run"), data.load(config)
    paths = [dataset.x_test.path(number) for number in range(len(dataset.y_test))]
    assert model.class_names == ("cat", "dog") and model.image_shape == (8, 8, 3)
    agrees(model, dataset, paths)
    arrays = np.stack([np.asarray(Image.open(path)) for path in paths])
    for images in (arrays, torch.from_numpy(arrays), [Image.open(path) for path in paths]):
        torch.testing.assert_close(model.predict(images)[1], model.predict(paths)[1])
    assert len(model.predict(paths[0])[0]) == len(model.predict(Image.open(paths[0]))[0]) == 1


def classifier(channels=3):
    network = create_network("darts_v2", cells=1, channels=2, classes=2, input_channels=channels, image_size=(8, 8))
    return Classifier(network, ("a", "b"), [0.5] * channels, [0.5] * channels).eval()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "uint8"),
        (np.zeros((8, 8, 3), np.uint8), "images[None]"),
        (np.zeros((2, 3, 8, 8), np.uint8), "channels last"),
        (np.zeros((8, 8), np.uint8), "shape"),
        (np.zeros((0, 8, 8, 3), np.uint8), "shape"),
        ([], "there is none"),
        ([7], "int"),
        (Image.new("I;16", (8, 8)), "8 bits"),
        ("missing.png", "missing.png: there is no such file"),
    ],
)
def test_what_is_no_image(images, words):
    with pytest.raises(UserError) as error:
        classifier().predict(images)
    assert words in str(error.value) and error.value.code == Exit.DATA


def test_two_channels_come_as_arrays_only():
    model = classifier(2)
    assert model.predict(np.zeros((3, 8, 8, 2), np.uint8))[1].shape == (3, 2)
    for images in (Image.new("L", (8, 8)), np.zeros((3, 8, 8, 3), np.uint8)):
        with pytest.raises(UserError, match="channels"):
            model.predict(images)


# Export


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("dim", ["named", "dynamic"])
def test_a_trained_network_is_exported_for_any_batch(strict, dim, tiny_folder):
    """One graph for any number of images, small and large: the numbers are those of the network itself."""
    tiny.run(tiny.retrain_config(epochs=1))
    model = load_model("run")
    height, width, channels = model.image_shape
    free = torch.export.Dim("batch", max=4096) if dim == "named" else torch.export.Dim.DYNAMIC
    with torch.no_grad():
        graph = torch.export.export(
            model, (torch.randn(4, channels, height, width),), dynamic_shapes=({0: free},), strict=strict
        ).module()
        for number in (1, 3, 4, 600):
            images = torch.randn(number, channels, height, width)
            torch.testing.assert_close(graph(images), model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "stem", "cache"), [((8, 8), "cifar", None), ((9, 7), "cifar", 1), ((33, 35), "imagenet", 2**13)]
)
def test_every_operation_is_exported_for_any_batch(size, stem, cache, monkeypatch):
    """Also where copies are computed one after another, where sides are odd, and where a node has no edge; noise comes from outside."""
    if cache is not None:
        monkeypatch.setattr(CACHE, "value", cache)
    network, batch = of_every_operation(size, stem), torch.export.Dim("batch")
    draws = network.draw(torch.Generator().manual_seed(2), 2)
    shapes = {"images": {0: batch}, "draws": {cell: {stage: {0: batch} for stage in draws[cell]} for cell in draws}}
    graph = torch.export.export(network, (torch.randn(2, 3, *size),), {"draws": draws}, dynamic_shapes=shapes).module()
    for number in (1, 2, 5, 65):
        images, draws = torch.randn(number, 3, *size), network.draw(torch.Generator().manual_seed(number), number)
        torch.testing.assert_close(graph(images, draws=draws), network(images, draws=draws), rtol=1e-5, atol=1e-5)


def of_every_operation(size, stem):
    """A final network with an edge of each operation, and a node without one."""
    edges = [Edge(name, number % 2, 2 + number // 2) for number, name in enumerate(OPERATIONS)]
    nodes = 1 + len(edges) // 2
    cell = Cell(tuple(edges), tuple(range(2, 2 + nodes)))
    return create_network(
        Genotype("darts", {"normal": cell, "reduce": cell}), cells=5, channels=4, classes=3, image_size=size, stem=stem
    ).eval()


def test_noise_is_not_exported_as_what_was_drawn_once():
    network = of_every_operation((8, 8), "cifar")
    with pytest.raises(UserError, match="noise is not exported without them; fix: export the Network itself"):
        torch.export.export(network, (torch.randn(2, 3, 8, 8),))
