"""What tables and plots read off the results: medians over passes, ratios, and the limits of the GPU."""

import math
import statistics

from benchmarks.gpu import results
from benchmarks.gpu.plan import FUSED

SIZES = {"float64": 8, "float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2}
Cell = tuple[str, int, int]


def times(found: dict, figure: str) -> dict[Cell, dict[str, float]]:
    """{(kind, n, d): {contender: microseconds}}, the grid's over the first six cells'."""
    cells: dict[Cell, dict[str, float]] = {}
    for row in _rows_of_times(found):
        if row.get(figure):
            cell = cells.setdefault((row["kind"], row["n"], row["d"]), {})
            cell[row["contender"]] = statistics.mean(row[figure])
    return dict(sorted(cells.items()))


def _rows_of_times(found: dict) -> list[dict]:
    return results.rows(found, "first_times") + results.rows(found, "times")


def spreads(found: dict) -> list[float]:
    """What the two passes of graph replay differ by, over all rows."""
    return sorted(row["spread"] for row in _rows_of_times(found) if "spread" in row)


def fell_back(found: dict) -> set[tuple[Cell, str]]:
    """Cells whose compiled contender was not one graph."""
    return _marked(found, "fell_back")


def out_of_memory(found: dict) -> set[tuple[Cell, str]]:
    return _marked(found, "out_of_memory")


def _marked(found: dict, mark: str) -> set[tuple[Cell, str]]:
    rows = _rows_of_times(found)
    return {((row["kind"], row["n"], row["d"]), row["contender"]) for row in rows if row.get(mark)}


def reached(ceilings: list[dict]) -> tuple[float | None, dict[str, float]]:
    """Of the rows of that section: bytes per second of a copy, {kind: operations per second of a matrix product}."""
    copies = [row["bytes_per_second"] for row in ceilings if "bytes_per_second" in row]
    products = {row["kind"]: row["flops_per_second"] for row in ceilings if "flops_per_second" in row}
    return copies[-1] if copies else None, products


def product_floor(found: dict, cell: Cell) -> float | None:
    """Microseconds of 4n²d operations, which losses and the student's gradient need."""
    kind, n, d = cell
    rate = reached(results.rows(found, "ceilings"))[1].get(kind)
    return 4 * n * n * d / rate * 1e6 if rate else None


def copy_floor(found: dict, cell: Cell) -> float | None:
    """Microseconds of the bytes that must move: both inputs, which a cache may keep, read once, a gradient written."""
    kind, n, d = cell
    rate, _ = reached(results.rows(found, "ceilings"))
    return 3 * n * d * SIZES[kind] / rate * 1e6 if rate else None


def floor(found: dict, cell: Cell) -> float | None:
    known = [f for f in (product_floor(found, cell), copy_floor(found, cell)) if f is not None]
    return max(known) if len(known) == 2 else None


def geometric_mean(values: list[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def ratios(found: dict, figure: str, peer: str, fused: str) -> list[float]:
    """peer ÷ fused over the cells that have both."""
    return [c[peer] / c[fused] for c in times(found, figure).values() if peer in c and fused in c]


def automatic(by_name: dict[str, float]) -> str | None:
    """The fused backend that `backend="auto"` takes on a GPU."""
    return next((name for name in FUSED if name in by_name), None)


def counts_of_compilation(found: dict) -> dict[str, tuple[int, float]]:
    """{"Triton" or a contender: (how many were compiled, the longest in seconds)} of what was not in the cache."""
    groups: dict[str, list[float]] = {}
    for row in results.rows(found, "compile"):
        if "seconds" in row and (row["seconds"] > 0.05 or "cell" in row):
            groups.setdefault("Triton's kernels" if "kernel" in row else row["contender"], []).append(row["seconds"])
    return {name: (len(seconds), max(seconds)) for name, seconds in groups.items()}
