"""Compiles csrc/cpu with AMX's tile instructions in plain C++: itrd_kernels/_cpu_emulated_tiles.so."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import host_compiler  # noqa: E402

ROOT = host_compiler.ROOT
CSRC = ROOT / "csrc"
FLAGS = ["-std=c++20", "-O3", "-fPIC", "-Wno-psabi", "-fno-math-errno", "-fvisibility=hidden"]


def library() -> Path:
    """The operators itrd_cpu."""
    to_compile, libraries = host_compiler.torch_flags()
    return host_compiler.build(
        ROOT / "itrd_kernels" / "_cpu_emulated_tiles.so",
        ROOT / "build" / "emulated_tiles",
        [CSRC / "ops.cpp", *sorted((CSRC / "cpu").glob("*.cpp"))],
        [*HERE.rglob("*.h"), *(CSRC / "cpu").glob("*.h"), CSRC / "stable.h"],
        # Whoever asks for cpu/tile_instructions.h finds the one here.
        [*FLAGS, f"-I{HERE}", f"-I{CSRC}", *to_compile],
        ["-shared"],
        libraries,
    )


if __name__ == "__main__":
    print(library())
