"""The CPU kernels without torch under AddressSanitizer, UBSan and ThreadSanitizer, and bugs that these must find.

Python is left out since ThreadSanitizer would report PyTorch's own threads. `make sanitize` runs all of this.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import compile_emulated
import pytest
from instruction_sets import SETS, why_not
from sanitizers import ASAN_OPTIONS, CSRC, FLAGS, OUT, TSAN_OPTIONS, with_bug

pytestmark = pytest.mark.slow


def compiled(name: str, sanitizer: str, sets: tuple[str, ...] = SETS, csrc: Path = CSRC) -> Path:
    """The driver of the kernels of these instruction sets."""
    named = " ".join(f"X({isa})" for isa in sets)
    sources = [
        Path(__file__).parent / "driver.cpp",
        csrc / "cpu" / "buffer.cpp",
        *(csrc / "cpu" / "isa" / f"{isa}.cpp" for isa in sets),
    ]
    flags = [*FLAGS[sanitizer], f"-DITRD_SETS={named}"]
    return compile_emulated.build(OUT / name / "program", OUT / name, sources, flags, csrc=csrc)


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "ASAN_OPTIONS": ASAN_OPTIONS, "TSAN_OPTIONS": TSAN_OPTIONS}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("sanitizer", FLAGS)
def test_kernels_are_clean(sanitizer, isa):
    if refused := why_not(isa):
        pytest.skip(refused.splitlines()[-1])
    done = run(compiled(sanitizer, sanitizer), isa)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert int(re.search(r"all (\d+) cases agree", done.stdout)[1]) > 90


class Bug(NamedTuple):
    name: str
    file: str
    right: str
    wrong: str
    found_by: str
    message: str
    isa: str = "portable"


BUGS = [
    Bug(
        "a whole vector at a row's ragged end is read",
        "correlation/moments.h",
        "add_group<T, C, false>(at, rows",
        "add_group<T, C, true>(at, rows",
        "address",
        "READ of size 16",
    ),
    Bug(
        "a whole vector at a row's ragged end is written",
        "backward.h",
        "      whole ? store<T, C>(to, gradient[r]) : store_some<T, C>(to, gradient[r], count);",
        "      store<T, C>(to, gradient[r]);",
        "address",
        "WRITE of size 16",
    ),
    Bug(
        "rows that do not exist are read",
        "gram/direct.h",
        "z.row<T>(std::min(i, n_ - 1)) + k",
        "z.row<T>(i) + k",
        "address",
        "heap-buffer-overflow",
        "avx2",
    ),
    Bug(
        "memory for the tiles of one thread",
        "gram/packed.h",
        "tiles_(allocate<C>(threads * tiles_size()))",
        "tiles_(allocate<C>(tiles_size()))",
        "address",
        "AddressSanitizer: ",
    ),
    Bug(
        "memory that was given back is read",
        "gram/packed_side.h",
        "void unpack(const Matrix& result, int threads) const {\n",
        "void unpack(const Matrix& result, int threads) const {\n const_cast<PackedSide*>(this)->memory_.reset();\n",
        "address",
        "use-after-poison",
    ),
    Bug(
        "memory is never given back",
        "buffer.h",
        "{ give_back_memory(data, bytes); }",
        "{ if (bytes == 1) give_back_memory(data, bytes); }",
        "address",
        "detected memory leaks",
    ),
    Bug(
        "an array too short for the scales of its rows",
        "gram/amx.h",
        "float scale[kTaskPanels * kPanel]",
        "float scale[kPanel]",
        "address",
        "stack-buffer-overflow",
        "amx",
    ),
    Bug(
        "sums that start from what is there",
        "gram/packed_side.h",
        "Accumulate<C>{tile + r * kPanel, k > 0}",
        "Accumulate<C>{tile + r * kPanel, true}",
        "address",
        "is off by",
    ),
    Bug(
        "moments that start from what is there",
        "correlation/loss.h",
        "  std::fill_n(partial.get(), chunks * 5 * d, 0.0);\n",
        "",
        "address",
        "is off by",
    ),
    Bug(
        "a vector is read where it is not aligned",
        "simd/load_store.h",
        "    Vector<C> x;\n    std::memcpy(&x, from, sizeof x);\n    return x;",
        "    return *reinterpret_cast<const Vector<C>*>(from);",
        "address",
        "misaligned address",
        "avx512",
    ),
    Bug(
        "sizes are counted in 32 bits",
        "backward.h",
        "out.rows * out.columns * int64_t(sizeof(T)) >= kSmallestStreamed",
        "int(out.rows) * int(out.columns) * int(8 * sizeof(T)) * 8 >= 64",
        "address",
        "signed integer overflow",
    ),
    Bug(
        "an index beyond an array",
        "gram/register_tile.h",
        "for (int64_t i = 0; i < lanes; ++i) x[i] = load<C, C>(from + (r + i) * kPanel + c);",
        "for (int64_t i = 0; i <= lanes; ++i) x[i] = load<C, C>(from + (r + i) * kPanel + c);",
        "address",
        "out of bounds",
    ),
    Bug(
        "threads share the memory for tiles",
        "gram/packed.h",
        "tiles_.get() + thread * tiles_size()",
        "tiles_.get()",
        "thread",
        "data race",
    ),
    Bug(
        "threads add to one row sum",
        "gram/pairs.h",
        "        s_.products(pairs, begin, end, tiles);\n",
        "        s_.products(pairs, begin, end, tiles);\n        row_sums_[0].s[0] += 0;\n",
        "thread",
        "data race",
    ),
    Bug(
        "one partial sum for all pairs of panels",
        "gram/pairs.h",
        "std::vector<Partial> partial(pairs.size());",
        "std::vector<Partial> partial(1);",
        "address",
        "heap-buffer-overflow",
    ),
    Bug(
        "threads share the memory for operands",
        "gram/amx.h",
        "int8_t* const operands = operands_.get() + thread * kThreadOperands;",
        "int8_t* const operands = operands_.get();",
        "thread",
        "data race",
        "amx",
    ),
    Bug(
        "threads add to one sum",
        "gram/sweep.h",
        "      engine.form_weights(block, pairs, range, gradient, c, partial, thread);\n",
        "      engine.form_weights(block, pairs, range, gradient, c, partial, thread);\n      total.s += 0;\n",
        "thread",
        "data race",
    ),
    Bug(
        "two threads have a part in common",
        "interface.h",
        "end(count * (thread + 1) / threads)",
        "end(count * (thread + 1) / threads + (thread + 1 < threads && count >= threads))",
        "thread",
        "data race",
    ),
    Bug(
        "every thread writes all rows",
        "backward.h",
        "const Range range((n + rows - 1) / rows, thread, threads);",
        "const Range range((n + rows - 1) / rows, 0, 1);",
        "thread",
        "data race",
    ),
    Bug(
        "squares are used before all threads have formed theirs",
        "gram/direct.h",
        "partial[i] = epilogue(i, gradient, c);",
        "partial[groups_ - 1 - i] = epilogue(groups_ - 1 - i, gradient, c);",
        "thread",
        "data race",
        "avx512",
    ),
    Bug(
        "threads keep memory in one place",
        "buffer.cpp",
        "static thread_local Kept blocks;",
        "static Kept blocks;",
        "thread",
        "data race",
    ),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_planted_bug_is_found(tmp_path, bug):
    if refused := why_not(bug.isa):
        pytest.skip(refused.splitlines()[-1])
    csrc = with_bug(tmp_path / "csrc", bug.file, bug.right, bug.wrong)
    name = "planted_" + re.sub(r"\W+", "_", bug.name)
    done = run(compiled(name, bug.found_by, (bug.isa,), csrc), bug.isa, "float32")
    assert done.returncode != 0
    assert bug.message in done.stdout + done.stderr, done.stdout[-2000:] + done.stderr[-4000:]
