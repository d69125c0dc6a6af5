"""Compiles csrc/cuda for the CPU: python tests/cuda_on_host/compile_on_host.py builds itrd_kernels/_cuda_on_host.so.

Objects are kept in build/cuda_on_host and compiled again when a source or a header is newer.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CUDA = ROOT / "csrc" / "cuda"
OUT = ROOT / "build" / "cuda_on_host"
COMPILER = os.environ.get("CXX", "c++").split()
FLAGS = ["-std=c++20", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-fvisibility=hidden", f"-I{HERE}"]


def kernels(cuda: Path = CUDA) -> list[Path]:
    return sorted(cuda.glob("*.cu"))


def build(
    target: Path, sources: list[Path], flags: list[str], libraries: list[str] | None = None, kernels: Path = CUDA
) -> Path:
    """Compile and link `sources`; nothing to do where all is newer than what it is made from."""
    folder = OUT / (target.parent.name if target.name == "program" else target.name)
    folder.mkdir(parents=True, exist_ok=True)
    headers = [*HERE.glob("*.h"), *kernels.glob("*.cuh"), *kernels.glob("*.h"), ROOT / "csrc" / "stable.h"]

    def compile_one(source: Path) -> Path:
        result = folder / f"{source.name}.o"
        if not _newer(result, [source, *headers, Path(__file__)]):
            _run([*COMPILER, *FLAGS, f"-I{kernels}", *flags, "-x", "c++", "-c", str(source), "-o", str(result)])
        return result

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    if not _newer(target, objects):
        _run([*COMPILER, *flags, *map(str, objects), "-o", str(target), *(libraries or [])])
    return target


def library() -> Path:
    """The operators itrd_cuda on CPU tensors."""
    from torch.utils import cpp_extension

    includes = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    torch_libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
    return build(
        ROOT / "itrd_kernels" / "_cuda_on_host.so",
        [*kernels(), CUDA / "ops_cuda.cpp"],
        ["-O2", "-shared", "-DITRD_CUDA_ON_HOST", "-DTORCH_TARGET_VERSION=0x020b000000000000ULL", *includes],
        [*torch_libraries, "-ltorch", "-ltorch_cpu", "-lc10"],
    )


def _newer(result: Path, sources: list[Path]) -> bool:
    return result.exists() and all(result.stat().st_mtime >= source.stat().st_mtime for source in sources)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or done.stderr:
        print(" ".join(command[:1] + command[-3:]), done.stderr, file=sys.stderr)
    if done.returncode:
        raise RuntimeError(f"{command[-3]} does not compile")


if __name__ == "__main__":
    print(library())
