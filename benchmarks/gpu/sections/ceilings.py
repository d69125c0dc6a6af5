"""What this GPU reaches: bytes of a large copy, operations of large products of random data, per second."""

import statistics
from collections.abc import Iterator

import torch

from benchmarks.gpu import contenders
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.day import Case, Day

RUNS = 15


def cases(day: Day) -> Iterator[Case]:
    yield Case("copy", lambda: copy(day))
    for kind in ("bfloat16", "float16", "tf32", "float32"):
        yield Case(f"product {kind}", lambda kind=kind: product(day, kind))


def copy(day: Day) -> dict:
    size = 2**20 if day.rehearse else 2**30
    source = torch.randint(256, (size,), dtype=torch.uint8, device=day.device)
    target = torch.empty_like(source)
    return {"what": "copy", "bytes_per_second": 2 * size / _seconds(day, lambda: target.copy_(source))}


def product(day: Day, kind: str) -> dict:
    size = 128 if day.rehearse else 8192
    a, b = (torch.randn(size, size, device=day.device).to(contenders.KINDS[kind][0]) for _ in range(2))
    with contenders.precision(kind):
        seconds = _seconds(day, lambda: a @ b)
    return {"what": "product", "kind": kind, "flops_per_second": 2 * size**3 / seconds}


def _seconds(day: Day, function) -> float:
    timer = Clock(day.device)
    for _ in range(3):
        timer.span(function)
    return statistics.median(timer.span(function) for _ in range(RUNS))
