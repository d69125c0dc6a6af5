"""Times an old build of the CPU backend against the one here: for changes that must not cost speed.

    python benchmarks/old_against_new.py OLD_PACKAGE_FOLDER [ROUNDS]

Before the change, copy the folder `itrd_kernels`, with its built libraries, into OLD_PACKAGE_FOLDER, as for
tests/same_bits.py. Three processes, the old build twice and the new one, take turns on each shape: a round is the
median of several steps, forward and backward, of both terms with the student's gradient. The ratio of a shape is
new ÷ old in the median of its rounds; old ÷ old beside it says what the machine alone does to such a ratio. Run it on
an otherwise idle machine.
"""

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The shapes of `pytest benchmarks/`, small to large, and those at which engines change.
SHAPES = (
    *((64, 64), (64, 128), (64, 256), (64, 512), (128, 2048), (256, 128), (256, 512), (512, 512)),
    *((1024, 512), (2048, 256)),
)
DTYPES = ("float32", "bfloat16")
# Seconds that the steps of one round shall take, about.
ROUND = 0.03


class Build:
    """A process with one build, which times a step on request."""

    def __init__(self, package_folder: Path) -> None:
        told = {**os.environ, "PYTHONPATH": str(package_folder), "PYTHONSAFEPATH": "1"}
        command = [sys.executable, __file__, "--serve"]
        self.child = subprocess.Popen(command, env=told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, n: int, d: int, dtype: str) -> float:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        print(json.dumps([n, d, dtype]), file=self.child.stdin, flush=True)
        return json.loads(self.child.stdout.readline())


def serve() -> None:
    """Answer each [n, d, dtype] with the median seconds of a step."""
    import time

    import torch

    from itrd_kernels import FusedITRDLoss

    for line in sys.stdin:
        n, d, dtype = json.loads(line)
        generator = torch.Generator().manual_seed(n + d)
        z_s, z_t = (torch.randn(n, d, generator=generator).to(getattr(torch, dtype)) for _ in range(2))
        z_s.requires_grad_()
        loss = FusedITRDLoss(d, d, embed=torch.nn.Identity(), backend="cpu")
        times: list[float] = []
        while len(times) < 5 or (sum(times) < ROUND and len(times) < 200):
            begin = time.perf_counter()
            torch.autograd.grad(loss(z_s, z_t), z_s)
            times.append(time.perf_counter() - begin)
        # The first of them finds everything cold.
        print(statistics.median(times[2:]), flush=True)


def main(old: Path, rounds: int) -> None:
    builds = {"old": Build(old), "old again": Build(old), "new": Build(ROOT)}
    ratios = []
    for dtype in DTYPES:
        for n, d in SHAPES:
            seen: dict[str, list[float]] = {name: [] for name in builds}
            for number in range(rounds):
                order = list(builds) if number % 2 == 0 else list(builds)[::-1]
                for name in order:
                    seen[name].append(builds[name].seconds(n, d, dtype))
            of = {name: statistics.median(times) for name, times in seen.items()}
            base = math.sqrt(of["old"] * of["old again"])
            ratios.append(of["new"] / base)
            spread = of["old again"] / of["old"]
            print(
                f"{dtype} {n} × {d}: {base * 1e6:.0f} µs, new ÷ old {ratios[-1]:.3f}, old ÷ old {spread:.3f}",
                flush=True,
            )
    print(f"geometric mean {statistics.geometric_mean(ratios):.3f}, worst {max(ratios):.3f}")


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve()
    else:
        main(Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 15)
