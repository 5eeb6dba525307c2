"""Published data sets, as facts: their files, where these lie below dataset.root, from where they come, their class names.

Names, addresses, MD5 sums and layout are those of torchvision.datasets (0.29: cifar.py, mnist.py, svhn.py), which is what downloads
them. Class names are those in the archives of CIFAR, read off once, so that no file has to be unpickled for them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file that is read: `holds` says which part or array it is; `md5` None: it is judged by its own header."""

    name: str
    holds: str
    md5: str | None = None


@dataclass(frozen=True)
class Download:
    """A file that is fetched from the first address that has it, and unpacked where it is a package."""

    addresses: tuple[str, ...]
    name: str
    md5: str


@dataclass(frozen=True)
class Published:
    """A data set under its name in DATASETS; folders are below dataset.root."""

    name: str
    folder: str  # where the files lie
    files: tuple[File, ...]
    target: str  # where downloads go, and are unpacked
    downloads: tuple[Download, ...]
    classes: tuple[str, ...]


_DIGITS = tuple("0123456789")
_FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar cattle
chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


def _cifar(name: str, folder: str, md5: str, files: tuple[File, ...], classes: str) -> Published:
    archive = f"{name.replace('cifar', 'cifar-')}-python.tar.gz"
    download = Download((f"https://www.cs.toronto.edu/~kriz/{archive}",), archive, md5)
    return Published(name, folder, files, "", (download,), tuple(classes.split()))


_IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def _mnist(name: str, folder: str, mirrors: tuple[str, ...], md5s: str, classes: tuple[str, ...]) -> Published:
    """The MD5 sums are those of the .gz files as they are offered; the same data packed again has others and is as good."""
    downloads = tuple(
        Download(tuple(f"{mirror}{file}.gz" for mirror in mirrors), f"{file}.gz", md5)
        for file, md5 in zip(_IDX.values(), md5s.split(), strict=True)
    )
    files = tuple(File(file, array) for array, file in _IDX.items())
    return Published(name, folder, files, folder, downloads, classes)


def _svhn(files: tuple[File, ...]) -> Published:
    place = "http://ufldl.stanford.edu/housenumbers/"
    downloads = tuple(Download((f"{place}{file.name}",), file.name, str(file.md5)) for file in files)
    return Published("svhn", "", files, "", downloads, _DIGITS)


PUBLISHED = {
    source.name: source
    for source in (
        _cifar(
            "cifar10",
            "cifar-10-batches-py",
            "c58f30108f718f92721af3b95e74349a",
            (
                File("data_batch_1", "train", "c99cafc152244af753f735de768cd75f"),
                File("data_batch_2", "train", "d4bba439e000b95fd0a9bffe97cbabec"),
                File("data_batch_3", "train", "54ebc095f3ab1f0389bbae665268c751"),
                File("data_batch_4", "train", "634d18415352ddfa80567beed471001a"),
                File("data_batch_5", "train", "482c414d41f54cd18b22e5b47cb7c3cb"),
                File("test_batch", "test", "40351d587109b95175f43aff81a1287e"),
            ),
            _CIFAR10,
        ),
        _cifar(
            "cifar100",
            "cifar-100-python",
            "eb9058c3a382ffc7106e4002c42a8d85",
            (
                File("train", "train", "16019d7e3df5f24257cddd939b257f8d"),
                File("test", "test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
            ),
            _CIFAR100,
        ),
        _mnist(
            "mnist",
            "MNIST/raw",
            ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
            "f68b3c2dcbeaaa9fbdd348bbdeb94873 d53e105ee54ea40749a09fcbcd1e9432"
            " 9fb629c4189551a2d022fa330f9573f3 ec29112dd5afa0611ce80d1b7f02629c",
            _DIGITS,
        ),
        _mnist(
            "fashion_mnist",
            "FashionMNIST/raw",
            ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe"
            " bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310",
            tuple(_FASHION.split(",")),
        ),
        _svhn(
            (
                File("train_32x32.mat", "train", "e26dedcc434d2e4c54c9b2d4a06d8373"),
                File("test_32x32.mat", "test", "eb5a983be6a315427106f1b164d9cef3"),
            )
        ),
    )
}
