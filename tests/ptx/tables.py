"""Writes the tables of docs/evidence that come from the emulator.

python tests/ptx/tables.py                 # all of them, in about half an hour of one core
python tests/ptx/tables.py cuda-profile    # some of them: triton-errors, triton-profile, cuda-errors, …
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = map(str, (HERE, *(HERE.parent / name for name in ("triton", "triton/interpreted", "cuda_on_host", "."))))

from emulated_steps import KINDS, Step, StepFunction, case_of, check, errors, every_pair  # noqa: E402
from emulator.profiling import Profile  # noqa: E402
from emulator.roofline import GPUS, bound, step_us  # noqa: E402

PAGES = {"triton": "docs/evidence/triton-ptx.md", "cuda": "docs/evidence/cuda-ptx.md"}
SHOWN = {name: GPUS[name] for name in ("A100", "H100")}
STUDENT = (True, False, False)
# The steps of both backends: statistics, the tiles of W, Wẑ, and backward.
TILES, PRODUCT = 1, 2


class Size(NamedTuple):
    n: int
    d: int
    tile: int | None = None


def triton_step() -> StepFunction:
    from triton_steps import step

    return step


def cuda_step() -> StepFunction:
    import nvcc
    from cuda_steps import step

    if nvcc.NVCC is None:
        raise SystemExit(nvcc.MISSING)
    return step


def profiled(step: StepFunction, kind: str, size: Size) -> Step:
    """A step with the student's gradient, whose tile the CUDA backend is told."""
    if size.tile:
        os.environ["ITRD_PTX_TILE"] = str(size.tile)
    case = case_of(kind, size.n, size.d, want=STUDENT)
    try:
        return step(case, case.inputs(), profile=True)
    finally:
        os.environ.pop("ITRD_PTX_TILE", None)


def operations(profile: Profile) -> int:
    """Of the matrix units where they are used, else of the ordinary ones."""
    return profile.total["mma_flops"] or profile.flops["fp64"] or profile.flops["fp32"]


def peak(profile: Profile, gpu) -> float:
    """Operations per µs of the units on which the kernel multiplies, of the whole GPU."""
    if profile.mma:
        return min(gpu.tensor[dtype] for _, dtype in profile.mma) * 1e6
    lanes = gpu.fp64 if profile.flops["fp64"] else gpu.fp32
    return 2 * lanes * gpu.multiprocessors * gpu.ghz * 1e3


def profile_row(kind: str, size: Size, index: int, name: str, profile: Profile, tile: int | None) -> str:
    n, d = size.n, size.d
    total, item = profile.total, KINDS[kind][0].itemsize
    features = [b["reread"] for b in profile.buffers.values() if b["bytes"] == n * d * item]
    formed = {TILES: 2 * n * n * d * (1 + (tile or 0) / n), PRODUCT: 2 * n * n * d}.get(index)
    stated = f"{operations(profile) / formed:.2f}" if formed else "–"
    times = []
    for gpu in SHOWN.values():
        floor = total["compulsory_bytes"] / gpu.dram / 1e3
        if formed:
            floor = max(floor, 2 * n * n * d / peak(profile, gpu))
        times.append(f"{bound(profile, gpu).us:.1f} / {floor:.1f}")
    cells = (
        f"`{name}`", kind, n, tile if formed else "–", profile.blocks, f"{1 / total['coalescing']:.2f}",
        f"{max(features, default=0):.1f}", f"{total['sector_bytes'] / total['compulsory_bytes']:.2f}",
        f"{total['bank_conflicts']:.2f}", stated, *times,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def profile_table(step: StepFunction, sizes: Callable[[str], list[Size]]) -> Iterator[str]:
    yield (
        "| kernel | inputs | n | T | blocks | sectors / requested | features read | moved / compulsory | "
        "wavefronts / ideal | operations / stated | " + " | ".join(f"{name} µs / floor" for name in SHOWN) + " |"
    )
    yield "|" + "---|" * (10 + len(SHOWN))
    for kind in KINDS:
        for number, size in enumerate(sizes(kind)):
            for index, (name, stats) in enumerate(profiled(step, kind, size).launches):
                # What depends on neither n nor the tile is listed once.
                if number == 0 or index in (TILES, PRODUCT):
                    yield profile_row(kind, size, index, name, stats.profile, size.tile or triton_tile(kind, size.n))


def triton_tile(kind: str, n: int) -> int:
    from itrd_kernels.backends.triton import configurations

    dtype, tf32 = KINDS[kind]
    precision = configurations.precision(dtype, tf32, "sm_80")
    return configurations.choose(n, dtype, precision, "sm_80")[1].block


def step_table(step: StepFunction) -> Iterator[str]:
    yield "| n, d, T | inputs | " + " | ".join(f"{name} µs" for name in SHOWN) + " |"
    yield "|" + "---|" * (2 + len(SHOWN))
    for size, kinds in ((Size(256, 256, 32), KINDS), (Size(1024, 512, 64), ("float32", "tf32", "bfloat16"))):
        for kind in kinds:
            profiles = [stats.profile for _, stats in profiled(step, kind, size).launches]
            times = " | ".join(f"{step_us(profiles, gpu):.1f}" for gpu in SHOWN.values())
            yield f"| {size.n}, {size.d}, {size.tile} | {kind} | {times} |"


def errors_table(step: StepFunction) -> Iterator[str]:
    """Normwise, relative to float64: of n = d = 256, and the worst of the steps of the tests with more than 3 rows."""
    yield "| inputs | steps run | loss, aligned | gradient, aligned | loss, worst | gradient, worst |"
    yield "|" + "---|" * 6
    for kind in KINDS:
        aligned = case_of(kind, 256, 256, want=STUDENT)
        cases = [aligned]
        for chosen in every_pair.args[1]:
            of, shape, alpha, log, (beta_corr, beta_mi), want = chosen.values
            if of == kind and shape[0] > 3:
                settings = {"alpha": alpha, "log": log, "beta_corr": beta_corr, "beta_mi": beta_mi, "want": want}
                cases.append(case_of(kind, *shape, **settings))
        found = []
        for case in cases:
            inputs = case.inputs()
            off = errors(case, inputs, check(step, case, inputs).results)
            found.append([max((e for e in part if e is not None), default=0.0) for part in (off[:3], off[3:])])
        worst = [max(column) for column in zip(*found, strict=True)]
        cells = (kind, str(len(cases)), *(f"{value:.1e}" for value in (*found[0], *worst)))
        yield "| " + " | ".join(cells) + " |"


def tiles_of(kind: str) -> list[Size]:
    return [Size(256, 256, tile) for tile in (32, 64, 128) if kind != "float64" or tile <= 64]


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "triton-errors": lambda: errors_table(triton_step()),
    "triton-profile": lambda: profile_table(triton_step(), lambda kind: [Size(256, 256), Size(1024, 256)]),
    "cuda-errors": lambda: errors_table(cuda_step()),
    "cuda-profile": lambda: profile_table(cuda_step(), tiles_of),
    "cuda-step": lambda: step_table(cuda_step()),
}


def write(name: str) -> None:
    """The table between the two comments that carry its name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    lines = list(TABLES[name]())
    page = HERE.parents[1] / PAGES[name.split("-")[0]]
    text = page.read_text("utf-8")
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    page.write_text("\n".join([before, *lines, after]), "utf-8")
    print(f"{name}: {len(lines) - 2} rows")


if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in TABLES]
    if unknown:
        raise SystemExit(f"there is no table {unknown[0]}; there are {', '.join(TABLES)}")
    for name in sys.argv[1:] or TABLES:
        write(name)
