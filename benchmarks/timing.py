"""Interleaved timing: every round times every contender once, so that all of them see the same machine."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.peers import Loss

Run = Callable[[], object]


class Budget(NamedTuple):
    """How long to measure: seconds for all rounds together, and bounds on their number; seconds of one timing.

    `slack` is the factor by which noise may spoil a ratio of such medians.
    """

    seconds: float
    fewest_rounds: int
    most_rounds: int
    timing: float
    slack: float


FULL = Budget(seconds=5, fewest_rounds=5, most_rounds=40, timing=0.02, slack=1)
QUICK = Budget(seconds=0.2, fewest_rounds=3, most_rounds=5, timing=0.002, slack=20)


def features(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Student features, which require a gradient, and teacher features, both (n, d)."""
    generator = torch.Generator().manual_seed(0)
    z_s, z_t = (torch.randn(n, d, generator=generator) for _ in range(2))
    return z_s.requires_grad_(), z_t


def step(loss: Loss, z_s: Tensor, z_t: Tensor) -> Run:
    """Forward and backward; z_s must require a gradient."""

    def run() -> None:
        z_s.grad = None
        loss(z_s, z_t).backward()

    return run


def interleave(
    benchmark,
    budget: Budget,
    fused: Run,
    peers: dict[str, Run],
    *,
    surroundings: dict[str, Callable[[], AbstractContextManager]] | None = None,
    probes: dict[str, Callable[[], float]] | None = None,
) -> dict[str, float]:
    """Medians over the rounds: seconds per run of "fused" and of each peer, and what each probe returned.

    pytest-benchmark times `fused`; peers and probes run in the set-up of each of its rounds. Short runs are repeated
    until one timing is well above the clock's noise. Entering and leaving a peer's surroundings does not count.
    """
    surroundings, probes = surroundings or {}, probes or {}

    def clock(name: str, repeats: int) -> float:
        run = fused if name == "fused" else peers[name]
        with surroundings.get(name, nullcontext)():
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            return (time.perf_counter() - start) / repeats

    repeats, cost = {}, 0.0
    for name in (*peers, "fused"):
        clock(name, 1)  # compiles, and fills the caches
        seconds = min(clock(name, 1) for _ in range(3 if cost < budget.seconds else 1))
        repeats[name] = max(1, round(budget.timing / seconds))
        cost += repeats[name] * seconds
    rounds = min(max(budget.fewest_rounds, int(budget.seconds / cost)), budget.most_rounds)
    found: dict[str, list[float]] = {name: [] for name in (*probes, *peers)}

    def time_the_peers() -> None:
        for name, probe in probes.items():
            found[name].append(probe())
        for name in peers:
            found[name].append(clock(name, repeats[name]))

    def target() -> None:
        for _ in range(repeats["fused"]):
            fused()

    benchmark.name += f" ({repeats['fused']} per round)"
    benchmark.pedantic(target, setup=time_the_peers, rounds=rounds, iterations=1)
    medians = {name: statistics.median(values) for name, values in found.items()}
    medians["fused"] = benchmark.stats.stats.median / repeats["fused"]
    benchmark.extra_info["medians"] = medians
    return medians
