"""The backend of CUDA C++ (csrc/cuda)."""

from itrd_kernels.backends import emulated, native
from itrd_kernels.backends.base import Backend

BACKEND = Backend(
    "cuda", ("cuda",), lambda: native.unavailable("cuda"), runs_on=("cpu",) if emulated.CUDA_ON_HOST else None
)
