"""Triton kernels compiled for sm_80 without a GPU, and executed on CPU tensors.

stats = run(kernel, (grid,), x, y, n, BLOCK=128, num_warps=4)  # tensors are updated in place
interpret(kernel, (grid,), x, y, n, BLOCK=128)                 # the same call through Triton's interpreter
"""

import functools
import importlib
import inspect
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from compiled import OPTIONS, Launch, specialised
from compiled import build as compiled_by_triton
from emulator import Module, Stats

ARCHITECTURE = "sm_80"

# One module per PTX text, so that a kernel is translated to Python once however often it is launched.
module_of = functools.cache(Module)


def execute(item: Launch, grid: tuple | None = None, edit=None, **how) -> Stats:
    """Execute a launch of compiled.py; `edit` changes the PTX first, `how` goes to `Module.launch`."""
    module, name, compiled, values = build(item)
    if edit:
        module = Module(edit(module.text))
    scratch = compiled.metadata.global_scratch_size or getattr(compiled.metadata, "profile_scratch_size", 0)
    if scratch:
        raise NotImplementedError(f"{name} wants {scratch} bytes of global scratch memory, which nobody allocates here")
    block = 32 * compiled.metadata.num_warps
    return module.launch(name, grid or item.programs, block, values, shared_bytes=compiled.metadata.shared, **how)


def build(item: Launch):
    """(emulator's module, kernel's name, Triton's compiled kernel, run-time arguments)."""
    compiled = compiled_by_triton(item, ARCHITECTURE)
    return module_of(compiled.asm["ptx"]), compiled.metadata.name, compiled, specialised(item)[-1]


def run(kernel, grid: tuple, *arguments, edit=None, how=None, **constants) -> Stats:
    """What kernel[grid](*arguments, **constants) would launch; `how` holds options of `Module.launch`."""
    return execute(Launch(kernel, grid[0], arguments, constants), grid, edit, **(how or {}))


def interpret(kernel, grid: tuple, *arguments, **constants) -> None:
    """The same call through Triton's interpreter, in a process of its own, since it is chosen before Triton is
    imported; the file that defines the kernel is imported there. Tensors are updated in place."""
    constants = {name: value for name, value in constants.items() if name not in OPTIONS}
    source = Path(inspect.getsourcefile(kernel.fn))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "call")
        torch.save((source.parent, source.stem, kernel.fn.__name__, grid, arguments, constants), file)
        done = subprocess.run(
            [sys.executable, __file__, file],
            env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{kernel.fn.__name__} does not run in Triton's interpreter: {done.stderr}")
        for mine, theirs in zip(arguments, torch.load(file, weights_only=False), strict=True):
            if isinstance(mine, torch.Tensor):
                mine.copy_(theirs)


def _interpret_in_this_process(file: str) -> None:
    folder, module, name, grid, arguments, constants = torch.load(file, weights_only=False)
    sys.path.insert(0, str(folder))
    getattr(importlib.import_module(module), name)[grid](*arguments, **constants)
    torch.save(arguments, file)


if __name__ == "__main__":
    _interpret_in_this_process(sys.argv[1])
