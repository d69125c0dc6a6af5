"""`python -m benchmarks.gpu.sections.one_step DEVICE BACKEND KIND:n×d:WHAT …`: steps of a backend, to be watched.

WHAT is "student" (the student's gradient, as in the section `times`) or "raw" (a z_s of another width, all gradients).
Inputs come from the host, so that no other kernel than the backend's own makes them.
"""

import sys

import torch

from benchmarks.gpu.contenders import KINDS, precision
from itrd_kernels import itrd_loss


def main(device: str, backend: str, *problems: str) -> None:
    for problem in problems:
        kind, shape, what = problem.split(":")
        n, d = map(int, shape.split("×"))
        inputs = [torch.randn(n, width).to(KINDS[kind][0]).to(device) for width in (d, d, d // 2 + 1)]
        inputs, wanted = (inputs, inputs) if what == "raw" else (inputs[:2], inputs[:1])
        for z in wanted:
            z.requires_grad_()
        with precision(kind):
            itrd_loss(*inputs, backend=backend).total.backward()
    if device == "cuda":
        torch.cuda.synchronize()
    print("steps done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
