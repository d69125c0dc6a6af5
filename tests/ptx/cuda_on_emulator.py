"""The CUDA backend's operators on CPU tensors: the host does what it does on a GPU, and the emulator executes the PTX
that nvcc makes of each kernel that is launched."""

import ctypes
import functools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import compile_on_host
import host_compiler
import numpy as np
import nvcc
import torch
from emulator import Module, Stats

HERE = Path(__file__).parent
CSRC = nvcc.ROOT / "csrc"
# The library that the package has loaded registers itrd_cuda, so that this one needs another name.
NAMESPACE = "itrd_ptx"

LAUNCHER = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, *[ctypes.c_uint] * 3, ctypes.c_int, ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t), ctypes.c_int,
)  # fmt: skip


def _shared_headers(csrc: Path) -> list[Path]:
    return [*csrc.glob("*.h"), *csrc.glob("losses/*.h")]


def _copied_sources() -> Path:
    """A copy of csrc/ whose operators have the other name, and whose tiles ITRD_PTX_TILE forces."""
    copy = nvcc.OUT / "csrc"
    changes = {
        r"(STABLE_TORCH_LIBRARY\w*\()itrd_cuda": rf"\1{NAMESPACE}",
        r"(problem\.capability = device\.capability\(\);)":
            r'\1 if (const char* tile = std::getenv("ITRD_PTX_TILE")) problem.tile = std::atoi(tile);',
    }  # fmt: skip
    for source in [*_shared_headers(CSRC), *(CSRC / "cuda").iterdir()]:
        target = copy / source.relative_to(CSRC)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text()
        for pattern, replacement in changes.items():
            text = re.sub(pattern, replacement, text)
        # What has not changed keeps its time, and need not be compiled again.
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
            shutil.copystat(source, target)
            os.utime(target)
    return copy


@functools.cache
def library() -> ctypes.CDLL:
    """The operators, built where they are out of date, and registered."""
    cuda = _copied_sources() / "cuda"
    to_compile, libraries = host_compiler.torch_flags()
    headers = [*cuda.glob("*.cuh"), *cuda.glob("*.h"), *_shared_headers(cuda.parent), *(HERE / "cuda").glob("*.h"),
               *compile_on_host.HERE.glob("*.h")]  # fmt: skip
    flags = [*compile_on_host.FLAGS, f"-I{cuda}", "-iquote", str(HERE / "cuda"), "-fvisibility=default", "-O1",
             "-DITRD_CUDA_ON_HOST", *to_compile]  # fmt: skip
    path = host_compiler.build(
        nvcc.OUT / "operators.so", nvcc.OUT / "objects",
        [*sorted(cuda.glob("*.cu")), *cuda.glob("*.cpp"), HERE / "cuda/recording.cpp"],
        headers, flags, ["-shared"], [*libraries, "-ldl"],
    )  # fmt: skip
    torch.ops.load_library(path)
    loaded = ctypes.CDLL(str(path))
    loaded.itrd_piece.restype = ctypes.c_size_t
    loaded.itrd_piece.argtypes = [ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t)]
    return loaded


@functools.cache
def modules() -> dict[str, Module]:
    """By kernel: the module of nvcc's PTX that holds it."""
    headers = [*(CSRC / "cuda").glob("*.cuh"), *(CSRC / "cuda").glob("*.h"), *_shared_headers(CSRC)]
    found = {}
    for source in sorted((CSRC / "cuda").glob("*.cu")):
        module = Module(nvcc.ptx(source, headers=headers))
        found |= dict.fromkeys(module.entries, module)
    return found


def _buffers(parameters: list[bytes]) -> list[np.ndarray]:
    """The pieces of memory to which the parameters point."""
    pieces, first = {}, ctypes.c_size_t()
    for parameter in parameters:
        for at in range(0, len(parameter) - 7, 8):
            word = int.from_bytes(parameter[at : at + 8], "little")
            if size := library().itrd_piece(word, first):
                pieces[first.value] = size
    return [np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address)) for address, size in pieces.items()]


def readable(kernel: str) -> str:
    """The plain name of a mangled one: the last of the nested names before the template's arguments."""
    name, rest = "", kernel.removeprefix("_ZN").removeprefix("_Z")
    while found := re.match(r"(\d+)", rest):
        length = int(found[1])
        name, rest = rest[found.end() : found.end() + length], rest[found.end() + length :]
    return name or kernel


@contextmanager
def executing(note: Callable[[str, Stats], None] | None = None, **how) -> Iterator[None]:
    """Within it the operators of NAMESPACE run on the emulator; tensors for them must be made within it too.

    `note` gets each launch's kernel and Stats, `how` goes to every launch.
    """
    failures = []

    def take(kernel, x, y, z, block, shared, parameters, sizes, count) -> None:
        # After a failure nothing that follows means anything.
        if failures:
            return
        try:
            name = kernel.decode()
            arguments = [ctypes.string_at(parameters[i], sizes[i]) for i in range(count)]
            stats = modules()[name].launch(
                name, (x, y, z), block, arguments, shared, buffers=_buffers(arguments), **how
            )
            assert not stats.found, f"{name}: {stats}"
            if note:
                note(name, stats)
        except BaseException as error:
            failures.append(error)

    launcher = LAUNCHER(take)
    library().itrd_set_launcher(launcher)
    library().itrd_record(True)
    try:
        yield
        if failures:
            raise failures[0]
    finally:
        library().itrd_record(False)
