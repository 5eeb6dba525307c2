"""The command line around a verb's function: what reaches it, what becomes of its errors, sweeps, help."""

import errno
import io
import os
import pty
import shutil
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from process import ROOT, environment, run_process
from rich.console import Console
from test_errors import check_stderr

import darts_lite.evaluate
import darts_lite.search
from darts_lite import __version__
from darts_lite.cli import console
from darts_lite.cli.line import VERBS, config_class, default_options, group_options, part_options, read_line
from darts_lite.cli.run import configuration, run_package, run_verb
from darts_lite.errors import Exit, Interrupted, UserError, all_of
from darts_lite.runs.report import Plain
from darts_lite.runs.steps import epoch_words
from darts_lite.settings.schema import leaves, part_kinds


def test_the_function_gets_configuration_typed_keys_and_reporter(calls, tmp_path):
    assert run_verb("search", ["seed=3", "dataset.flip=true", "method=darts_second_order"]) == 0
    ((config, typed_keys, report),) = calls
    assert (config.seed, config.dataset.flip, config.solver.name) == (3, True, "unrolled")
    assert typed_keys == {"seed", "dataset.flip", "method"}
    assert isinstance(report, Plain)
    assert list(tmp_path.iterdir()) == [], "Hydra makes no folder"


@pytest.mark.parametrize("verb", ["search", "retrain"])
@pytest.mark.parametrize("path", ["a b", "ä=(1)"])
def test_configuration_from_python_is_that_of_the_command_line(verb, path, calls, monkeypatch, tmp_path):
    words = [f"run_dir={path}", "epochs=3", *(["method=drnas"] if verb == "search" else ["recipe=darts"])]
    monkeypatch.setattr(f"darts_lite.{verb}.{verb}", lambda config, **_: calls.append((config,)))
    assert run_verb(verb, words) == 0
    assert configuration(verb, *words) == calls[0][0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["epoch=3"], ["-m", "seed=1,2"], ["seed=1,2"], ["--cfg", "job"], ["seed=-1"], ["seed=("]]
)
def test_configuration_from_python_refuses_what_makes_none(words, capsys):
    with pytest.raises(UserError) as caught:
        configuration("search", *words)
    assert caught.value.code == Exit.CONFIGURATION
    assert capsys.readouterr() == ("", "")


