"""What the CPU backend is to reach, judged from the records of a run.

Every target has a floor behind it that the machine sets. How many times longer other implementations take is no target:
where the machine's products are fast, not even a kernel at the floor would take a tenth of the plain formula's time.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

Record = dict


class Target(NamedTuple):
    """`value` of the records of a section where `applies`; the worst of them counts."""

    what: str
    relation: str
    limit: float
    section: str
    value: Callable[[Record], float]
    applies: Callable[[Record], bool] = lambda record: True


class Verdict(NamedTuple):
    what: str
    target: str
    measured: float | None
    where: str
    met: bool | None


def fma_floor(record: Record) -> float:
    """Seconds of the 4n²d operations of loss and gradient at the FMA rate of the run."""
    return 4 * record["n"] ** 2 * record["d"] / record["fma_rate"]


def copy_floor(record: Record) -> float:
    """Seconds of the 20nd bytes that forward (two arrays read) and backward (two read, one written) must move."""
    return 20 * record["n"] * record["d"] / record["copy_bandwidth"]


def memory_allowed(record: Record) -> int:
    """Two arrays of the inputs' size and 64 MiB."""
    return 2 * record["n"] * record["d"] * 4 + 64 * 2**20


def ratio(peer: str) -> Callable[[Record], float]:
    """How many times longer than the fused loss a peer takes; NaN where it did not run."""
    return lambda record: record["seconds"].get(peer, math.nan) / record["seconds"]["fused"]


def step_floor(record: Record, null_seconds: float = 0.0) -> float:
    """Seconds that no kernel can go below: of its operations, and of operators that do nothing where that is known."""
    return fma_floor(record) + null_seconds


def ratio_at_floor(peer: str, record: Record, null_seconds: float = 0.0) -> float:
    """How many times longer than a kernel at the floor a peer takes; NaN where it did not run."""
    return record["seconds"].get(peer, math.nan) / step_floor(record, null_seconds)


def null_seconds(records: dict[str, list[Record]], record: Record) -> float:
    """What operators that do nothing took at this shape, or 0 where that was not measured."""
    return next(
        (r["seconds"]["null"] for r in records.get("overhead", []) if (r["n"], r["d"]) == (record["n"], record["d"])),
        0.0,
    )


def over_fma_floor(record: Record) -> float:
    return record["seconds"]["fused"] / fma_floor(record)


def over_overhead(record: Record) -> float:
    """What is left of the time after 5 µs and two FMA floors, over the time of operators that do nothing."""
    seconds = record["seconds"]
    return (seconds["fused"] - 2 * fma_floor(record) - 5e-6) / seconds["null"]


def large(record: Record) -> bool:
    return record["n"] >= 1024


TARGETS = (
    Target("n ≥ 1024: time ÷ (4n²d ÷ FMA rate)", "≤", 1.15, "grid", over_fma_floor, large),
    Target("n = 64: (time − 2 · 4n²d ÷ FMA rate − 5 µs) ÷ null operators", "≤", 1.25, "overhead", over_overhead),
    Target(
        "correlation beyond the cache: time ÷ (20nd bytes ÷ copy bandwidth)", "≤", 1.3, "bandwidth",
        lambda r: r["seconds"]["fused"] / copy_floor(r), lambda r: r["beyond_cache"],
    ),
    Target(
        "n = 32,768, d = 256: peak memory ÷ (2nd · 4 bytes + 64 MiB)", "≤", 1, "memory",
        lambda r: r["bytes"] / memory_allowed(r), lambda r: r["name"] == "fused" and r["n"] == 32768,
    ),
    Target("d = 256: time at n = 8,192 ÷ time at n = 4,096", "≤", 4.3, "doubling", lambda r: 1 / ratio("half")(r)),
    Target("n ≥ 256: one thread ÷ two threads", "≥", 1.8, "threads", ratio("one thread")),
)  # fmt: skip


def judge(records: dict[str, list[Record]]) -> Iterator[Verdict]:
    """One verdict per target; measured is None where the run did not measure it."""
    for target in TARGETS:
        measured = [(target.value(r), r) for r in records.get(target.section, []) if target.applies(r)]
        measured = [(value, r) for value, r in measured if not math.isnan(value)]
        wanted = f"{target.relation} {target.limit:g}"
        if not measured:
            yield Verdict(target.what, wanted, None, "", None)
            continue
        at_least = target.relation == "≥"
        value, worst = (min if at_least else max)(measured, key=lambda pair: pair[0])
        where = f"{worst['n']} × {worst['d']}"
        yield Verdict(target.what, wanted, value, where, value >= target.limit if at_least else value <= target.limit)
