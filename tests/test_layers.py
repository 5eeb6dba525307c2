"""What the package's source must look like: imports run one way, nothing slow at the door, nothing that executes data.

Everything is read with `ast`, so a rule holds for code that no test runs.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import darts_lite

PACKAGE = Path(darts_lite.__file__).parent
CONFIGS = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

# A room imports only from rooms above it in this list, and from itself.
ROOMS = (
    "errors",
    "seeds",
    "settings",
    "storage",
    "genotypes",
    "hardware",
    "operations",
    "costs",
    "data",
    "drawing",
    "spaces",
    "methods",
    "training",
    "classifier",
    "runs",
    "models",
    "proving",
    "benchmarking",
    "retrain",
    "search",
    "evaluate",
    "discretize",
    "doctor",
    "benchmark",
    "cli",
    "__main__",
)
RANK = {name: rank for rank, name in enumerate(ROOMS)}
VERBS = ("search", "retrain", "evaluate", "discretize", "doctor", "benchmark")
# A solver knows nothing of networks, relaxations or spaces.
ALONE = {
    "darts_lite.methods.solvers": ("darts_lite.errors", "darts_lite.settings.options", "darts_lite.methods.solvers")
}
WITHOUT_TORCH = (
    "errors",
    "seeds",
    "settings",
    "genotypes",
    "hardware.machine",
    *VERBS,
    "__main__",
    "cli.run",
    "cli.line",
    "cli.usage",
)
ONLY_IN = {"hydra": ("cli",), "omegaconf": ("cli",), "rich": ("cli",)}
# The only unpickler: of CIFAR's batches, once their MD5 sum is the published one; its `find_class` imports nothing.
UNPICKLER = ("darts_lite.data.published", "class PlainUnpickler(pickle.Unpickler)")
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}

FILES = {
    ".".join(("darts_lite", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in FILES.items()}
modules = pytest.mark.parametrize("module", TREES)


def room(module):
    """The room of a module: darts_lite.storage.run_folder -> storage."""
    return module.split(".")[1] if "." in module else ""


def targets(node, module):
    """The full names of what one import statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = module if module in FILES and FILES[module].name == "__init__.py" else module.rpartition(".")[0]
        base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [node.module])])
    return [f"{base}.{alias.name}" for alias in node.names]


def imports(tree, module, function=""):
    """(name, enclosing function) of everything a module imports; TYPE_CHECKING counts as a function."""
    for node in ast.iter_child_nodes(tree):
        inside = function
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside = function or node.name
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            inside = function or "TYPE_CHECKING"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((name, function) for name in targets(node, module))
        yield from imports(node, module, inside)


def own(name):
    """Whether `name` is a module of the package below its root."""
    return name.startswith("darts_lite.")


def faults(tree, module):
    """Imports that run upwards; the command line, the last room, is imported inside main() only."""
    for name, function in imports(tree, module):
        if not own(name):
            continue
        if room(name) not in RANK:
            yield f"{module} imports {name}, which is in no room"
        elif RANK[room(name)] > RANK[room(module)] and not (room(name) == "cli" and function == "main"):
            yield f"{module} imports {name}"
        for alone, allowed in ALONE.items():
            if module.startswith(alone) and not name.startswith(allowed):
                yield f"{module} imports {name}"


def needed(module):
    """The files that a module imports, in its functions too: names of modules. Inside main() is the command line."""
    names = (name for name, function in imports(TREES[module], module) if own(name) and function != "main")
    return {name if name in TREES else name.rpartition(".")[0] for name in names} - {module}


def loaded(module, trees, seen=None):
    """Top-level names of every third-party package that importing `module` loads, through the package's own modules."""
    seen = set() if seen is None else seen
    found = set()
    parents = [".".join(module.split(".")[:i]) for i in range(1, module.count(".") + 2)]
    for current in parents:
        if current in seen or current not in trees:
            continue
        seen.add(current)
        for name, function in imports(trees[current], current):
            if function:
                continue
            if name.split(".")[0] == "darts_lite":
                found |= loaded(name if name in trees else name.rpartition(".")[0], trees, seen)
            else:
                found.add(name.split(".")[0])
    return found


def docstrings(tree):
    """The constants that are documentation."""
    bodies = (node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list) and node.body)
    return {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}


