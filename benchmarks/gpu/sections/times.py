"""Times of a training step over the grid: device, one cold step, host; every contender in turn, two passes.

A row is a contender in a cell, with a figure per pass in microseconds: `graph` (graph replay), `cold` (one eager step,
inputs outside the L2 cache), `host` (issuing a step). `spread` is what the passes of `graph` differ by.
"""

import contextlib
import gc
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.gpu import contenders
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.day import Case, Day, described, kept

PASSES = 2
# A contender that computes something else would make the comparison worthless; bfloat16 alone costs a thousandth.
AGREEMENT = 0.02


def cases(day: Day) -> Iterator[Case]:
    return cells(day, contenders.all_cells())


def cells(day: Day, grid: Sequence[contenders.Cell], *, compiled: bool = True) -> Iterator[Case]:
    grid = contenders.REHEARSED_CELLS if day.rehearse else grid
    for cell in grid:
        yield Case("{} {}×{}".format(*cell), lambda cell=cell: measure(day, cell, compiled))


def measure(day: Day, cell: contenders.Cell, compiled: bool) -> list[dict]:
    kind, n, d = cell
    timer = Clock(day.device)
    dtype = contenders.KINDS[kind][0]
    names = contenders.names(day.backends, cell)
    names = [name for name in names if compiled or name not in contenders.COMPILED]
    contenders.reset()
    count = timer.sets(2 * n * d * dtype.itemsize)
    sets = [contenders.features(n, d, dtype, day.device, seed) for seed in range(count)]
    rows, ready, expected = {}, {}, _reference(*sets[0])
    with contenders.precision(kind):
        for name in names:
            if not _in_time(day, rows, name) or not day.part(name):
                continue
            rows[name] = {"kind": kind, "n": n, "d": d, "contender": name}
            with kept(rows[name]):
                ready[name] = _prepare(day, timer, name, d, sets, rows[name], expected)
        for number in range(PASSES):
            # Every other pass backwards, so that no contender always follows the same one.
            for name in sorted(ready, key=names.index, reverse=number % 2 == 1):
                if _in_time(day, rows, name):
                    day.part(name)
                    with kept(rows[name]):
                        _one_pass(timer, *ready[name], rows[name])
    ready.clear()
    gc.collect()
    for row in rows.values():
        if len(row.get("graph", ())) == PASSES:
            row["spread"] = abs(row["graph"][0] - row["graph"][1]) / min(row["graph"])
    return list(rows.values())


def _in_time(day: Day, rows: dict[str, dict], name: str) -> bool:
    """Whether there is time for a contender; a cell that comes too late keeps what it has found."""
    if day.left > 0:
        return True
    rows.setdefault(name, {"contender": name})["left_out"] = "no time for all of the last cell"
    return False


def _reference(z_s: Tensor, z_t: Tensor) -> float:
    """The loss of these inputs in float32."""
    with torch.no_grad():
        return peers.plain(z_s.shape[1])(z_s.float(), z_t.float()).item()


def _prepare(day: Day, timer: Clock, name: str, d: int, sets: list, row: dict, expected: float) -> tuple:
    """(the eager step, the measurement of graph replay or None); compiles whatever has to be."""
    loss = contenders.loss(name, d, rehearse=day.rehearse)
    steps = [contenders.step(loss, *inputs) for inputs in sets]
    with contenders.counted(row) if name in contenders.COMPILED else contextlib.nullcontext():
        for _ in range(3):
            steps[0]()
    row["loss"] = loss(*sets[0]).item()
    if abs(row["loss"] - expected) > AGREEMENT * max(1.0, abs(expected)):
        raise RuntimeError(f"its loss is {row['loss']:.5g}, that of the formula in float32 {expected:.5g}")
    captured = None
    # Its own graphs cannot be captured into another.
    if name != "compiled reduce-overhead":
        try:
            captured = timer.graph(steps)
        except RuntimeError as error:
            row["no_graph"] = described(error)
    row["rotated_bytes"] = len(sets) * sum(z.nbytes for z in sets[0])
    return steps[0], captured


def _one_pass(timer, step, captured, row: dict) -> None:
    host = timer.host(step)
    figures = {"cold": timer.cold(step, host), "host": host}
    if captured is not None:
        figures["graph"] = captured()
    for name, seconds in figures.items():
        row.setdefault(name, []).append(seconds * 1e6)
