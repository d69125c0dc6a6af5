"""What the CPU backend is to reach, judged from the records of a run."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

Record = dict


class Target(NamedTuple):
    """`value` of the records of a section where `applies`; the worst of them counts, or their geometric mean."""

    what: str
    relation: str
    limit: float
    section: str
    value: Callable[[Record], float]
    applies: Callable[[Record], bool] = lambda record: True
    mean: bool = False


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


def over_fma_floor(record: Record) -> float:
    return record["seconds"]["fused"] / fma_floor(record)


def over_overhead(record: Record) -> float:
    """What is left of the time after 5 µs and two FMA floors, over the time of operators that do nothing."""
    seconds = record["seconds"]
    return (seconds["fused"] - 2 * fma_floor(record) - 5e-6) / seconds["null"]


def smallest(record: Record) -> bool:
    return record["n"] == 64


def larger(record: Record) -> bool:
    return record["n"] > 64


def large(record: Record) -> bool:
    return record["n"] >= 1024


TARGETS = (
    Target("n ≥ 1024: time ÷ (4n²d ÷ FMA rate)", "≤", 1.3, "grid", over_fma_floor, large),
    Target("plain formula ÷ fused, n > 64", "≥", 10, "grid", ratio("plain"), larger),
    Target("plain formula ÷ fused, n = 64", "≥", 7, "grid", ratio("plain"), smallest),
    Target("plain formula ÷ fused, geometric mean", "≥", 12, "grid", ratio("plain"), mean=True),
    Target("torch.compile ÷ fused, n > 64", "≥", 5, "grid", ratio("compiled"), larger),
    Target("torch.compile ÷ fused, n = 64", "≥", 2.5, "grid", ratio("compiled"), smallest),
    Target("torch.compile ÷ fused, geometric mean", "≥", 4.5, "grid", ratio("compiled"), mean=True),
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
    Target("n ≥ 1024: float32 ÷ bfloat16 inputs", "≥", 1.6, "bfloat16", ratio("float32"), large),
    Target(
        "n ≥ 1024: forward without gradients ÷ forward + backward", "≤", 0.55, "forward_only",
        lambda r: 1 / ratio("forward + backward")(r), large,
    ),
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
        if target.mean:
            value, where = math.exp(math.fsum(math.log(v) for v, _ in measured) / len(measured)), ""
        else:
            value, worst = (min if at_least else max)(measured, key=lambda pair: pair[0])
            where = f"{worst['n']} × {worst['d']}"
        yield Verdict(target.what, wanted, value, where, value >= target.limit if at_least else value <= target.limit)
