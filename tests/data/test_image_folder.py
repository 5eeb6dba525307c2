"""Images of the user's own: layouts, parts, kinds of images, and a table of folders that are refused with exit 3 and words."""

import os
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from process import run_process
from test_data import refused

from darts_lite.data import images as image_files
from darts_lite.data import load
from darts_lite.data.dataset import in_words, remarks
from darts_lite.data.images import decode
from darts_lite.data.splits import held_out
from darts_lite.errors import Exit
from darts_lite.settings.datasets import DatasetConfig


def pixels(seed, shape=(8, 8, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path, image):
    """An array, or an image of Pillow, at `path`, in folders that are made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path)


def folder(root, *, parts=("train",), classes=("cat", "dog"), images=5, shape=(8, 8, 3)):
    """root/<part>/<class>/<number>.png of noise."""
    for part in parts:
        for name in classes:
            for number in range(images):
                path = root / part / name / f"{number}.png"
                write(path, pixels(zlib.crc32(f"{part}/{name}/{number}".encode()), shape))
    return root


def read(root, **settings):
    return load(DatasetConfig(name="image_folder", root=str(root), **settings))


def stored(files):
    return [os.fsdecode(bytes(name)) for name in files.names]


def test_parts_and_classes(tmp_path):
    root = folder(tmp_path / "mit Übung = (1)", parts=("train", "val", "test"), classes=("b", "ä", "a 1"))
    (root / "train" / "b" / ".hidden.png").write_bytes(b"")
    (root / "train" / "b" / "notes.txt").write_text("not an image")
    (root / "train" / ".cache").mkdir()
    data = read(root)
    assert data.name == "image_folder" and data.class_names == ("a 1", "b", "ä") and data.image_size == (8, 8)
    assert data.x_train.shape == data.x_val.shape == data.x_test.shape == (15, 8, 8, 3)
    assert data.y_train.tolist() == data.y_val.tolist() == data.y_test.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert stored(data.x_val)[:6] == [*(f"val/a 1/{number}.png" for number in range(5)), "val/b/0.png"]
    for part, images in (("train", data.x_train), ("val", data.x_val), ("test", data.x_test)):
        assert np.array_equal(np.asarray(images)[7], pixels(zlib.crc32(f"{part}/b/2".encode())))


def test_a_class_that_is_not_tested_and_names_that_are_numbers_are_said(tmp_path):
    names = ("0", "90", "180", "270")
    root = folder(folder(tmp_path, classes=names), parts=("test",), classes=names[:2])
    order, missing = remarks(read(root))
    assert "numbers, in this order: 0, 180, 270, 90" in order
    assert missing == "image_folder: the test part has no image of 180, 270"
    many = folder(tmp_path / "many", classes=[f"class {number:02}" for number in range(30)], images=1, shape=(2, 3, 3))
    data = read(folder(many, parts=("test",), classes=["class 00"], images=1, shape=(2, 3, 3)))
    (missing,) = remarks(data)
    assert missing.endswith("class 09, class 10 and 19 more") and " of 3x2 with 3 channels" in in_words(data)


def test_test_part_is_drawn_from_the_names(tmp_path):
    """Stratified, the same without a look at the seed, and an image that is added moves one other of its class at most."""
    root = folder(tmp_path, images=10)
    data = read(root)
    assert np.bincount(data.y_test).tolist() == [2, 2] and np.bincount(data.y_train).tolist() == [8, 8]
    before = set(stored(data.x_test))
    assert not before & set(stored(data.x_train))
    write(root / "train" / "cat" / "another.png", pixels(1))
    after = set(stored(read(root).x_test))
    assert {name for name in before if "dog" in name} == {name for name in after if "dog" in name}
    assert len(before - after) <= 1
    assert np.bincount(read(root, test_fraction=0.5).y_test).tolist() == [6, 5]
    names = [b"train/a/%d" % number for number in range(1000)]
    _, out = held_out(names, np.zeros(1000, int), 0.2)
    assert len(out) == 200 and abs(out.mean() - 499.5) < 60  # from everywhere: 3 standard deviations of the mean


def test_without_train_the_classes_lie_in_the_root(tmp_path):
    flat, deep = folder(tmp_path / "flat", parts=(".",)), folder(tmp_path / "deep")
    (flat / "cat").rename(flat / "trainer")
    (deep / "train" / "cat").rename(deep / "train" / "trainer")
    one, other = read(flat, test_fraction=0.4), read(deep, test_fraction=0.4)
    assert one.class_names == other.class_names == ("dog", "trainer") and len(one.x_test) == len(other.x_test) == 4


def test_fraction_is_of_each_class_and_not_of_the_test_part(tmp_path):
    root = folder(tmp_path, parts=("train", "test"), images=10)
    whole, half = read(root), read(root, fraction=0.5)
    assert np.bincount(half.y_train).tolist() == [5, 5] and len(half.y_test) == 20
    assert set(stored(half.x_train)) < set(stored(whole.x_train)) and half.fingerprint != whole.fingerprint
    assert half.source == whole.source != read(root, image_size=4).source
    write(root / "train" / "cat" / "another.png", pixels(1))
    assert read(root, fraction=0.5).source != whole.source


def test_fingerprint_is_of_what_is_used_wherever_it_lies(tmp_path, monkeypatch):
    first, copy = folder(tmp_path / "first"), folder(tmp_path / "copy")
    data = read(first)
    assert data.fingerprint == read(copy).fingerprint == read(first, storage="stream").fingerprint
    assert data.fingerprint != read(first, test_fraction=0.4).fingerprint
    assert data.fingerprint != read(first, image_size=4).fingerprint
    assert data.fingerprint != read(first, channels=1).fingerprint
    write(copy / "train" / "cat" / "3.png", pixels(99))
    assert data.fingerprint != read(copy).fingerprint
    monkeypatch.setattr(image_files, "EXACT", 100)  # a set too large to be read whole
    monkeypatch.setattr(image_files, "EDGE", 16)
    edges = read(first).fingerprint
    assert edges != data.fingerprint and edges == read(first, storage="stream").fingerprint
    path = first / "train" / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert read(first, storage="stream").fingerprint != edges


def test_statistics_do_not_depend_on_where_images_wait(tmp_path, monkeypatch):
    monkeypatch.setattr("darts_lite.data.statistics.MEASURED", 3)
    root = folder(tmp_path)
    one, other = read(root), read(root, storage="stream")
    assert (one.mean, one.std) == (other.mean, other.std)
    assert one.x_train.pixels is not None and other.x_train.pixels is None
    assert np.array_equal(np.asarray(one.x_train), np.asarray(other.x_train))


def test_too_large_for_memory(tmp_path, monkeypatch):
    root = folder(tmp_path)
    monkeypatch.setattr("darts_lite.data.image_folder.available_memory", lambda: 1000)
    assert read(root).x_train.pixels is None
    refused(lambda: read(root, storage="device"), Exit.DATA, "memory", "dataset.storage=stream")


def test_a_link_to_an_image_is_an_image(tmp_path):
    root = folder(tmp_path / "data")
    write(tmp_path / "elsewhere.png", pixels(7))
    os.symlink(tmp_path / "elsewhere.png", root / "train" / "cat" / "link.png")
    assert "train/cat/link.png" in [*stored(read(root).x_train), *stored(read(root).x_test)]


# Kinds of images


def grey(image):
    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


@pytest.mark.parametrize("extension", ["png", "PNG", "bmp", "tif", "tiff", "ppm"])
def test_lossless_formats(tmp_path, extension):
    path = tmp_path / f"image.{extension}"
    write(path, pixels(0, (5, 7, 3)))
    assert np.array_equal(decode(str(path), 3, None), pixels(0, (5, 7, 3)))
    assert np.array_equal(decode(str(path), 1, None), grey(pixels(0, (5, 7, 3))))


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "webp", "gif"])
def test_lossy_formats(tmp_path, extension):
    smooth = np.tile(np.arange(0, 256, 16, dtype=np.uint8)[:, None, None], (1, 16, 3))
    write(tmp_path / f"image.{extension}", smooth)
    assert np.abs(decode(str(tmp_path / f"image.{extension}"), 3, None).astype(int) - smooth).max() < 12


def test_grey_palette_and_binary_images(tmp_path):
    level = pixels(1, (6, 6))
    write(tmp_path / "grey.pgm", level)
    assert np.array_equal(decode(str(tmp_path / "grey.pgm"), 3, None), np.repeat(level[..., None], 3, axis=2))
    colours = Image.fromarray(np.repeat(level[..., None] // 128 * 128, 3, axis=2))
    write(tmp_path / "palette.png", colours.convert("P", palette=Image.Palette.ADAPTIVE))
    assert np.array_equal(decode(str(tmp_path / "palette.png"), 3, None), np.asarray(colours))
    write(tmp_path / "binary.png", Image.fromarray(level).convert("1", dither=0))
    assert np.array_equal(decode(str(tmp_path / "binary.png"), 1, None)[..., 0], np.where(level >= 128, 255, 0))


def test_transparency_lies_on_white(tmp_path):
    image = np.concatenate((pixels(2, (4, 4, 3)), np.zeros((4, 4, 1), np.uint8)), axis=2)
    image[:2, :, 3] = 255
    write(tmp_path / "alpha.png", image)
    seen = decode(str(tmp_path / "alpha.png"), 3, None)
    assert np.array_equal(seen[:2], image[:2, :, :3]) and (seen[2:] == 255).all()
    palette = Image.fromarray(np.zeros((4, 4), np.uint8), "P")
    palette.putpalette([10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert (decode(str(tmp_path / "palette.png"), 3, None) == 255).all()


def test_photographs_are_turned_upright(tmp_path):
    """Orientation 6: the camera was held so that the picture has to be turned by 90 degrees clockwise."""
    image = np.zeros((16, 8, 3), np.uint8)
    image[:8] = 255
    turned = Image.fromarray(np.rot90(image))
    exif = Image.Exif()
    exif[0x0112] = 6
    root = tmp_path / "data"
    for name in "ab":
        for number in range(2):
            path = root / "train" / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            turned.save(path, exif=exif, quality=95)
    write(root / "test" / "a" / "0.png", image)
    data = read(root)
    assert data.image_size == (16, 8)
    assert np.abs(np.asarray(data.x_train).astype(int) - image).mean() < 8


def test_sixteen_bits_of_colour_keep_their_high_byte(tmp_path):
    """Pillow reads colours of 16 bits as 8; this is what is promised for them. (Grey ones are refused, see BAD.)"""
    rows = np.zeros((2, 2, 3), ">u2")
    rows[...] = 0x1234
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = (2).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert (decode(str(tmp_path / "deep.png"), 3, None) == 0x12).all()


@pytest.mark.parametrize("side", [4, 8, 13, 16])
def test_the_shorter_side_is_resized_and_the_centre_cropped(tmp_path, side):
    """In one step, which is the same as one after the other."""
    wide = Image.fromarray(pixels(3, (8, 24, 3)))
    write(tmp_path / "wide.png", wide)
    resized = wide.resize((3 * side, side), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((side, 0, 2 * side, side)), int)
    assert np.abs(decode(str(tmp_path / "wide.png"), 3, (side, side)) - expected).max() <= 1  # rounded
    write(tmp_path / "high.png", wide.transpose(Image.Transpose.TRANSPOSE))
    turned = decode(str(tmp_path / "high.png"), 3, (side, side)).transpose(1, 0, 2)
    assert np.abs(turned - expected).max() <= 1


def test_test_images_as_published_for_imagenet(tmp_path):
    """Resize to 256 pixels and the centre of 224, in one step; training and validation images keep all of the centre."""
    root = folder(tmp_path, parts=("train", "val", "test"), images=2, shape=(64, 96, 3))
    whole, cut = read(root, image_size=28), read(root, image_size=28, test_center=0.875)
    for number in range(4):
        resized = Image.open(whole.x_test.path(number)).resize((48, 32), Image.Resampling.BILINEAR)
        expected = np.asarray(resized.crop((10, 2, 38, 30)), int)
        assert np.abs(np.asarray(cut.x_test)[number] - expected).max() <= 1  # rounded
        assert np.abs(np.asarray(whole.x_test)[number] - expected).max() > 20
    for part in ("x_train", "x_val"):
        assert np.array_equal(getattr(whole, part), getattr(cut, part))
    streamed = read(root, image_size=28, test_center=0.875, storage="stream")
    assert np.array_equal(streamed.x_test, cut.x_test) and streamed.x_test.pixels is None
    assert streamed.fingerprint == cut.fingerprint != whole.fingerprint and cut.source == whole.source
    square = folder(tmp_path / "square", parts=("train", "test"), shape=(32, 32, 3))
    for settings in ({"image_size": 32}, {}):  # images that have the size already
        image = np.asarray(read(square, test_center=0.5, **settings).x_test)[0]
        larger = Image.open(read(square).x_test.path(0)).resize((64, 64), Image.Resampling.BILINEAR)
        assert np.abs(image - np.asarray(larger.crop((16, 16, 48, 48)), int)).max() <= 1


def test_a_thin_image_is_not_blown_up(tmp_path, monkeypatch):
    write(tmp_path / "thin.png", np.zeros((1, 30_000), np.uint8))
    resize, asked = Image.Image.resize, []
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, size, *rest, **named: asked.append(size) or resize(self, size, *rest, **named),
    )
    assert decode(str(tmp_path / "thin.png"), 1, (64, 64)).shape == (64, 64, 1) and asked == [(64, 64)]


def test_mixed_sizes_are_brought_to_one(tmp_path):
    root = folder(tmp_path)
    write(root / "train" / "cat" / "large.png", pixels(5, (20, 11, 3)))
    data = read(root, image_size=8)
    assert data.image_size == (8, 8)
    whole = dict(zip(stored(data.x_train), np.asarray(data.x_train), strict=True))
    name = next(name for name in whole if "large" not in name)
    assert np.array_equal(whole[name], decode(str(root / name), 3, None)), "an image of that size stays as it is"


# What is refused


def put(name, content):
    def change(root):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write(path, content)

    return change


def truncated(root, extension="jpg"):
    write(root / f"train/cat/half.{extension}", pixels(0, (64, 64, 3)))
    path = root / f"train/cat/half.{extension}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(root):
    path = root / "train/dog/3.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def emptied(root):
    for path in (root / "train" / "dog").iterdir():
        path.unlink()


def link(target):
    return lambda root: os.symlink(target, root / "train/cat/link.png")


def no_folder(root):
    (root / "train").rename(root / "away")
    (root / "test").mkdir()


def one_class(root):
    (root / "train" / "dog").rename(root / ".dog")


FLOATS = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
DEEP = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 60)
WORDS = Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8))
BAD = {
    "truncated jpg": (truncated, "half.jpg", "truncated"),
    "truncated png": (lambda root: truncated(root, "png"), "half.png", "cannot be read"),
    "truncated bmp": (lambda root: truncated(root, "bmp"), "half.bmp", "truncated"),
    "flipped byte": (flipped, "dog/3.png", "cannot be read"),
    "empty file": (put("train/cat/void.png", b""), "void.png", "no image that can be read"),
    "not an image": (put("train/cat/text.jpg", b"hello"), "text.jpg", "no image that can be read"),
    "postscript": (
        put("train/cat/code.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "code.png",
        "no image",
    ),
    "16 bit": (put("train/cat/deep.png", DEEP), "deep.png", "8-bit", "I;16", "0..255"),
    "32 bit": (put("train/cat/words.tif", WORDS), "words.tif", "8-bit", "mode I)"),
    "float": (put("train/cat/float.tif", FLOATS), "float.tif", "8-bit", "mode F)"),
    "mixed sizes": (
        put("train/cat/9.png", pixels(0, (9, 8, 3))),
        "9.png",
        "is 8x9",
        ".png is 8x8",
        "dataset.image_size",
    ),
    "empty class": (emptied, "train/dog", "no image", "remove the folder"),
    "other files": (lambda root: (emptied(root), put("train/dog/a.mp4", b"")(root)), "train/dog", "it holds a.mp4"),
    "photographs that cannot be read": (
        put("train/dog/a.HEIC", b""),
        "train/dog",
        "of a kind that cannot",
        "a.HEIC",
        "jpg",
    ),
    "one class": (one_class, "has 1 class folder", "two classes"),
    "no class": (lambda root: (one_class(root), (root / "train/cat").rename(root / ".cat")), "no class folders"),
    "single sample": (put("train/bird/1.png", pixels(0)), "bird", "one image cannot be cut", "test/ folder"),
    "unknown test class": (put("test/bird/1.png", pixels(0)), "test/bird", "train/ does not have"),
    "misspelled test class": (put("test/Cat/1.png", pixels(0)), "test/Cat", "did you mean 'cat'?"),
    "unknown val class": (put("val/bird/1.png", pixels(0)), "val/bird", "train/ does not have"),
    "empty val": (lambda root: (root / "val").mkdir(), "val", "holds no image"),
    "another name of val": (put("validation/cat/1.png", pixels(0)), "validation", "call it val, or"),
    "another name of train": (lambda root: (root / "train").rename(root / "Train"), "/Train", "call it train, or"),
    "no train": (no_folder, "has test/ but no train/", "<root>/train/<class>/<image>"),
    "loose images": (put("train/1.png", pixels(0)), "1 images lie outside", "1.png"),
    "folder in a class": (put("train/cat/more/1.png", pixels(0)), "train/cat", "holds a folder: more"),
    "link to nowhere": (link("nowhere"), "link.png", "leads nowhere"),
    "link to a folder": (link("/"), "train/cat", "holds a folder"),
    "pipe": (lambda root: os.mkfifo(root / "train/cat/pipe.png"), "pipe.png", "is not a file"),
    "class name": (
        lambda root: os.rename(root / "train/cat", os.fsencode(root) + b"/train/\xff"),
        "not UTF-8",
        "rename",
    ),
    "control letters": (put("train/cat/\n\x1b[31m.png", b""), "\\x1b[31m.png", "no image"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders(tmp_path, case):
    change, *words = BAD[case]
    change(folder(tmp_path / "data"))
    when_decoded = "truncated" in case or "flipped" in case
    size = {"image_size": 8} if when_decoded else {}
    refused(lambda: read(tmp_path / "data", **size), Exit.DATA, *words)
    if not when_decoded:
        refused(lambda: read(tmp_path / "data", storage="stream", mean=[0.5] * 3, std=[0.5] * 3), Exit.DATA, *words)


def test_decompression_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    root = folder(tmp_path)
    for side in (40, 50):  # Pillow warns of the first and raises at twice the number
        write(root / "train" / "cat" / "bomb.png", np.zeros((side, side), np.uint8))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            refused(lambda: read(root, image_size=8), Exit.DATA, "bomb.png", "1,000 pixels", "decompression bomb")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path):
    root = folder(tmp_path)
    (root / "train/cat/1.png").chmod(0)
    refused(lambda: read(root), Exit.DATA, "cat/1.png", "Permission denied")


def test_what_the_disk_refuses_is_named(tmp_path, monkeypatch):
    """The same as `test_unreadable`, for tests that run as root."""
    root, opened = folder(tmp_path), Image.open

    def refusing(path, **named):
        if path.endswith("dog/2.png"):
            raise PermissionError(13, "Permission denied")
        return opened(path, **named)

    monkeypatch.setattr(Image, "open", refusing)
    refused(lambda: read(root), Exit.DATA, "dog/2.png", "cannot be read (Permission denied)")


def test_a_misspelled_root(tmp_path):
    root = folder(tmp_path / "photos")
    refused(lambda: read(f"{tmp_path}/fotos/"), Exit.DATA, "did you mean 'photos'?", "No such file")
    refused(lambda: read(root / "tran"), Exit.DATA, "did you mean 'train'?")
    refused(lambda: read(tmp_path / "no" / "where"), Exit.DATA, "No such file")


def test_many_problems_are_named_a_few_at_a_time(tmp_path):
    root = folder(tmp_path)
    for number in range(12):
        put(f"train/cat/bad {number:02}.png", b"")(root)
    error = refused(lambda: read(root), Exit.DATA, "12 of 22 images cannot be used", "bad 00.png", "bad 04.png")
    assert len(error.problems) == 6 and "bad 05" not in "".join(map(str, error.problems))


def test_settings(tmp_path):
    def config(**settings):
        return lambda: load(DatasetConfig(**{"name": "image_folder", "root": str(tmp_path), **settings}))

    refused(config(root=None), Exit.CONFIGURATION, "dataset.root", "needs a folder")
    refused(config(path="x.npz"), Exit.CONFIGURATION, "dataset.path", "dataset=npz in place of")
    refused(config(channels=2), Exit.CONFIGURATION, "dataset.channels", "3 (RGB) or 1 (grey)")
    refused(config(root=str(tmp_path / "nowhere")), Exit.DATA, "nowhere", "No such file", "check dataset.root")
    for key, value in (("image_size", 32), ("channels", 1), ("test_fraction", 0.1)):
        changed = DatasetConfig(**{key: value})
        refused(lambda changed=changed: load(changed), Exit.CONFIGURATION, f"dataset.{key}", "image_folder")


def test_one_line_and_exit_3(tmp_path):
    root = folder(tmp_path / "data")
    truncated(root)
    words = ["dataset=image_folder", "dataset.root=data", "dataset.image_size=8", "device=cpu"]
    done = run_process("darts_lite.search", words, tmp_path)
    assert done.returncode == Exit.DATA
    last = done.stderr.splitlines()[-1]
    assert last.startswith("darts_lite: error: data/train/cat/half.jpg: cannot be read (image file is truncated")
    assert "fix: repair or remove it" in last and not (tmp_path / "outputs").exists()
