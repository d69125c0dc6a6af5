"""Times of the other pair losses: the device's by graph replay, and the host's, beside autograd and beside L_mi.

A row is a loss in a cell by one contender, in microseconds, mean of two passes.
"""

import statistics
from collections.abc import Callable, Iterator

from torch import Tensor

from benchmarks.gpu import contenders
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.day import Case, Day, kept
from benchmarks.test_pair_losses import LOSSES
from itrd_kernels import mutual_information_loss

CELLS = tuple(
    (kind, n, d) for kind in ("bfloat16", "float32") for n, d in ((64, 128), (256, 512), (1024, 512), (4096, 256))
)
REHEARSED = (("float32", 16, 32),)


def cases(day: Day) -> Iterator[Case]:
    for cell in REHEARSED if day.rehearse else CELLS:
        yield Case("{} {}×{}".format(*cell), lambda cell=cell: measure(day, cell))


def measure(day: Day, cell: contenders.Cell) -> list[dict]:
    kind, n, d = cell
    z_s, z_t = contenders.features(n, d, contenders.KINDS[kind][0], day.device)
    timer, rows, ready = Clock(day.device), [], []
    for loss, backend in [
        (loss, name) for loss in (*LOSSES, "mutual_information") for name in (*day.backends, "plain")
    ]:
        if (loss, backend) == ("mutual_information", "plain") or day.left <= 0 or not day.part(f"{loss} {backend}"):
            continue
        row = {"loss": loss, "kind": kind, "n": n, "d": d, "contender": backend}
        rows.append(row)
        with kept(row):
            step = contenders.step(_function(loss, backend), z_s, z_t)
            for _ in range(3):
                step()
            ready.append((row, step, timer.graph([step])))
    for number in range(2):
        for row, step, replay in reversed(ready) if number else ready:
            row.setdefault("graph", []).append(replay() * 1e6)
            row.setdefault("host", []).append(timer.host(step) * 1e6)
    for row, _, _ in ready:
        row |= {name: statistics.mean(row[name]) for name in ("graph", "host")}
    return rows


def _function(loss: str, backend: str) -> Callable[[Tensor, Tensor], Tensor]:
    if loss == "mutual_information":
        return lambda z_s, z_t: mutual_information_loss(z_s, z_t, backend=backend)
    fused, plain = LOSSES[loss]
    return plain if backend == "plain" else lambda z_s, z_t: fused(z_s, z_t, backend=backend)
