import sys
from pathlib import Path

HERE = Path(__file__).parent
# The launches of the Triton backend and the host build of the CUDA kernels are collected by the tests of those.
sys.path[:0] = map(str, (HERE, *(HERE.parent / name for name in ("triton", "triton/interpreted", "cuda_on_host"))))
