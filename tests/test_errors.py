"""Whatever a user gets wrong is one line with the fix and an exit code; nothing is made on the disk.

CASES is the table: (id, verb, words of the command line, exit code, words that the last line on stderr must hold).
"""

import pytest
from process import run_process

from darts_lite.cli import run_verb

TWO = 2
CASES = [
    # unknown names, with the nearest valid one
    ("key", "search", ["epoch=3"], TWO, ["epoch: unknown key", "did you mean 'epochs'?"]),
    ("key-transposed", "search", ["bacth_size=3"], TWO, ["did you mean 'batch_size'?"]),
    ("key-of-a-part", "search", ["path=x.npz"], TWO, ["did you mean 'dataset.path'?"]),
    ("key-dotted", "search", ["space.node=3"], TWO, ["did you mean 'space.nodes'?"]),
    ("key-nothing-near", "search", ["zzzz=3"], TWO, ["zzzz: unknown key", "--help"]),
    ("key-of-another-verb", "evaluate", ["genotype=darts_v2"], TWO, ["genotype: unknown key"]),
    ("key-too-deep", "search", ["seed.value=3"], TWO, ["seed.value: unknown key"]),
    ("key-in-a-list", "search", ["space.candidates.0=none"], TWO, ["did you mean 'space.candidates'?"]),
    ("key-empty", "search", ["=3"], TWO, ["unknown key"]),
    ("key-hostile", "search", ["a\nb\x1b[31m=3"], TWO, ["unknown key", "\\x1b[31m"]),
    (
        "option",
        "search",
        ["method=darts_frist_order"],
        TWO,
        ["method: unknown name", "did you mean 'darts_first_order'?"],
    ),
    ("option-dataset", "search", ["dataset=npy"], TWO, ["did you mean 'npz'?"]),
    ("option-recipe", "retrain", ["recipe=paper"], TWO, ["recipe: unknown name, got 'paper'", "darts, quick"]),
    ("option-null", "search", ["preset=null"], TWO, ["preset: unknown name, got 'null'"]),
    ("option-empty", "search", ["preset="], TWO, ["preset: unknown name, got ''"]),
    ("option-mapping", "search", ["dataset={name: npz}"], TWO, ["dataset: unknown name"]),
    ("option-path", "search", ["dataset=../method/darts_first_order"], TWO, ["dataset: unknown name"]),
    ("option-sweep", "search", ["-m", "preset=quick,papre"], TWO, ["got 'papre'", "did you mean 'paper'?"]),
    ("option-several", "search", ["preset=quick,paper"], TWO, ["preset: several values need a sweep", "add -m"]),
    ("experiment-of-another-verb", "search", ["experiment=npz_retrain_darts"], TWO, ["experiment: unknown name"]),
    ("flag", "search", ["--seed", "3"], TWO, ["key=value"]),
    ("flag-near", "search", ["--mulitrun"], TWO, ["--mulitrun: unknown option", "'--multirun'"]),
    ("flag-rerun", "search", ["--experimental-rerun=x.pickle"], TWO, ["unknown option"]),
    ("flag-cfg", "search", ["--cfg", "jobs"], TWO, ["--cfg: unknown name", "did you mean 'job'?"]),
    ("flag-cfg-empty", "search", ["--cfg"], TWO, ["--cfg: unknown name"]),
    ("hydra-key", "search", ["hydra.sweeep.dir=x"], TWO, ["hydra.sweeep.dir"]),
    ("hydra-option", "search", ["hydra/launcher=slum"], TWO, ["hydra/launcher/slum"]),
    # the form of an override
    ("no-value", "search", ["seed"], TWO, ["seed: is no key=value", "write seed=<value>"]),
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
    ("bracket", "search", ["penalties=[a"], TWO, ["penalties: cannot be read", "'[a'"]),
    ("parenthesis", "search", ["device=(cpu"], TWO, ["device: cannot be read"]),
    ("huge-number", "search", [f"seed={'1' * 5000}"], TWO, ["seed: cannot be read"]),
    ("not-utf-8", "search", ["run_dir=\udcff"], TWO, ["is not UTF-8"]),
    ("several-values", "search", ["seed=0,1"], TWO, ["seed: several values need a sweep", "add -m"]),
    ("several-values-range", "search", ["seed=range(3)"], TWO, ["seed: several values need a sweep"]),
    # types, ranges and relations: one of each kind, all the others are in test_config.py
    ("int-text", "search", ["epochs=abc"], TWO, ["epochs: must be an integer, got 'abc'", "at least 1"]),
    ("int-null", "search", ["epochs=null"], TWO, ["epochs: must be an integer, got None"]),
    ("int-bool", "search", ["epochs=true"], TWO, ["epochs: must be an integer, got True"]),
    ("path-empty", "evaluate", ["run="], TWO, ["run: must not be empty"]),
    ("list-text", "search", ["penalties=beta"], TWO, ["penalties: must be a list", "[a,b]"]),
    ("zero", "search", ["epochs=0"], TWO, ["epochs: must be at least 1, got 0"]),
    ("lr-nan", "search", ["lr=nan"], TWO, ["lr: must be finite, got nan"]),
    ("lr-inf", "search", ["lr=1e400"], TWO, ["lr: must be finite, got inf"]),
    ("seed-large", "search", [f"seed={2**63}"], TWO, ["seed: must be at most 9223372036854775807"]),
    ("precision", "search", ["precision=fp16"], TWO, ["precision: is not a choice, got 'fp16'", "fp32, bf16"]),
    ("lr-min", "search", ["lr_min=1"], TWO, ["lr_min: must not be above lr", "raise lr"]),
    ("candidates-empty", "search", ["space.candidates=[]"], TWO, ["space.candidates: must not be empty"]),
    ("mean-alone", "search", ["dataset.mean=[0.5]"], TWO, ["dataset.std: must be given together with dataset.mean"]),
    ("drop-path", "retrain", ["drop_path=1"], TWO, ["drop_path: must be at most 0.95"]),
    ("epoch-negative", "discretize", ["epoch=-1"], TWO, ["epoch: must be at least 0, got -1"]),
]


@pytest.mark.parametrize(
    ("verb", "words", "code", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_one_line_with_the_fix(verb, words, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_verb(verb, words) == code
    check_stderr(capsys.readouterr().err, said)
    assert list(tmp_path.iterdir()) == []


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
    assert run_verb("search", ["epochs=0", "lr=nan", "lr_mn=1", "preset=papr", "device=(", "space.nodes=0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2] for line in lines] == ["lr_mn", "preset", "device", "space.nodes", "epochs", "lr"]
    assert all(line.startswith("darts_lite: error: ") for line in lines)


@pytest.mark.parametrize("name", ["key", "lr-nan", "option", "target"])
def test_as_a_process(name, tmp_path):
    _, verb, words, code, said = next(case for case in CASES if case[0] == name)
    done = run_process(f"darts_lite.{verb}", words, tmp_path)
    assert done.returncode == code
    assert done.stdout == ""
    check_stderr(done.stderr, said)
    assert list(tmp_path.iterdir()) == []
