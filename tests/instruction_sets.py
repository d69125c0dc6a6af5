"""Which instruction sets of the CPU backend this processor has."""

import functools
from pathlib import Path

from cases import run_python

import itrd_kernels

SETS = ("amx", "avx512_bf16", "avx512", "avx2", "portable")  # the best first
EMULATED_TILES = Path(itrd_kernels.__file__).parent / "_cpu_emulated_tiles.so"


@functools.cache
def refusal(**environment: str) -> str | None:
    """None where the library runs under this environment, else what it says."""
    code = "import torch, itrd_kernels as k; k.correlation_loss(*torch.randn(2, 4, 3), backend='cpu')"
    result = run_python("-c", code, **environment)
    return result.stderr if result.returncode else None


def why_not(isa: str) -> str | None:
    """None where kernels of this instruction set run, those of amx with its tiles emulated."""
    return refusal(ITRD_CPU_ISA="avx512" if isa == "amx" else isa)
