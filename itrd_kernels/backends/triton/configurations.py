"""Block sizes, warps and pipeline stages, from small tables: by dtype and precision, by size, by architecture.

The buckets are coarse, so that a last, smaller batch compiles at most one more variant, once.
"""

import functools
from typing import NamedTuple

import torch
import triton

# Where an older Triton compiles something worse, or not at all.
VERSION = tuple(map(int, triton.__version__.split(".")[:2]))


class Statistics(NamedTuple):
    """`statistics`: rows of a program, and the columns that it takes at a time."""

    rows: int
    columns: int = 128
    warps: int = 4


class GramTiles(NamedTuple):
    """`gram_tiles`: BLOCK × BLOCK tiles of W, DEPTH features at a time."""

    block: int
    depth: int
    warps: int
    stages: int


class GramGradients(NamedTuple):
    """`gram_gradients`: BLOCK rows (the tiles') × `columns` per program, DEPTH rows of ẑ at a time."""

    columns: int
    depth: int
    warps: int
    stages: int


class Configuration(NamedTuple):
    statistics: Statistics
    gram_tiles: GramTiles
    gram_gradients: GramGradients


# Up to this n tiles of 32 rows, so that there are enough of them to fill a GPU; beyond, tiles of 64. Larger ones spill.
SMALL = 512

# "half" and "tf32" use the matrix units; "ieee" is float32 on the ordinary units; "double" is float64.
TABLES: dict[str, tuple[tuple[GramTiles, GramGradients], tuple[GramTiles, GramGradients]]] = {
    "half": (
        (GramTiles(32, 64, 4, 3), GramGradients(64, 32, 4, 3)),
        (GramTiles(64, 64, 4, 3), GramGradients(128, 32, 8, 3)),
    ),
    "tf32": (
        (GramTiles(32, 32, 4, 3), GramGradients(64, 32, 4, 3)),
        (GramTiles(64, 32, 4, 3), GramGradients(128, 32, 8, 3)),
    ),
    "ieee": (
        (GramTiles(32, 32, 4, 2), GramGradients(32, 32, 4, 2)),
        # The ordinary units keep DEPTH rows of operands in registers: 128 columns spill where widths are not aligned.
        (GramTiles(64, 16, 8, 2), GramGradients(64, 16, 8, 2)),
    ),
    "double": (
        (GramTiles(32, 16, 4, 2), GramGradients(32, 16, 4, 2)),
        (GramTiles(32, 16, 4, 2), GramGradients(32, 16, 4, 2)),
    ),
}

# `gradients` and the programs that merge moments.
GRADIENT_ROWS, GRADIENT_COLUMNS = 16, 128
MERGE_BLOCKS, MERGE_COLUMNS = 32, 32


@functools.cache
def architecture(device: torch.device) -> str:
    """ "sm_90", "gfx942", … of a GPU; the interpreter on CPU tensors counts as sm_80."""
    if device.type != "cuda":
        return "sm_80"
    if torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def precision(dtype: torch.dtype, tf32: bool, arch: str) -> str:
    """Triton's `input_precision`: tf32 only where the user allows it and the architecture has it."""
    has_tf32 = arch.startswith("sm_") or arch == "gfx942"
    return "tf32" if dtype == torch.float32 and tf32 and has_tf32 else "ieee"


def kind(dtype: torch.dtype, precision: str) -> str:
    if dtype == torch.float64:
        return "double"
    if dtype == torch.float32:
        return precision
    return "half"


