"""Compiles Triton kernels for a GPU that is not here, in a process in which triton does not interpret them.

    python tests/operations/compile_kernels.py 90 < kernels.json

reads a list of [module, kernel, types of the arguments, constants] and prints one line for each: name, registers, bytes spilled.
"""

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


def compiled(kernel, types, constants, capability):
    """(registers of a thread, bytes that it spills)."""
    settings = {name: value for name, value in constants.items() if name != "num_warps"}
    names = [parameter.name for parameter in kernel.params]
    signature = dict(zip(names, types, strict=False)) | dict.fromkeys(settings, "constexpr")
    aligned = {(number,): [["tt.divisibility", 16]] for number, kind in enumerate(types) if kind.startswith("*")}
    source = ASTSource(kernel, signature, settings, aligned)
    options = {"num_warps": constants["num_warps"]}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptxas = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(made.asm["ptx"])
        file.flush()
        target = f"sm_{capability}" + ("a" if capability == 90 else "")
        call = [ptxas, "-v", f"--gpu-name={target}", file.name, "-o", "/dev/null"]
        said = subprocess.run(call, capture_output=True, text=True, check=True).stderr
    return [int(re.search(text, said)[1]) for text in (r"Used (\d+) registers", r"(\d+) bytes spill stores")]


if __name__ == "__main__":
    for module, name, types, constants in json.load(sys.stdin):
        kernel = getattr(importlib.import_module(module), name)
        print(module, name, *compiled(kernel, types, constants, int(sys.argv[1])))
