"""Test equipment: environment variables under which kernels for other hardware run, slowly, on CPU tensors.

A backend under emulation has to be asked for by name; "auto" never takes it.
"""

import os

# The CUDA kernels compiled for the CPU (tests/cuda_on_host) in place of the library for GPUs.
CUDA_ON_HOST = os.environ.get("ITRD_CUDA_ON_HOST") == "1"
# The CPU kernels with AMX instructions in plain C++ (tests/emulated_tiles) in place of the library for real ones.
EMULATED_TILES = os.environ.get("ITRD_EMULATED_TILES") == "1"

_REMEDIES = {
    "cuda_on_host": "run `make cuda-on-host` in a checkout",
    "cpu_emulated_tiles": "run `make emulated-tiles` in a checkout",
}


def interpreting() -> bool:
    """Whether Triton's interpreter runs the kernels; Triton reads the variable when it is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def library(backend: str) -> str:
    """The native library of a C++ backend: itrd_kernels/_<library>.*."""
    if backend == "cuda" and CUDA_ON_HOST:
        return "cuda_on_host"
    if backend == "cpu" and EMULATED_TILES:
        return "cpu_emulated_tiles"
    return backend


def remedy(library: str) -> str | None:
    """How to get a library that is test equipment; None for the others."""
    return _REMEDIES.get(library)


def in_use() -> dict[str, str]:
    """{backend: what stands in for its hardware}, for those under emulation in this process."""
    found = {
        "cpu": "AMX emulated (ITRD_EMULATED_TILES=1)" if EMULATED_TILES else None,
        "triton": "Triton's interpreter on CPU tensors (TRITON_INTERPRET=1)" if interpreting() else None,
        "cuda": "kernels compiled for CPU tensors (ITRD_CUDA_ON_HOST=1)" if CUDA_ON_HOST else None,
    }
    return {name: what for name, what in found.items() if what is not None}