def choose(n: int, dtype: torch.dtype, precision: str, arch: str) -> Configuration:
    tiles, gradients = TABLES[kind(dtype, precision)][0 if n <= SMALL else 1]
    if tiles.block == 64 and not arch.startswith(("sm_8", "sm_12")):
        # wgmma and tcgen05 read shared memory themselves, so that more warps cost no reads but halve the registers.
        tiles = tiles._replace(warps=8)
    if arch.startswith("sm_10") and tiles.block == 64:
        # Sums are read from tensor memory into registers: 128 columns spill where widths are not aligned.
        gradients = gradients._replace(columns=64)
    if arch.startswith("sm_12") and dtype == torch.float64:
        # Without matrix units for float64 four warps spill where W comes in panels.
        gradients = gradients._replace(warps=8)
    if VERSION < (3, 7) and arch.startswith("sm_8") and precision == "tf32" and gradients.columns == 128:
        # Spills where widths are not aligned.
        gradients = gradients._replace(columns=64)
    if not arch.startswith("sm_"):
        # AMD's 64 KiB of local memory hold two stages of every table row.
        tiles, gradients = tiles._replace(stages=2), gradients._replace(stages=2)
    if arch.startswith("gfx1"):
        # 256 vector registers for 32 lanes.
        gradients = gradients._replace(columns=gradients.columns // 2, warps=8)
        if VERSION == (3, 7) and dtype == torch.bfloat16:
            tiles = tiles._replace(depth=32)
    # More rows spill.
    statistics = Statistics(16, 64 if dtype == torch.float64 else 128)
    return Configuration(statistics, tiles, gradients)


def choose_pairs(n: int, dtype: torch.dtype, precision: str, arch: str, pressure: str) -> Configuration:
    """Of the operator `gram`, with n the side of a square that has as many pairs, and the loss's need of registers.

    Tiles of 64 rows spill where that is "high", and where it is "medium" as tcgen05 lays them out, and as an older
    Triton does for AMD.
    """
    spills = arch.startswith("sm_10") or (VERSION < (3, 7) and not arch.startswith("sm_"))
    small = pressure == "high" or (pressure == "medium" and spills)
    chosen = choose(min(n, SMALL) if small else n, dtype, precision, arch)
    tiles = chosen.gram_tiles
    if tiles.block == 64 or (pressure == "high" and dtype == torch.float64):
        tiles = tiles._replace(warps=8)
    gradients = chosen.gram_gradients
    if kind(dtype, precision) == "ieee" and tiles.block == 32:
        # Masks of rows take the registers of half of the operands.
        gradients = gradients._replace(depth=16)
    return chosen._replace(gram_tiles=tiles, gram_gradients=gradients)


def limits(arch: str) -> dict[str, int]:
    """Launch options: without a bound of its own NVIDIA's assembler aims at 128 registers, and spills for it."""
    return {"maxnreg": 255} if arch.startswith("sm_") else {}


def transposed(dtype: torch.dtype, precision: str, arch: str, want_gram: tuple[bool, bool]) -> tuple[bool, bool]:
    """Whether the Gram inputs are also kept transposed, which NVIDIA GPUs need to read shared memory without
    conflicts: float32 on the ordinary units for the tiles, tf32 for the gradients."""
    if dtype != torch.float32 or not arch.startswith("sm_"):
        return False, False
    return want_gram if precision == "tf32" else (True, True)


def panels(
    n: int, tiles: int, block: int, dtype: torch.dtype, matrices: int, d: int, row_sums: bool = False
) -> list[tuple[int, int]]:
    """Block rows [first, last) whose tiles of W lie in memory together: all of them if they fit in 64 MiB + 20·n·d."""
    if not matrices:
        return [(0, tiles)]
    budget = _budget(n, block, dtype, matrices, d, row_sums)
    found, first = [], 0
    while first < tiles:
        # The first panel is the largest in tiles, so that equal heights fit where the first does.
        height = next((h for h in range(tiles - first, 1, -1) if h * (2 * (tiles - first) - h + 1) // 2 <= budget), 1)
        found.append((first, first + height))
        first += height
    return found


def strips(
    m: int, height: int, tiles: int, block: int, dtype: torch.dtype, matrices: int, d: int, row_sums: bool
) -> list[tuple[int, int]]:
    """The same of a rectangle with m column rows, height × tiles tiles: complete block rows."""
    step = max(1, _budget(m, block, dtype, matrices, d, row_sums) // tiles if matrices else height)
    return [(first, min(first + step, height)) for first in range(0, height, step)] or [(0, 0)]


def _budget(n: int, block: int, dtype: torch.dtype, matrices: int, d: int, row_sums: bool) -> int:
    """Tiles that fit in 64 MiB + 20·n·d: of W, with shares of the projections and row sums of rows and columns."""
    shares = 2 * block * max(4, dtype.itemsize)
    tile = matrices * (block * block * dtype.itemsize + shares) + 2 * row_sums * shares
    return (64 * 2**20 + 20 * n * d) // tile
