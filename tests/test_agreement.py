"""All backends on the same inputs: Triton under its interpreter, the CUDA kernels' host build, the CPU kernels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import itrd_kernels

STEP = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from cases import DTYPES, assert_within_budget, features
from itrd_kernels import available_backends
from itrd_kernels.functional import itrd_loss

BACKENDS = ("cpu", "cuda", "triton")
reasons = {name: available_backends()[name] for name in BACKENDS if available_backends()[name]}
if reasons:
    sys.exit(f"skip: {reasons}")

def step(backend, inputs, dtype, log):
    leaves = [z.to(dtype, copy=True).requires_grad_() for z in inputs]
    losses = itrd_loss(*leaves, log=log, backend=backend)
    losses.total.backward()
    return [*(loss.detach() for loss in losses), *(z.grad for z in leaves)]

for dtype, log in zip(DTYPES, (False, True, False, True)):
    wide = torch.promote_types(dtype, torch.float32)
    inputs = [features(70, width, dtype, seed) for seed, width in enumerate((37, 37, 21))]
    plain, exact = step("reference", inputs, wide, log), step("reference", inputs, torch.float64, log)
    for backend in BACKENDS:
        for index, results in enumerate(zip(step(backend, inputs, dtype, log), plain, exact, strict=True)):
            try:
                assert_within_budget(*results, wide if index < 3 else dtype, size=4.0 if index < 3 else 0.0)
            except AssertionError as error:
                sys.exit(f"{backend}, {dtype}, log={log}, result {index}: {error}")
print("agree")
"""


def test_all_backends_agree_with_float64():
    root = Path(itrd_kernels.__file__).parent.parent
    environment = {**os.environ, "TRITON_INTERPRET": "1", "ITRD_CUDA_ON_HOST": "1", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", STEP, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if "skip: " in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == "agree\n", done.stderr
