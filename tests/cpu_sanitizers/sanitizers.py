"""How the CPU kernels are compiled for the sanitizers, and bugs are planted in them."""

from pathlib import Path

import compile_emulated
from planted import planted

CSRC = compile_emulated.CSRC
OUT = compile_emulated.ROOT / "build" / "cpu_sanitizers"
FLAGS = {
    "address": ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
for flags in FLAGS.values():
    flags += ["-std=c++17", "-O1", "-g", "-pthread"]
# What nobody has written yet is NaN.
ASAN_OPTIONS = "max_malloc_fill_size=1000000000:malloc_fill_byte=255"
TSAN_OPTIONS = "history_size=7:halt_on_error=1"

# One element type is enough for a planted bug, and compiles four times as fast.
ONE_TYPE = [("isa/table.h", f"return f({kind}());", "return f(float());") for kind in ("double", "BFloat16", "Half")]


def with_bug(copy: Path, file: str, right: str, wrong: str) -> Path:
    """A copy of csrc with a bug in csrc/cpu, and with kernels of float32 alone."""
    changes = [*ONE_TYPE, (file, right, wrong)]
    return planted(CSRC, copy, [(f"cpu/{file}", right, wrong) for file, right, wrong in changes])
