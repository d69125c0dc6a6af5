"""`python -m benchmarks.gpu.sections.one_step DEVICE BACKEND KIND:n×d …`: steps of a backend, for tools that watch.

Inputs come from the host, so that no other kernel than the backend's own makes them.
"""

import sys

import torch

from benchmarks.gpu.contenders import KINDS, precision
from itrd_kernels import itrd_loss


def main(device: str, backend: str, *problems: str) -> None:
    for problem in problems:
        kind, _, shape = problem.partition(":")
        n, d = map(int, shape.split("×"))
        # A z_s of another width: all three gradients.
        leaves = [torch.randn(n, width).to(KINDS[kind][0]).to(device).requires_grad_() for width in (d, d, d // 2 + 1)]
        with precision(kind):
            itrd_loss(*leaves, backend=backend).total.backward()
    if device == "cuda":
        torch.cuda.synchronize()
    print("steps done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