def refusals(tree):
    """The constants in comparisons and in errors: what looks for `_target_` in order to refuse it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) or (isinstance(node, ast.Call) and ast.unparse(node.func) == "UserError"):
            yield from (id(part) for part in ast.walk(node))


def restricted_unpickler(tree, module):
    """The base of the one class that may be an unpickler, where that decides itself what a name stands for."""
    for node in tree.body if module == UNPICKLER[0] else ():
        if ast.unparse(node).partition(":")[0] == UNPICKLER[1]:
            decides = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "find_class"]
            own = decides and not any("super" in ast.unparse(part) for part in node.body)
            yield from (id(base) for base in node.bases if own)


def execution_faults(tree, module=""):
    """Ways of executing data: eval, exec, pickles, `_target_`, loads that are not restricted."""
    harmless = docstrings(tree) | set(refusals(tree))
    restricted = set(restricted_unpickler(tree, module))
    for node in ast.walk(tree):
        line = f"line {getattr(node, 'lineno', 0)}: "
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called.removeprefix("builtins.") in {"eval", "exec", "compile", "__import__"}:
                yield f"{line}{called}()"
            if called.endswith("torch.load") and keywords.get("weights_only") != "True":
                yield f"{line}torch.load without weights_only=True"
            if keywords.get("allow_pickle", "False") != "False" or keywords.get("weights_only", "True") != "True":
                yield f"{line}{called}(..., {keywords})"
            if called in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}:
                yield f"{line}{called}()"
            if called.split(".")[-1] == "instantiate":
                yield f"{line}{called}()"
        elif isinstance(node, ast.Attribute) and id(node) not in restricted:
            if node.attr == "Unpickler" or (ast.unparse(node.value) in PICKLES and node.attr[0].islower()):
                yield f"{line}{ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom) and node.module in PICKLES:
            bad = [alias.name for alias in node.names if alias.name not in {"PickleError", "UnpicklingError"}]
            if bad:
                yield f"{line}from {node.module} import {', '.join(bad)}"
        elif isinstance(node, ast.Constant) and id(node) not in harmless and "_target_" in str(node.value):
            yield f"{line}_target_"


@modules
def test_no_import_runs_upwards(module):
    if room(module):
        assert room(module) in RANK, f"{module} is in no room: add it to ROOMS"
        assert not list(faults(TREES[module], module))
    else:
        assert not list(imports(TREES[module], module)), "darts_lite/__init__.py imports nothing"


def test_no_files_import_each_other_in_a_circle():
    """Files are taken away as long as one needs none of the others; what is left is in a circle, or needs one."""
    left = {module: needed(module) for module in TREES}
    while free := [module for module, names in left.items() if not names & set(left)]:
        for module in free:
            del left[module]
    assert not left


@modules
def test_no_file_is_longer_than_300_lines(module):
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= 300


@modules
def test_hydra_and_rich_stay_at_the_door(module):
    found = {(name.split(".")[0], room(module)) for name, _ in imports(TREES[module], module)}
    assert not [pair for pair in found if pair[0] in ONLY_IN and pair[1] not in ONLY_IN[pair[0]]]


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_no_torch_before_it_is_needed(name):
    """--help, a mistyped key and a broken genotype are answered without the seconds that importing torch takes."""
    inside = [module for module in TREES if f"{module}.".startswith(f"darts_lite.{name}.")]
    assert inside
    for module in inside:
        assert not loaded(module, TREES) & {"torch", "torchvision", "tensorboard"}


def test_no_torch_in_a_fresh_process():
    """The same without `ast`, which does not see what importlib loads."""
    names = ", ".join(f"darts_lite.{name}" for name in WITHOUT_TORCH)
    check = f"import sys, {names}; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], cwd=PACKAGE.parent, check=True, timeout=60)


@modules
def test_nothing_executes_data(module):
    assert not list(execution_faults(TREES[module], module))


UNRESTRICTED = (
    "class PlainUnpickler(pickle.Unpickler):\n    pass",
    "class PlainUnpickler(pickle.Unpickler):\n    def find_class(self, *name):\n        return super().find_class(*name)",
    "class Other(pickle.Unpickler):\n    def find_class(self, *name):\n        return None",
)


def test_the_unpickler_is_one_class_in_one_file():
    module, source = UNPICKLER[0], FILES[UNPICKLER[0]].read_text(encoding="utf-8")
    assert not list(execution_faults(ast.parse(source), module))
    assert list(execution_faults(ast.parse(source), "darts_lite.data.npz"))
    for other in UNRESTRICTED:
        assert list(execution_faults(ast.parse(other), module)), other


def test_no_target_in_the_configuration():
    for path in CONFIGS.rglob("*.yaml"):
        assert "_target_" not in path.read_text(encoding="utf-8"), path


def test_torch_is_found_through_other_modules():
    sources = {
        "darts_lite": "",
        "darts_lite.search": "from darts_lite.runs.steps import Steps",
        "darts_lite.runs": "import torch.nn",
        "darts_lite.runs.steps": "",
        "darts_lite.retrain": "def retrain():\n    import torch\nif TYPE_CHECKING:\n    import torch",
    }
    trees = {name: ast.parse(source) for name, source in sources.items()}
    assert loaded("darts_lite.search", trees) == {"torch"}
    assert not loaded("darts_lite.retrain", trees)


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "exec(text)",
        "import pickle\npickle.load(file)",
        "pickle.loads",
        "from pickle import load",
        "class Loader(pickle.Unpickler): pass",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "hydra.utils.instantiate(config)",
        "key = '_target_'",
    ],
)
def test_execution_of_data_is_found(source):
    assert list(execution_faults(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "torch.load(path, weights_only=True)",
        "numpy.load(path, allow_pickle=False)",
        "try: f()\nexcept pickle.UnpicklingError: pass",
        '"""There is no `_target_`."""',
        "re.compile(pattern)",
        "if '_target_' in key: raise UserError(key, '_target_ is not allowed', 'give a plain value')",
    ],
)
def test_harmless_code_is_not(source):
    assert not list(execution_faults(ast.parse(source)))
