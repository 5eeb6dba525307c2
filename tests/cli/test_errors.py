"""Whatever a user gets wrong is one line with the fix and an exit code; nothing is made on the disk.

CASES is the table: (id, verb, words of the command line, exit code, words that the last line on stderr must hold).
`@name` in a word is a path of the fixture `material`: data sets, genotype files and run folders, most of them broken.
"""

import json
import shutil
import sys

import numpy as np
import published_files
import pytest
from process import run_process

from darts_lite.cli.run import run_verb

TWO = 2
CASES = [
    # unknown names, with the nearest valid one
    ("key", "search", ["epoch=3"], TWO, ["epoch: unknown key", "did you mean 'epochs'?"]),
    ("key-transposed", "search", ["bacth_size=3"], TWO, ["did you mean 'batch_size'?"]),
    ("key-of-a-part", "search", ["path=x.npz"], TWO, ["did you mean 'dataset.path'?"]),
    ("key-dotted", "search", ["space.node=3"], TWO, ["did you mean 'space.nodes'?"]),
    ("key-nothing-near", "search", ["zzzz=3"], TWO, ["zzzz: unknown key", "--help"]),
    ("key-of-another-verb", "evaluate", ["genotype=darts_v2"], TWO, ["genotype: unknown key", "a key of retrain"]),
    (
        "key-of-another-verb-near",
        "search",
        ["run=x"],
        TWO,
        ["did you mean 'run_dir'? it is a key of discretize and ev"],
    ),
    ("key-capitals", "search", ["SEED=1"], TWO, ["did you mean 'seed'?"]),
    ("key-hyphen", "search", ["batch-size=3"], TWO, ["did you mean 'batch_size'?"]),
    ("key-group", "search", ["metod=darts_first_order"], TWO, ["did you mean 'method'?"]),
    ("key-of-a-part-typo", "search", ["dataset.flp=true"], TWO, ["did you mean 'dataset.flip'?"]),
    ("key-elsewhere", "search", ["learning_rate=0.1"], TWO, ["did you mean 'lr'?"]),
    ("key-elsewhere-layers", "search", ["layers=8"], TWO, ["layers: unknown key", "did you mean 'cells'?"]),
    ("key-elsewhere-arch-lr", "search", ["arch_learning_rate=1"], TWO, ["did you mean 'alpha_lr'?"]),
    ("key-elsewhere-lr", "retrain", ["Learning-Rate=1"], TWO, ["did you mean 'lr'?"]),
    ("key-elsewhere-arch", "retrain", ["arch=darts_v2"], TWO, ["did you mean 'genotype'?"]),
    ("key-elsewhere-arch-2", "search", ["arch=x"], TWO, ["did you mean 'genotype'? it is a key of retrain"]),
    ("key-elsewhere-steps", "search", ["steps=9"], TWO, ["did you mean 'epochs' or 'space.nodes'?"]),
    ("key-elsewhere-steps-2", "retrain", ["steps=9"], TWO, ["did you mean 'epochs'?"]),
    ("key-elsewhere-load", "retrain", ["load=x"], TWO, ["did you mean 'init' or 'resume'?"]),
    ("key-elsewhere-load-2", "search", ["load=x"], TWO, ["did you mean 'resume'?"]),
    ("key-elsewhere-load-3", "evaluate", ["load=x"], TWO, ["did you mean 'run'?"]),
    ("key-elsewhere-weights", "retrain", ["weights=x"], TWO, ["did you mean 'init'?"]),
    ("key-elsewhere-option", "search", ["--arch-learning-rate=3e-4"], TWO, ["write alpha_lr=3e-4"]),
    ("key-elsewhere-none", "search", ["patience=3"], TWO, ["patience: unknown key: there is no early stopping"]),
    ("key-elsewhere-time", "search", ["max_hours=3"], TWO, ["there is no limit of time", "resume="]),
    ("key-elsewhere-class", "retrain", ["class_weights=[1,2]"], TWO, ["there are no weights of classes"]),
    ("key-elsewhere-option-none", "retrain", ["--patience=3"], TWO, ["unknown option: there is no early stopping"]),
    ("key-elsewhere-evaluate", "evaluate", ["folder=x"], TWO, ["did you mean 'run'?"]),
    ("key-too-deep", "search", ["seed.value=3"], TWO, ["seed.value: unknown key"]),
    ("key-in-a-list", "search", ["space.candidates.0=none"], TWO, ["did you mean 'space.candidates'?"]),
    ("key-empty", "search", ["=3"], TWO, ["=3: is no key=value", "without blanks around ="]),
    ("key-hostile", "search", ["a\nb\x1b[31m=3"], TWO, ["unknown key", "\\x1b[31m"]),
    (
        "option",
        "search",
        ["method=darts_frist_order"],
        TWO,
        ["method: unknown name", "did you mean 'darts_first_order'?"],
    ),
    ("option-part-of-name", "search", ["method=darts"], TWO, ["did you mean 'darts_first_order'?"]),
    ("option-capitals", "search", ["method=DARTS_SECOND_ORDER"], TWO, ["did you mean 'darts_second_order'?"]),
    ("option-preset", "search", ["preset=papr"], TWO, ["did you mean 'paper'?"]),
    ("option-experiment", "search", ["experiment=npz_darts_first"], TWO, ["did you mean 'npz_darts_first_order'?"]),
    ("option-dataset", "search", ["dataset=npy"], TWO, ["did you mean 'npz'?"]),
    (
        "option-recipe",
        "retrain",
        ["recipe=paper"],
        TWO,
        ["recipe: unknown name, got 'paper'", "darts, fast, imagenet, nasbench201, quick"],
    ),
    ("option-null", "search", ["preset=null"], TWO, ["preset: unknown name, got 'null'"]),
    ("option-empty", "search", ["preset="], TWO, ["preset: unknown name, got ''"]),
    ("option-mapping", "search", ["dataset={name: npz}"], TWO, ["dataset: unknown name"]),
    ("option-path", "search", ["dataset=../method/darts_first_order"], TWO, ["dataset: unknown name"]),
    ("option-sweep", "search", ["-m", "preset=quick,papre"], TWO, ["got 'papre'", "did you mean 'paper'?"]),
    ("option-several", "search", ["preset=quick,paper"], TWO, ["preset: several values need a sweep", "add -m"]),
    ("experiment-of-another-verb", "search", ["experiment=npz_retrain_darts"], TWO, ["experiment: unknown name"]),
    ("flag", "search", ["--seed", "3"], TWO, ["key=value"]),
    ("flag-of-a-setting", "search", ["--batch-size=3"], TWO, ["unknown option", "write batch_size=3"]),
    ("flag-of-a-setting-alone", "search", ["--resume"], TWO, ["write resume=<value>"]),
    ("flag-near", "search", ["--mulitrun"], TWO, ["--mulitrun: unknown option", "'--multirun'"]),
    ("flag-rerun", "search", ["--experimental-rerun=x.pickle"], TWO, ["unknown option"]),
    ("flag-cfg", "search", ["--cfg", "jobs"], TWO, ["--cfg: unknown name", "did you mean 'job'?"]),
    ("flag-cfg-empty", "search", ["--cfg"], TWO, ["--cfg: unknown name"]),
    ("hydra-key", "search", ["hydra.sweeep.dir=x"], TWO, ["hydra.sweeep.dir"]),
    ("hydra-group", "search", ["hydra/launchr=joblib"], TWO, ["did you mean 'hydra/launcher'?"]),
    ("hydra-launcher-key", "search", ["-m", "hydra.launcher.njobs=2"], TWO, ["mean 'hydra.launcher.n_jobs'?"]),
    ("launcher", "search", ["-m", "hydra/launcher=jobli"], TWO, ["hydra/launcher: unknown name", "mean 'joblib'?"]),
    ("launcher-alone", "search", ["hydra/launcher=joblib"], TWO, ["hydra/launcher: runs the jobs", "add -m"]),
    # the form of an override
    ("no-value", "search", ["seed"], TWO, ["seed: is no key=value", "write seed=<value>"]),
    ("colon", "search", ["seed: 1"], TWO, ["seed: 1: is no key=value", "write seed=1"]),
    ("help", "search", ["help"], TWO, ["write --help"]),
    ("verb", "search", ["retrain"], TWO, ["python -m darts_lite.retrain"]),
    ("two-equals", "search", ["seed==1"], TWO, ["seed: cannot be read", "write seed=1"]),
    ("no-key", "search", ["something"], TWO, ["something: is no key=value"]),
    ("plus", "search", ["+seed=1"], TWO, ["without +", "write seed=..."]),
    ("plus-plus", "search", ["++seeed=1"], TWO, ["seeed: unknown key", "did you mean 'seed'?"]),
    ("delete", "search", ["~seed"], TWO, ["~seed: a setting cannot be deleted"]),
    ("delete-group", "search", ["~dataset=digits"], TWO, ["cannot be deleted"]),
    ("target", "search", ["_target_=os.system"], TWO, ["_target_ is not allowed"]),
    ("target-nested", "search", ["dataset._target_=os.system"], TWO, ["_target_ is not allowed"]),
    ("target-value", "search", ["space.edge_candidates={_target_: [x]}"], TWO, ["_target_ is not allowed"]),
    ("target-hydra", "search", ["hydra.launcher._target_=os.system"], TWO, ["_target_ is not allowed"]),
    ("interpolation", "search", ["seed=${oc.env:HOME}"], TWO, ["seed: ${...} is not allowed"]),
    ("interpolation-path", "search", ["run_dir=a/${seed}"], TWO, ["run_dir: ${...} is not allowed"]),
    ("bracket", "search", ["reductions=[0"], TWO, ["reductions: cannot be read", "'[0'", "[1,2]"]),
    ("parenthesis", "search", ["precision=(fp32"], TWO, ["precision: cannot be read"]),
    ("huge-number", "search", [f"seed={'1' * 5000}"], TWO, ["seed: cannot be read"]),
    ("not-utf-8", "search", ["run_dir=\udcff"], TWO, ["is not UTF-8"]),
    ("several-values", "search", ["seed=0,1"], TWO, ["seed: several values need a sweep", "add -m"]),
    ("several-values-range", "search", ["seed=range(3)"], TWO, ["seed: several values need a sweep"]),
    # types, ranges and relations: one of each kind, all the others are in test_config.py
    ("int-text", "search", ["epochs=abc"], TWO, ["epochs: must be an integer, got 'abc'", "at least 1"]),
    ("int-null", "search", ["epochs=null"], TWO, ["epochs: must be an integer, got None"]),
    ("int-bool", "search", ["epochs=true"], TWO, ["epochs: must be an integer, got True"]),
    ("path-empty", "evaluate", ["run="], TWO, ["run: must not be empty"]),
    ("list-text", "search", ["reductions=two"], TWO, ["reductions: must be a list", "[1,2]"]),
    ("zero", "search", ["epochs=0"], TWO, ["epochs: must be at least 1, got 0"]),
    ("lr-nan", "search", ["lr=nan"], TWO, ["lr: must be finite, got nan"]),
    ("lr-inf", "search", ["lr=1e400"], TWO, ["lr: must be finite, got inf"]),
    ("seed-large", "search", [f"seed={2**63}"], TWO, ["seed: must be at most 9223372036854775807"]),
    ("precision", "search", ["precision=fp16"], TWO, ["precision: unknown name, got 'fp16'", "fp32, bf16"]),
    ("precision-near", "search", ["precision=fp23"], TWO, ["did you mean 'fp32'?"]),
    ("lr-min", "search", ["lr_min=1"], TWO, ["lr_min: must not be above lr", "raise lr"]),
    ("candidates-empty", "search", ["space.candidates=[]"], TWO, ["space.candidates: must not be empty"]),
    ("mean-alone", "search", ["dataset.mean=[0.5]"], TWO, ["dataset.std: must be given together with dataset.mean"]),
    ("drop-path", "retrain", ["drop_path=1"], TWO, ["drop_path: must be at most 0.95"]),
    ("epoch-negative", "discretize", ["epoch=-1"], TWO, ["epoch: must be at least 0, got -1"]),
    # the parts of a method and of a space
    ("part", "search", ["solver=unrolld"], TWO, ["solver: unknown name", "did you mean 'unrolled'?"]),
    ("part-of-a-list", "search", ["penalties=[beta]"], TWO, ["got 'beta'", "did you mean 'beta_decay'?"]),
    ("nesterov-unrolled", "search", ["method=darts_second_order", "nesterov=true"], TWO, ["nesterov: ", "first_order"]),
    ("nodes", "search", ["space.nodes=17"], TWO, ["space.nodes: must be at most 16, got 17"]),
    ("candidates-unknown", "search", ["space.candidates=[sep_conv_3x2]"], TWO, ["did you mean 'sep_conv_3x3'?"]),
    ("candidates-only-none", "search", ["space.candidates=[none]"], TWO, ["no operation is left to choose from"]),
    ("candidates-twice", "search", ["space.candidates=[none,none]"], TWO, ["space.candidates: must be distinct"]),
    ("edge-cell", "search", ["space.edge_candidates={nromal: []}"], TWO, ["did you mean 'normal'?"]),
    ("edge-count", "search", ["space.edge_candidates={normal: [[none]]}"], TWO, ["has 14 edges, so 14 lists"]),
    (
        "edge-empty",
        "search",
        ["space.nodes=1", "space.edge_candidates={reduce: [null,[]]}"],
        TWO,
        ["no operation is left"],
    ),
    (
        "edges-all-none",
        "search",
        ["space.nodes=1", "space.edge_candidates={normal: [[none],[none]]}"],
        TWO,
        ["space.edge_candidates.normal: no edge of the cell has an operation besides none"],
    ),
    ("reductions", "search", ["reductions=[1,5]"], TWO, ["reductions: must be numbers of cells", "got [1, 5]"]),
    ("batch", "search", ["batch_size=717"], TWO, ["batch_size: larger than its part of the data", "got 717"]),
    ("batch-retrain", "retrain", ["batch_size=1438", "genotype=snas"], TWO, ["batch_size: larger", "1437 images"]),
    ("batch-after-split", "search", ["dataset=npz", "dataset.path=@good.npz"], TWO, ["(20 images)", "at most 20"]),
    # data
    ("data-no-path", "search", ["dataset=npz"], TWO, ["dataset.path: dataset=npz needs a file"]),
    (
        "data-path-of-digits",
        "search",
        ["dataset.path=x.npz"],
        TWO,
        ["dataset.path: dataset=digits does not use it", "add dataset=npz"],
    ),
    ("data-missing", "search", ["dataset=npz", "dataset.path=no.npz"], 3, ["no.npz: there is no such file"]),
    ("data-folder", "search", ["dataset=npz", "dataset.path=@"], 3, ["is a directory"]),
    *(
        (f"data-{name}", "search", ["dataset=npz", f"dataset.path=@{name}.npz"], 3, words)
        for name, words in {
            "cut": ["is not an .npz archive, or only the beginning of one"],
            "flipped": ["flipped.npz:x_train: cannot be read (Bad CRC-32"],
            "no-labels": ["missing: y_test; the archive has x_test, x_train, y_train"],
            "float": ["x_train: images must be uint8, got 'float32'"],
            "pickled": ["y_train: cannot be read (Object arrays cannot be loaded", "plain numbers"],
            "one-hot": ["y_train: labels must be (N,)", "store class numbers, not one-hot"],
            "fractions": ["y_train: labels must be integers, got 'float64'"],
            "too-few-labels": ["y_train: x_train has 40 images", "got 39"],
            "label-outside": ["y_test: label 4 at index 3 is outside 0..3"],
            "label-negative": ["y_train: label -1 at index 0 is negative"],
            "single-class": ["y_train: every image has the same label"],
            "sizes": ["x_test: images are 9x9 with 1 channel, those of x_train 8x8"],
            "channels-first": ["channels come first"],
            "empty": ["x_train: there is no image"],
        }.items()
    ),
    ("data-published", "search", ["dataset=mnist"], 3, ["data/MNIST/raw: no train-images-idx3-ubyte and 3 more"]),
    (
        "data-published-root",
        "retrain",
        ["dataset=cifar100", "dataset.root=@nothing"],
        3,
        ["dataset.download=true", "npz"],
    ),
    ("data-published-path", "search", ["dataset=mnist", "dataset.path=x.npz"], TWO, ["dataset=mnist does not use it"]),
    (
        "data-download",
        "search",
        ["dataset.download=true"],
        TWO,
        ["dataset=digits does not use it", "add dataset=cifar10, cifar100"],
    ),
    (
        "data-root-of-digits",
        "search",
        ["dataset.root=photos"],
        TWO,
        ["dataset.root: dataset=digits does not use it", "add dataset=image_folder"],
    ),
    ("data-payload", "search", ["dataset=cifar10", "dataset.root=@"], 3, ["data_batch_1: is not the published file"]),
    (
        "data-cut",
        "search",
        ["dataset=mnist", "dataset.root=@"],
        3,
        ["train-images-idx3-ubyte: cannot be read (40 bytes"],
    ),
    # genotypes
    ("genotype-none", "retrain", [], TWO, ["genotype: none given", "first run python -m darts_lite.search"]),
    ("genotype-none-npz", "retrain", ["dataset=npz", "dataset.path=@good.npz"], TWO, ["darts_lite.search dataset=npz"]),
    ("genotype-name", "retrain", ["genotype=darts_v3"], TWO, ["no such file, folder or name", "did you mean 'darts_v"]),
    (
        "genotype-folder",
        "retrain",
        ["genotype=@"],
        TWO,
        ["genotype: this folder holds neither genotype.json nor result.json"],
    ),
    ("genotype-text", "retrain", ["genotype=Genotype(normal=[])"], TWO, ["genotype"]),
    *(
        (f"genotype-{file}", "retrain", [f"genotype=@{file}"], TWO, [file, *words])
        for file, words in {
            "code.json": ["edges[0].operation: unknown name", "__import__"],
            "code.txt": ["only strings, integers, lists, pairs and range(2, 6) may stand here", "__import__"],
            "later.json": ["edges[0].source: must be a state before node 2, got 2"],
            "bool.json": ["edges[0].source: must be a state before node 2, got True"],
            "nan.json": ["has a value that is not JSON, got 'NaN'"],
            "extra.json": ["exec: unknown key", "the keys are format, space, cells, choices"],
            "large.json": ["is larger than 1,000,000 bytes"],
            "good.npz": ["is not UTF-8 text"],
        }.items()
    ),
    # run folders
    ("run-none", "evaluate", [], 4, ["run: not given", "outputs/retrain/digits/<time>"]),
    ("run-missing", "evaluate", ["run=no"], 4, ["run: no such run folder, got 'no'"]),
    ("run-file", "evaluate", ["run=@a_file"], 4, ["run: is not a folder"]),
    ("run-empty", "evaluate", ["run=@nothing"], 4, ["holds no checkpoint"]),
    ("run-search", "evaluate", ["run=@search"], 4, ["run: is not a retraining", "darts_lite.retrain"]),
    ("run-unfinished", "evaluate", ["run=@unfinished"], 4, ["run: is not finished", "darts_lite.retrain resume="]),
    (
        "run-other-data",
        "evaluate",
        ["run=@retrain", "dataset_path=@rgb.npz"],
        3,
        ["dataset_path: has ", "the network "],
    ),
    ("discretize-none", "discretize", [], 4, ["run: not given", "outputs/search/digits/<time>"]),
    ("discretize-retraining", "discretize", ["run=@retrain"], 4, ["run: is not a search"]),
    ("discretize-epoch", "discretize", ["run=@search", "epoch=7"], TWO, ["epoch: the search has the epochs 0 to 1"]),
    ("discretize-rule", "discretize", ["run=@search", "selection=dart"], TWO, ["did you mean 'darts'?"]),
    ("resume-typo", "search", ["resume=atuo"], 4, ["resume: no such run folder", "did you mean 'auto'?"]),
    ("resume-retraining", "retrain", ["resume=no"], 4, ["outputs/retrain/digits/<time>"]),
    ("resume-missing", "search", ["resume=no"], 4, ["resume: no such run folder, got 'no'"]),
    ("resume-empty", "search", ["resume=@nothing"], 4, ["holds no checkpoint"]),
    ("resume-verb", "search", ["resume=@retrain"], 4, ["holds a run of another verb", "give the folder of a search"]),
    ("resume-changed", "search", ["resume=@search", "seed=3", "epochs=9"], 4, ["seed 0 -> 3, epochs 1 -> 9"]),
    ("resume-shortened", "search", ["resume=@search_shortened"], 4, ["search_shortened/checkpoints: "]),
    ("run-dir-taken", "search", ["run_dir=@search"], 4, ["already holds a run", "resume="]),
    ("run-dir-file", "search", ["run_dir=@a_file"], 6, ["a_file: cannot be created"]),
    ("run-dir-below-a-file", "search", ["run_dir=@a_file/run"], 6, ["cannot be created: Not a directory"]),
    # devices
    *(
        (f"device-{name}", "search", [f"device={name}"], 6, ["device: ", name, "cpu"])
        for name in ("cuda:99", "tpu", "cuda:-1", "0", "(cpu")
    ),
    ("device-capitals", "search", ["device=CPU"], 6, ["did you mean 'cpu'?"]),
    ("device-retrain", "retrain", ["device=cuda:99", "genotype=snas"], 6, ["device: not usable here, got 'cuda:99'"]),
    ("device-evaluate", "evaluate", ["run=@retrain", "device=tpu"], 6, ["device: not usable here, got 'tpu'"]),
]

