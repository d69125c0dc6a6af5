"""Compiles csrc/cuda for the CPU: python tests/cuda_on_host/compile_on_host.py builds itrd_kernels/_cuda_on_host.so."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "csrc")]

import fingerprint  # noqa: E402
import host_compiler  # noqa: E402

ROOT = host_compiler.ROOT
LIBRARY = ROOT / "itrd_kernels" / "_cuda_on_host.so"
CUDA = ROOT / "csrc" / "cuda"
OUT = ROOT / "build" / "cuda_on_host"
FLAGS = ["-std=c++20", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-fvisibility=hidden", f"-I{HERE}"]


def kernels(cuda: Path = CUDA) -> list[Path]:
    return sorted(cuda.glob("*.cu"))


def build(
    target: Path,
    sources: list[Path],
    flags: list[str],
    libraries: list[str] | None = None,
    kernels: Path = CUDA,
    out: Path = OUT,
) -> Path:
    """Compile and link `sources` with the emulation in place of CUDA's headers."""
    folder = out / (target.parent.name if target.name == "program" else target.name)
    headers = [
        *HERE.glob("*.h"),
        *HERE.parent.glob("*.h"),
        *kernels.glob("*.cuh"),
        *kernels.glob("*.h"),
        *kernels.parent.glob("*.h"),
        *kernels.parent.glob("losses/*.h"),
    ]
    return host_compiler.build(
        target, folder, sources, headers, [*FLAGS, f"-I{kernels}", *flags], flags, libraries or []
    )


def library(target: Path = LIBRARY, out: Path = OUT) -> Path:
    """The operators itrd_cuda on CPU tensors; objects go to `out`."""
    to_compile, libraries = host_compiler.torch_flags()
    return build(
        target,
        [*kernels(), CUDA / "operators.cpp", fingerprint.write_source(out)],
        ["-O2", "-shared", "-DITRD_CUDA_ON_HOST", *to_compile],
        libraries,
        out=out,
    )


if __name__ == "__main__":
    print(library(*(Path(argument).resolve() for argument in sys.argv[1:])))
