"""Compiles csrc/cpu with AMX's tile instructions in plain C++: itrd_kernels/_cpu_emulated_tiles.so."""

import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import host_compiler  # noqa: E402

ROOT = host_compiler.ROOT
CSRC = ROOT / "csrc"
TARGET = ROOT / "itrd_kernels" / "_cpu_emulated_tiles.so"
OUT = ROOT / "build" / "emulated_tiles"


def build(
    target: Path,
    objects: Path,
    sources: list[Path],
    flags: Sequence[str],
    libraries: list[str] | None = None,
    csrc: Path = CSRC,
) -> Path:
    """`sources` with kernels of csrc."""
    # Whoever asks for cpu/gram/amx_instructions.h finds the one here.
    includes = [f"-I{HERE}", f"-I{csrc}"]
    headers = [*HERE.rglob("*.h"), *HERE.parent.glob("*.h"), *csrc.glob("*.h"), *csrc.glob("cpu/**/*.h")]
    options = ["-fPIC", "-Wno-psabi", "-fno-math-errno", "-fvisibility=hidden"]
    return host_compiler.build(
        target, objects, sources, headers, [*options, *includes, *flags], [*flags], libraries or []
    )


def library(
    target: Path = TARGET, objects: Path = OUT, flags: Sequence[str] = ("-std=c++20", "-O3"), csrc: Path = CSRC
) -> Path:
    """The operators itrd_cpu."""
    to_compile, libraries = host_compiler.torch_flags()
    sources = sorted(csrc.glob("cpu/**/*.cpp"))
    return build(target, objects, sources, [*flags, "-shared", *to_compile], libraries, csrc)


if __name__ == "__main__":
    print(library())
