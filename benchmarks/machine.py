"""What this machine is and what it can do: its name, its caches, its FMA rate, its copy bandwidth."""

import ctypes
import os
import platform
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

HERE = Path(__file__).parent


def processor_name() -> str:
    if platform.system() == "Linux":
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def has(flag: str) -> bool:
    """Whether the processor has what Linux calls so: avx512_bf16, amx_int8, …"""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and flag in cpuinfo.read_text("utf-8").split()


def last_level_cache() -> int:
    """Bytes; 32 MiB where the system does not tell."""
    found = [(0, 32 * 2**20)]
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        size = (index / "size").read_text("utf-8").strip()
        found.append((int((index / "level").read_text("utf-8")), int(size.removesuffix("K")) * 2**10))
    return max(found)[1]


def available_memory() -> int:
    """Bytes that can be taken without swapping; 4 GiB where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text("utf-8").splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 2**10
    return 4 * 2**30


@contextmanager
def kept_memory() -> Iterator[None]:
    """Freed memory stays with the process (glibc), so that a step's results lie in pages that exist already.

    A fresh page costs more than the bytes written to it, and a copy into an existing array pays nothing of the kind.
    Afterwards glibc no longer adapts its thresholds, which made the plain formula up to 1.6 times slower: use it last.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    trim_threshold, mmap_max, largest, default_trim, default_mmaps = -1, -4, 2**31 - 1, 2**17, 2**16
    libc.mallopt(trim_threshold, largest)
    libc.mallopt(mmap_max, 0)
    try:
        yield
    finally:
        libc.mallopt(trim_threshold, default_trim)
        libc.mallopt(mmap_max, default_mmaps)


def copy_once(source: torch.Tensor, target: torch.Tensor) -> float:
    """Bytes read and written per second by one copy into memory that is mapped already, all threads."""
    start = time.perf_counter()
    target.copy_(source)
    return 2 * source.nbytes / (time.perf_counter() - start)


def build_fma_rate(directory: Path) -> Callable[[int], float]:
    """Compile fma_rate.cpp; returns a function from a number of threads to floating-point operations per second.

    Raises:
        RuntimeError: there is no compiler, or it refuses.
    """
    library = directory / "fma_rate.so"
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    options = ["-O3", "-march=native", "-shared", "-fPIC", "-fopenmp"]
    try:
        command = [*compiler, *options, str(HERE / "fma_rate.cpp"), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise RuntimeError(f"no C++ compiler: {error}") from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"fma_rate.cpp does not compile: {error.stderr}") from error
    function = ctypes.CDLL(str(library)).fma_rate
    function.argtypes, function.restype = [ctypes.c_int, ctypes.c_double], ctypes.c_double

    return lambda threads: function(threads, 0.02)


def build_null_operators(directory: Path) -> torch._ops._OpNamespace:
    """Compile and load null_operators.cpp."""
    from torch.utils import cpp_extension

    cpp_extension.load(
        "itrd_null",
        [str(HERE / "null_operators.cpp")],
        extra_cflags=["-O3", "-DTORCH_TARGET_VERSION=0x020b000000000000ULL"],
        extra_include_paths=[str(HERE.parent / "csrc")],
        build_directory=str(directory),
        is_python_module=False,
    )
    return torch.ops.itrd_null
