"""The kernels under AddressSanitizer, UBSan and ThreadSanitizer, and bugs planted in them that these must find.

`make sanitize` runs all of this file, which takes minutes; `make test` only the kernels without sanitizers.
"""

import os
import subprocess
from typing import NamedTuple

import compile_on_host as build
import pytest
from planted import planted

SANITIZERS = {
    "plain": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
FLAGS = ["-O1", "-g"]


def run(program, *arguments, seed=None):
    environment = {**os.environ, "TSAN_OPTIONS": "history_size=7 halt_on_error=1"}
    if seed is not None:
        environment["ITRD_EMULATION_SEED"] = str(seed)
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    "sanitizer", ["plain", *(pytest.param(name, marks=pytest.mark.slow) for name in ("address", "thread"))]
)
@pytest.mark.parametrize("program", ["driver", "pair_driver"])
def test_kernels_are_clean(compiled_once, program, sanitizer):
    sources = [build.HERE / f"{program}.cpp", *build.kernels()]
    driver = compiled_once(f"{program}_{sanitizer}", sources, [*FLAGS, *SANITIZERS[sanitizer]])
    for seed in (None, 1, 2, 3) if sanitizer == "plain" else (None,):
        done = run(driver, seed=seed)
        assert done.returncode == 0, (seed, done.stdout[-2000:], done.stderr[-4000:])
        assert "all cases agree" in done.stdout
    if program == "driver":
        done = run(driver, "workspace")
        assert done.returncode == 0, done.stdout


class Bug(NamedTuple):
    name: str
    file: str
    right: str
    wrong: str
    found_by: str
    message: str
    program: str = "driver"


BUGS = [
    Bug(
        "no barrier before a tile is read",
        "gram_tile.cuh",
        "      __syncthreads();\n      if (step + kStages - 1 < steps) copy(step + kStages - 1);",
        "      if (step + kStages - 1 < steps) copy(step + kStages - 1);",
        "thread",
        "data race",
    ),
    Bug(
        "no barrier before a tile's memory is used again",
        "gram_tile.cuh",
        "    copy_wait<0>();\n    __syncthreads();\n",
        "    copy_wait<0>();\n",
        "thread",
        "data race",
    ),
    Bug(
        "no barrier between two sums over the block",
        "reduce.cuh",
        "op, 1, kMaxWarps);\n  __syncthreads();\n",
        "op, 1, kMaxWarps);\n",
        "thread",
        "data race",
    ),
    Bug(
        "no order between the blocks and the last one",
        "reduce.cuh",
        "  __threadfence();\n  __syncthreads();\n  if (threadIdx.x == 0) *shared",
        "  __syncthreads();\n  if (threadIdx.x == 0) *shared",
        "thread",
        "data race",
    ),
    Bug(
        "columns beyond the end of a row",
        "gram_tile.cuh",
        "row < from.n ? width - k - offset : 0",
        "row < from.n ? kElementsPerRow : 0",
        "address",
        "heap-buffer-overflow",
    ),
    Bug(
        "fragments of the wrong half",
        "mma.cuh",
        "lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2",
        "lane / 8 % 2 * 8 + lane % 8, 2 * step + lane / 16",
        "plain",
        "is off by",
    ),
    Bug(
        "an exit before a barrier",
        "column_moments.cuh",
        "  if (begin < end) {\n",
        "  if (begin >= end) return;\n  if (begin < end) {\n",
        "plain",
        "some threads have ended while others wait",
    ),
    Bug(
        "the last rows dropped",
        "column_moments.cuh",
        "end = min((chunk + 1) * c.chunk_rows, c.n)",
        "end = min((chunk + 1) * c.chunk_rows, c.n / 4 * 4)",
        "plain",
        "is off by",
    ),
    Bug(
        "a wait that does not cover the copy",
        "gram_tile.cuh",
        "      copy_wait<kStages - 2>();",
        "      copy_wait<kStages - 1>();",
        "plain",
        "is off by",
    ),
    Bug(
        "no order between the steps of a warp",
        "pair_tile.cuh",
        "    __syncwarp();\n",
        "",
        "thread",
        "data race",
        "pair_driver",
    ),
    Bug(
        "no barrier before the parts of sums are added",
        "pair_tile.cuh",
        "warp, r) = row_sums[k];\n  __syncthreads();\n",
        "warp, r) = row_sums[k];\n",
        "thread",
        "data race",
        "pair_driver",
    ),
    Bug(
        "no barrier between the tile and the sums over the block",
        "pair_tile.cuh",
        "  __syncthreads();\n  reduce_block(sums",
        "  reduce_block(sums",
        "thread",
        "data race",
        "pair_driver",
    ),
    Bug(
        "rows of the whole where the panel's are meant",
        "pair_tile.cuh",
        "i0 + at - g.row0]",
        "i0 + at]",
        "address",
        "heap-buffer-overflow",
        "pair_driver",
    ),
    Bug(
        "own rows as many as column rows",
        "gram_tile.cuh",
        "of.t.z.sixteen, of.n};",
        "of.t.z.sixteen, columns.n};",
        "address",
        "heap-buffer-overflow",
        "pair_driver",
    ),
    Bug(
        "the mirror image without the other row's part",
        "pair_tile.cuh",
        "        w_s += back.w_s;\n",
        "",
        "plain",
        "is off by",
        "pair_driver",
    ),
]

# One element type is enough for a planted bug, and compiles four times as fast.
ONE_TYPE = [
    *((f"{file}.cu", f"ITRD_INSTANTIATE({kind})\n", "")
      for file in ("statistics", "correlation", "gram_tiles", "gram_gradients", "pair_rows", "pair_tiles", "pair_sums")
      for kind in ("double", "__half", "__nv_bfloat16")),
    ("launch.cuh", "  switch (type) {\n", "  return run(float());\n  switch (type) {\n"),
    *(("launch.cuh", f"return run({kind}());", "return;") for kind in ("double", "__half", "__nv_bfloat16")),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_planted_bug_is_found(compiled_once, tmp_path, bug):
    changes = [*ONE_TYPE, (bug.file, bug.right, bug.wrong)]
    # With what the kernels include from the folder above theirs.
    csrc = planted(build.CUDA.parent, tmp_path / "csrc", [(f"cuda/{file}", *texts) for file, *texts in changes])
    kernels = csrc / "cuda"
    name = "planted_" + bug.name.replace(" ", "_").replace("'", "")
    sources = [build.HERE / f"{bug.program}.cpp", *build.kernels(kernels)]
    driver = compiled_once(name, sources, [*FLAGS, *SANITIZERS[bug.found_by]], kernels=kernels)
    done = run(driver, "quick")
    assert done.returncode != 0
    assert bug.message in done.stdout + done.stderr
