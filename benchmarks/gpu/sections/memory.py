"""Peak memory of a step beside its inputs, in float32 at d = 256, and the n at which the plain formula runs out."""

from collections.abc import Iterator

import torch

from benchmarks.gpu import contenders
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.day import Case, Day

D = 256
SIZES = (4096, 16384, 32768)
# Beyond the sizes: half as much again each time, until it does not fit.
GROWTH, LARGEST = 1.5, 250_000


def cases(day: Day) -> Iterator[Case]:
    sizes, largest = ((16, 24), 50) if day.rehearse else (SIZES, LARGEST)
    for n in sizes:
        for name in (*day.backends, "plain"):
            yield Case(f"{name} n = {n}", lambda name=name, n=n: peak(day, name, n))
    yield Case("where plain runs out", lambda: until_plain_runs_out(day, sizes[-1], largest))


def peak(day: Day, name: str, n: int) -> dict:
    d = 8 if day.rehearse else D
    row = {"contender": name, "n": n, "d": d}
    try:
        inputs = contenders.features(n, d, torch.float32, day.device)
        loss = contenders.loss(name, d)
        # Libraries take their workspaces before the measurement.
        contenders.step(loss, *contenders.features(64, d, torch.float32, day.device))()
        return row | {"bytes": Clock(day.device).peak(contenders.step(loss, *inputs))}
    except torch.cuda.OutOfMemoryError:
        return row | {"bytes": None, "out_of_memory": True}


def until_plain_runs_out(day: Day, n: int, largest: int) -> list[dict]:
    """The plain formula on ever larger batches, and the fused ones on the first that it does not manage."""
    rows: list[dict] = []
    while n < largest and not (rows and rows[-1].get("out_of_memory")):
        n = int(n * GROWTH)
        rows.append(peak(day, "plain", n))
        torch.cuda.empty_cache()
    return rows + [peak(day, name, n) for name in day.backends]