def test_many_calls_in_one_process_leave_no_trace(calls, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    argv = list(sys.argv)
    assert [run_verb("search", words) for words in (["seed=1"], ["seed=x"], ["nope"], ["-m", "seed=2,3"], [])] == [
        0,
        2,
        2,
        0,
        0,
    ]
    assert [config.seed for config, *_ in calls] == [1, 2, 3, 0]
    assert sys.argv == argv and "HYDRA_FULL_ERROR" not in os.environ


def test_words_come_from_sys_argv(calls, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["darts-lite-search", "seed=7"])
    assert darts_lite.search.main() == 0
    assert calls[0][0].seed == 7


PATHS = [
    "with space",
    "ümläut/日本",
    "a=b",
    "(x)",
    "it's",
    'say "so"',
    "'one' and 'two'",
    "a,b",
    "[a]",
    "{a: b}",
    "back\\slash\\",
    "\\'",
    "a#b",
    "$HOME",
    "100%",
    "-x",
    "2024",
    "true",
    "???",
    "a: b",
    "!x&*@|<>",
    " blank ",
]


@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_hydra_reads_paths_as_they_were_typed(path, sweep):
    typed = f'"{path}"' if sweep and "," in path else path
    line = read_line("search", [f"run_dir={typed}", *(["-m"] if sweep else [])])
    override = OverridesParser.create().parse_override(f"run_dir={line.overrides['run_dir']}")
    assert override.value() == path
    assert not override.is_sweep_override()


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_paths_arrive_as_they_were_typed(flags, calls):
    words = ["dataset.path=(it's) a=b/ü\\", "resume=~ {x: 'y'}", "dataset.root=[a]"]
    assert run_verb("search", [*flags, *words]) == 0
    config = calls[0][0]
    assert [config.dataset.path, config.resume, config.dataset.root] == [word.partition("=")[2] for word in words]


def test_home_null_and_quotes(calls, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert run_verb("search", ["run_dir=~/runs/1", "resume=null", "dataset.path='in quotes'"]) == 0
    config = calls[0][0]
    assert (config.run_dir, config.resume, config.dataset.path) == ("/home/someone/runs/1", None, "in quotes")


def test_sweep_gives_each_job_its_folder(calls, tmp_path):
    assert run_verb("search", ["-m", "seed=0,1", "lr=0.1"]) == 0
    assert [(config.seed, config.lr) for config, *_ in calls] == [(0, 0.1), (1, 0.1)]
    (sweep,) = (tmp_path / "outputs/search/sweeps").iterdir()
    assert [config.run_dir for config, *_ in calls] == [f"outputs/search/sweeps/{sweep.name}/{job}" for job in range(2)]
    made = sorted(file.name for file in sweep.iterdir())
    assert made == ["multirun.yaml", "sweep.json"], "the jobs make their folders themselves"


def test_sweep_below_run_dir(calls, tmp_path):
    assert run_verb("search", ["-m", "seed=0,1", "run_dir=my sweep"]) == 0
    assert [config.run_dir for config, *_ in calls] == ["my sweep/0", "my sweep/1"]
    assert [path.name for path in tmp_path.iterdir()] == ["my sweep"]


def test_sweep_over_run_dir_and_groups(calls):
    assert run_verb("search", ["-m", "run_dir=a,b c", "method=darts_first_order,darts_second_order"]) == 0
    assert [(config.run_dir, config.solver.name) for config, *_ in calls] == [
        ("a/0", "first_order"),
        ("a/1", "unrolled"),
        ("b c/2", "first_order"),
        ("b c/3", "unrolled"),
    ]


def test_a_failing_job_does_not_end_the_sweep(calls, capsys):
    def act(config):
        if config.seed == 1:
            raise UserError("dataset", "is broken", "mend it", code=Exit.DATA)

    calls.act = act
    assert run_verb("search", ["-m", "seed=0,1,2"]) == 3
    assert len(calls) == 3
    first, last = capsys.readouterr().err.splitlines()
    assert first == "darts_lite: error: dataset: is broken; fix: mend it"
    assert "1 of 3 jobs failed (1)" in last


def test_a_sweep_refused_before_it_starts_makes_nothing(calls, tmp_path, capsys):
    assert run_verb("search", ["-m", "seed=0,1", "lrr=1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_whose_folder_cannot_be_made(calls, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run_verb("search", ["-m", "seed=0,1", "run_dir=file"]) == 6
    check_stderr(capsys.readouterr().err, ["file: file exists"])
    assert calls == []


def test_an_interruption_ends_the_sweep(calls, capsys):
    def act(config):
        raise Interrupted(15)

    calls.act = act
    assert run_verb("search", ["-m", "seed=0,1,2"]) == 143
    assert len(calls) == 1
    assert capsys.readouterr().err == "darts_lite: stopped by SIGTERM\n"


ENDS = [
    (UserError("run", "is strange", "look", value="x", code=Exit.RUN), 4, "run: is strange, got 'x'; fix: look"),
    (UserError("lr", "diverged", "lower it", code=Exit.NUMERIC), 5, "lr: diverged; fix: lower it"),
    (UserError("a", "b" * 1000, "c"), 2, "a: bbb"),
    (OSError(errno.ENOSPC, "No space left on device", "/runs/a b/x.pt"), 6, "/runs/a b/x.pt: no space left on device"),
    (PermissionError(errno.EACCES, "Permission denied", b"/x"), 6, "disk: permission denied"),
    (OSError(errno.EROFS, "Read-only file system"), 6, "disk: read-only file system"),
    (MemoryError(), 6, "batch_size: out of memory at batch size 64 (peak "),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 6, "batch_size: out of memory at batch size 64"),
]


@pytest.mark.parametrize(("error", "code", "said"), ENDS, ids=lambda value: type(value).__name__)
def test_errors_become_one_line_and_a_code(error, code, said, calls, capsys):
    def act(config):
        raise error

    calls.act = act
    assert run_verb("search", []) == code
    text = capsys.readouterr().err
    check_stderr(text, [said])
    assert len(text.splitlines()) == 1


def test_out_of_device_memory(calls, capsys):
    torch = pytest.importorskip("torch")

    def act(config):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore")

    calls.act = act
    assert run_verb("search", ["batch_size=512"]) == 6
    check_stderr(capsys.readouterr().err, ["batch_size: out of memory at batch size 512", "no smaller batch fits"])


@pytest.mark.parametrize(("error", "code"), [(Interrupted(2), 130), (Interrupted(15), 143), (KeyboardInterrupt(), 130)])
def test_interruptions(error, code, calls, capsys):
    def act(config):
        raise error

    calls.act = act
    assert run_verb("search", []) == code
    text = capsys.readouterr().err
    assert text.startswith("darts_lite: ") and text.count("\n") == 1 and "error" not in text


@pytest.mark.parametrize(
    "error", [ValueError("a bug\nof ours"), KeyError("x"), FileNotFoundError(2, "no", "x"), SystemExit(3)]
)
def test_a_bug_has_a_traceback_and_code_1(error, calls, capsys):
    def act(config):
        raise error

    calls.act = act
    assert run_verb("search", []) == 1
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert text.splitlines()[-1].startswith(f"darts_lite: error: {type(error).__name__}: ")


def test_debug_adds_the_traceback(calls, capsys, monkeypatch):
    monkeypatch.setenv("DARTS_LITE_DEBUG", "1")
    assert run_verb("search", ["epochs=0"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert text.splitlines()[-1].startswith("darts_lite: error: epochs: ")


def test_several_problems_of_a_verb(calls, capsys):
    def act(config):
        raise all_of([UserError("a", "b", "c"), UserError("d", "e", "f")])

    calls.act = act
    assert run_verb("search", []) == 2
    assert capsys.readouterr().err == "darts_lite: error: a: b; fix: c\ndarts_lite: error: d: e; fix: f\n"


def test_cfg_prints_and_does_not_run(calls, capsys):
    assert run_verb("search", ["--cfg", "job", "seed=5"]) == 0
    assert "seed: 5" in capsys.readouterr().out.splitlines()
    assert calls == []


def test_other_verbs(monkeypatch):
    got = []
    monkeypatch.setattr(
        darts_lite.evaluate,
        "evaluate",
        lambda config, **rest: got.append((config.run, rest["typed_keys"])),
        raising=False,
    )
    assert run_package(["evaluate", "run=a b"]) == 0
    assert got == [("a b", {"run"})]


def test_package_lists_verbs(capsys):
    assert run_package([]) == 0
    text = capsys.readouterr().out
    assert all(f"python -m darts_lite.{verb} " in text for verb in VERBS)
    assert run_package(["serach"]) == 2
    check_stderr(capsys.readouterr().err, ["verb: unknown name, got 'serach'", "did you mean 'search'?"])


@pytest.mark.parametrize("verb", VERBS)
def test_help_tells_examples_options_and_keys(verb, capsys):
    assert run_verb(verb, ["epochs=3", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{verb.capitalize()}: ") and f"python -m darts_lite.{verb}" in text
    for group in default_options(verb):
        assert all(option in text for option in group_options(group, verb))
        assert not group_options(group, verb) or f"\n  {group} " in text, group
    chosen = {*default_options(verb), *(f"{kind}.name" for kind in part_kinds(config_class(verb)))}
    for key in {*leaves(config_class(verb)), *part_options(verb)} - chosen:
        assert f"  {key}=" in text, key
    assert max(map(len, text.splitlines())) <= 130


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_light(verb, tmp_path):
    code = (
        "import sys; from darts_lite.cli.run import run_verb; "
        f"code = run_verb({verb!r}, ['-h']); "
        "heavy = {'torch', 'hydra', 'omegaconf', 'numpy', 'rich'} & set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_as_processes(tmp_path):
    done = run_process("darts_lite", [], tmp_path)
    assert done.returncode == 0 and "darts_lite.search" in done.stdout and done.stderr == ""
    done = run_process("darts_lite.search", ["--help"], tmp_path)
    assert done.returncode == 0 and "Search: " in done.stdout and done.stderr == ""
    done = run_process("darts_lite", ["search", "seed=x"], tmp_path)
    assert done.returncode == 2
    check_stderr(done.stderr, ["seed: must be an integer"])


def test_help_into_a_closed_pipe(tmp_path):
    command = f"{sys.executable} -m darts_lite.search --help | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "0" and done.stderr == ""


def test_plain_progress_prints_first_last_and_every_ten_seconds(capsys):
    now = [0.0]
    report = Plain(clock=lambda: now[0])
    for done in range(1, 101):
        report.progress(done, 100, "epoch 1/2")
        now[0] += 0.5
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[  1%] 1/100"
    assert lines[1] == "[ 21%] 21/100, 0:00:40 left"
    assert lines[-1] == "[100%] 100/100"
    assert len(lines) == 6


def test_plain_progress_starts_anew(capsys):
    report = Plain(clock=lambda: 0.0)
    for done, total in [(1, 2), (2, 2), (1, 2), (5, 9), (6, 9)]:
        report.progress(done, total, "x")
    assert capsys.readouterr().out.splitlines() == ["[ 50%] 1/2", "[100%] 2/2", "[ 50%] 1/2", "[ 55%] 5/9"]


def test_warnings_are_one_ascii_line(capsys):
    Plain().warning("ünd\nso\x1b")
    assert capsys.readouterr().err == "darts_lite: warning: \\xfcnd\\nso\\x1b\n"


def test_rich_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen, errors = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setenv("TERM", "xterm")
    report = console.create()
    report.line("[bold]as it is[/bold]")
    report.progress(1, 3, "epoch [1]")
    report.warning("careful")
    report.progress(3, 3, "epoch [1]")
    report.close()
    report.close()
    assert "[bold]as it is[/bold]" in screen.getvalue() and "epoch [1]" in screen.getvalue()
    assert errors.getvalue() == "darts_lite: warning: careful\n"


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
@pytest.mark.parametrize("done", [1, 24_999, 50_000])
def test_bar_counter_and_time_left_stay_and_only_the_text_is_shortened(columns, done, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    report = console.Rich()
    report.pace = SimpleNamespace(left=lambda done, total: 40_000.0)
    text = epoch_words(149, 150, {f"epoch/{part}/accuracy": 0.12345 for part in ("train", "validation", "test")})
    report.bar.start = lambda: None
    report.progress(done, 50_000, text)
    screen = io.StringIO()
    Console(file=screen, width=columns, force_terminal=True, color_system=None).print(report.bar.get_renderable())
    (line,) = screen.getvalue().splitlines()
    assert len(line.rstrip()) <= columns
    assert line[12:].startswith(f" {done:>5}/50000 11:06:40 left epoch 149/150"), "after a bar of twelve"
    assert ("test 12.3 %" in line) == (columns >= 100) and ("\u2026" in line) == (columns < 100)


def test_a_narrow_terminal_that_knows_only_ascii(monkeypatch):
    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    screen = Terminal(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    report = console.create()
    report.progress(1, 3, "epoch 1/9  train 12.3 %  größer")
    report.line("größer")
    report.close()
    screen.flush()
    said = screen.buffer.getvalue()
    assert b"-:--:-- left" in said and b"epoch 1/9" in said and b"gr\\xf6\\xdfer" in said


def test_time_left_has_its_place_before_it_is_known():
    assert [console.time_left(left) for left in (None, 0, 3725.2)] == ["-:--:--", "0:00:00", "1:02:05"]


def test_what_an_epoch_says_fits_beside_the_bar_at_80_columns():
    means = {"epoch/train/accuracy": 0.9123, "epoch/validation/accuracy": 0.786, "epoch/train/loss": 1.0}
    assert epoch_words(4, 12, means) == "epoch 4/12  train 91.2 %  val 78.6 %"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_lines_on_a_terminal_that_lacks_letters(encoding, monkeypatch):
    for make in (console.Rich, Plain):
        screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", screen)
        make().line("Größe\nzwei")
        screen.flush()
        said = screen.buffer.getvalue().decode(encoding)
        assert said == ("Größe\nzwei\n" if encoding == "utf-8" else "Gr\\xf6\\xdfe\nzwei\n")


@pytest.mark.parametrize("words", [[], ["-m"]])
@pytest.mark.parametrize("verb", VERBS)
def test_something_is_said_before_torch_is_loaded(verb, words, tmp_path):
    (tmp_path / "torch.py").write_text("import os\nos._exit(9)")
    done = subprocess.run(
        [sys.executable, "-m", f"darts_lite.{verb}", *words],
        cwd=tmp_path,
        env=environment(f"{tmp_path}{os.pathsep}{ROOT}"),
        capture_output=True,
        text=True,
    )
    first = done.stdout.splitlines()[0] if done.stdout else done.stderr
    assert (done.returncode, first) == (9, f"darts_lite {__version__}, {verb}: loading torch")


def test_on_a_terminal_something_is_said_before_hydra_is_loaded(tmp_path):
    (tmp_path / "hydra.py").write_text("import os\nos._exit(9)")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "darts_lite.search"],
        cwd=tmp_path,
        env=environment(f"{tmp_path}{os.pathsep}{ROOT}"),
        stdout=theirs,
    )
    os.close(theirs)
    with open(ours, "rb") as screen:
        assert (done.returncode, screen.readline()) == (
            9,
            f"darts_lite {__version__}, search: loading torch\r\n".encode(),
        )


def test_the_version_is_that_of_the_package():
    assert __version__ == tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


@pytest.mark.parametrize("module", ["darts_lite", *(f"darts_lite.{verb}" for verb in VERBS)])
def test_version_without_torch(module, tmp_path):
    for missing in ("torch", "hydra", "numpy"):
        (tmp_path / f"{missing}.py").write_text("raise SystemExit(9)")
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"],
        cwd=tmp_path,
        env=environment(f"{tmp_path}{os.pathsep}{ROOT}"),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"darts_lite {__version__}\n", "")


@pytest.mark.parametrize("words", [["--cfg", "job"], ["--help"], ["nope=1"], ["lr=nan"], ["seed=1,2"]])
def test_nothing_is_said_where_nothing_will_run(words, tmp_path):
    assert "loading torch" not in run_process("darts_lite.search", words, tmp_path).stdout


def test_files_inside_an_installed_package(tmp_path):
    shutil.copytree(ROOT / "darts_lite", tmp_path / "site/darts_lite", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", tmp_path / "site/darts_lite/conf")
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "darts_lite.search", "--cfg", "job", "preset=paper"],
        cwd=tmp_path / "here",
        env=environment(tmp_path / "site"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "preset: paper" in done.stdout
    assert list((tmp_path / "here").iterdir()) == []


def test_tab_completion(tmp_path):
    line = "darts-lite-search method="
    done = run_process(
        "darts_lite.search", ["-sc", "query=bash"], tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)), COMP_CWORD="1"
    )
    assert done.returncode == 0 and "method=darts_second_order" in done.stdout.split()