TINY = ["dataset=npz", "epochs=1", "batch_size=8", "cells=1", "channels=2", "device=cpu"]
SMALL_SPACE = ["space.nodes=1", "space.candidates=[skip_connect,max_pool_3x3]"]


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A folder with everything that the cases name, made once; no case may change it."""
    folder = tmp_path_factory.mktemp("material")
    _data(folder)
    _published(folder)
    search = folder / "search"
    data = f"dataset.path={folder / 'good.npz'}"
    assert run_verb("search", [*TINY, *SMALL_SPACE, data, f"run_dir={search}"]) == 0
    assert run_verb("retrain", [*TINY, data, f"genotype={search}", f"run_dir={folder / 'retrain'}"]) == 0
    shutil.copytree(folder / "retrain", folder / "unfinished")
    (folder / "unfinished" / "model.pt").unlink()
    shutil.copytree(search, folder / "search_shortened")
    for file in (folder / "search_shortened" / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    (folder / "nothing").mkdir()
    (folder / "a_file").write_text("")
    _genotypes(folder, (search / "genotype.json").read_text())
    return folder


def _data(folder):
    rng = np.random.default_rng(0)
    good = {
        "x_train": rng.integers(0, 256, (40, 8, 8), dtype=np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": rng.integers(0, 256, (8, 8, 8), dtype=np.uint8),
        "y_test": np.arange(8) % 4,
    }
    color = {name: np.repeat(x[..., None], 3, axis=3) for name, x in good.items() if name[0] == "x"}
    changes = {
        "good": {},
        "rgb": color,
        "no-labels": {"y_test": None},
        "float": {"x_train": good["x_train"].astype(np.float32)},
        "pickled": {"y_train": np.array([{}] * 40, dtype=object)},
        "one-hot": {"y_train": np.eye(40, dtype=int)},
        "fractions": {"y_train": good["y_train"] / 2},
        "too-few-labels": {"y_train": good["y_train"][:39]},
        "label-outside": {"y_test": np.array([0, 1, 2, 4] * 2)},
        "label-negative": {"y_train": good["y_train"] - 1},
        "single-class": {"y_train": np.zeros(40, int), "y_test": np.zeros(8, int)},
        "sizes": {"x_test": np.zeros((8, 9, 9), np.uint8)},
        "channels-first": {name: x.transpose(0, 3, 1, 2) for name, x in color.items()},
        "empty": {"x_train": good["x_train"][:0], "y_train": good["y_train"][:0]},
    }
    for name, change in changes.items():
        arrays = {key: array for key, array in (good | change).items() if array is not None}
        np.savez(folder / f"{name}.npz", **arrays)
    whole = bytearray((folder / "good.npz").read_bytes())
    (folder / "cut.npz").write_bytes(whole[:3000])
    whole[1000] ^= 1
    (folder / "flipped.npz").write_bytes(whole)


def _published(folder):
    payload = b"cposix\nsystem\n(S'touch owned'\ntR."
    published_files.write(folder / "cifar-10-batches-py", dict.fromkeys(published_files.cifar("cifar10"), payload))
    idx = published_files.mnist_files()
    published_files.write(folder / "MNIST" / "raw", {name: content[:40] for name, content in idx.items()})


def _genotypes(folder, text):
    code = "__import__('os').system('touch owned')"
    edge = {"code.json": {"operation": code}, "later.json": {"source": 2}, "bool.json": {"source": True}}
    for name, change in edge.items():
        genotype = json.loads(text)
        genotype["cells"]["normal"]["edges"][0].update(change)
        (folder / name).write_text(json.dumps(genotype))
    (folder / "code.txt").write_text(f"Genotype(normal={code}, normal_concat=[2], reduce=[], reduce_concat=[2])")
    (folder / "nan.json").write_text(text.replace('"source": 0', '"source": NaN', 1))
    (folder / "extra.json").write_text(json.dumps({**json.loads(text), "exec": "import os"}))
    (folder / "large.json").write_bytes(b" " * 1_000_001)


def _tree(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("verb", "words", "code", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_one_line_with_the_fix(verb, words, code, said, tmp_path, monkeypatch, capsys, request):
    monkeypatch.chdir(tmp_path)
    folder = request.getfixturevalue("material") if any("@" in word for word in words) else None
    before = _tree(folder) if folder else None
    capsys.readouterr()
    assert run_verb(verb, [word.replace("@", f"{folder}/") for word in words]) == code
    check_stderr(capsys.readouterr().err, said)
    assert list(tmp_path.iterdir()) == []
    assert folder is None or _tree(folder) == before


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a folder in which nobody can write")
def test_a_folder_in_which_nothing_can_be_made(capsys):
    assert run_verb("search", ["run_dir=/proc/darts_lite"]) == 6
    check_stderr(capsys.readouterr().err, ["/proc/darts_lite: cannot be created"])


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_few_cells_are_no_error(cells, material, tmp_path):
    words = [*TINY, *SMALL_SPACE, f"dataset.path={material / 'good.npz'}", f"cells={cells}"]
    assert run_verb("search", [*words, f"run_dir={tmp_path / 'search'}"]) == 0
    words = [*TINY, f"dataset.path={material / 'good.npz'}", f"cells={cells}", f"genotype={tmp_path / 'search'}"]
    assert run_verb("retrain", [*words, f"run_dir={tmp_path / 'retrain'}"]) == 0


def check_stderr(text, said):
    assert "Traceback" not in text
    assert "\x1b" not in text
    last = text.splitlines()[-1]
    assert last.startswith("darts_lite: error: ")
    assert "; fix: " in last or "..." in last
    assert len(last) <= 400
    assert last.isascii()
    assert "+key" not in last
    for words in said:
        assert words in last


def test_every_problem_is_listed_at_once(capsys):
    assert run_verb("search", ["epochs=0", "lr=nan", "lr_mn=1", "preset=papr", "precision=(", "space.nodes=0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2] for line in lines] == ["lr_mn", "preset", "precision", "space.nodes", "epochs", "lr"]
    assert all(line.startswith("darts_lite: error: ") for line in lines)


@pytest.mark.parametrize("name", ["key", "lr-nan", "option", "target"])
def test_as_a_process(name, tmp_path):
    _, verb, words, code, said = next(case for case in CASES if case[0] == name)
    done = run_process(f"darts_lite.{verb}", words, tmp_path)
    assert done.returncode == code
    assert done.stdout == ""
    check_stderr(done.stderr, said)
    assert list(tmp_path.iterdir()) == []
