"""What an eager step of the Triton backend costs the host, where there is no GPU: host_time.py [SECONDS].

One step, forward and backward, of both terms at n × d = 64 × 128 in bfloat16, on a driver that does nothing (see
benchmarks/pretended); beside it what plain PyTorch costs for its kernels and torch.compile for its graph, both on
4 × 4 CPU tensors, so that only the dispatch counts, and one a + a. Microseconds of the thread's processor time, the
least and the median of interleaved rounds. A real driver adds about 2.5 µs a launch: 4 of the fused step, 115 of the
plain formula, 21 of torch.compile at n = 64.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

N, D, STEPS, WARM_UP = 64, 128, 20, 5


def contenders() -> dict[str, Callable[[], object]]:
    """Each a step, with nothing left to compile after a few calls."""
    from benchmarks.pretended import driver

    driver.install()
    import torch

    from benchmarks import peers
    from itrd_kernels import FusedITRDLoss

    torch.set_num_threads(1)
    fused = FusedITRDLoss(D, D, embed=torch.nn.Identity(), backend="triton")
    z, teacher = torch.randn(N, D).bfloat16().requires_grad_(), torch.randn(N, D).bfloat16()
    small, small_teacher = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4)
    compiled, a = torch.compile(peers.plain(4), dynamic=False), torch.randn(4)

    def step(loss, z_s, z_t) -> None:
        z_s.grad = None
        loss(z_s, z_t).backward()

    return {
        "fused, Triton": lambda: step(fused, z, teacher),
        "plain, eager": lambda: step(peers.plain(4), small, small_teacher),
        "plain, compiled": lambda: step(compiled, small, small_teacher),
        "a + a": lambda: a + a,
    }


def measure(steps: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """{contender: microseconds of a step in each round}."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times["a + a"]:
        for name, step in steps.items():
            begin = time.thread_time()
            for _ in range(STEPS):
                step()
            times[name].append((time.thread_time() - begin) / STEPS * 1e6)
    return times


def main(seconds: float = 10.0) -> None:
    times = measure(contenders(), seconds)
    plain = min(times["plain, eager"])
    for name, seen in times.items():
        least, median = min(seen), statistics.median(seen)
        rounds = f"{median:7.1f} in the median of {len(seen)}"
        print(f"{name:16} {least:7.1f} µs at least, {rounds}; {least / plain:.2f} × plain")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
