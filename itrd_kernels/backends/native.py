"""Loads the compiled libraries of csrc/ at import; one that does not load becomes a reason, not an error."""

import os
import shlex
from pathlib import Path

import torch

_PACKAGE = Path(__file__).parent.parent
_NEEDS = {
    "cpu": "a C++ compiler",
    "cuda": "a CUDA toolkit (found through CUDA_HOME or nvcc on the PATH) and a CUDA build of torch",
}
_TEST_EQUIPMENT = {
    "cuda_on_host": "run `make cuda-on-host` in a checkout",
    "cpu_emulated_tiles": "run `make emulated-tiles` in a checkout",
}

# The CUDA kernels' host build, which tests use, in place of the library for GPUs: both define the same operators.
CUDA_ON_HOST = os.environ.get("ITRD_CUDA_ON_HOST") == "1"
# The CPU kernels with AMX emulated, likewise.
EMULATED_TILES = os.environ.get("ITRD_EMULATED_TILES") == "1"


def _remedy(name: str) -> str:
    if name in _TEST_EQUIPMENT:
        return _TEST_EQUIPMENT[name]
    checkout = _PACKAGE.parent
    if (checkout / "setup.py").is_file():
        return (
            f"with {_NEEDS[name]}, build it in the checkout: "
            f"pip install --no-build-isolation -e {shlex.quote(str(checkout))}; or, if "
            "the package is installed as well, start Python in another folder, since this one hides it"
        )
    return (
        f"with {_NEEDS[name]}, install again from a checkout: "
        "pip install --no-build-isolation --no-deps --force-reinstall ."
    )


def _load(name: str) -> str | None:
    """Load itrd_kernels/_<name>.*; None if that worked, else the reason and the remedy."""
    candidates = [path for path in sorted(_PACKAGE.glob(f"_{name}.*")) if path.suffix in (".so", ".pyd", ".dylib")]
    if not candidates:
        return f"the native library itrd_kernels/_{name} was not built; {_remedy(name)}"
    try:
        torch.ops.load_library(candidates[0])
    except (OSError, RuntimeError) as error:
        file = candidates[0].name
        return f"the native library {file} does not load with torch {torch.__version__} ({error}); {_remedy(name)}"
    return None


_REASONS = {
    "cpu": _load("cpu_emulated_tiles" if EMULATED_TILES else "cpu"),
    "cuda": _load("cuda_on_host" if CUDA_ON_HOST else "cuda"),
}


def unavailable(name: str) -> str | None:
    """None if the native library of this backend is loaded, else the reason and the remedy."""
    return _REASONS[name]
