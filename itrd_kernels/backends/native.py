"""Loads the compiled libraries of csrc/ at import; one that does not load becomes a reason, not an error."""

import shlex
from pathlib import Path

import torch

from itrd_kernels.backends import emulated

_PACKAGE = Path(__file__).parent.parent
_NEEDS = {
    "cpu": "a C++ compiler",
    "cuda": "a CUDA toolkit (found through CUDA_HOME or nvcc on the PATH) and a CUDA build of torch",
}


def _remedy(library: str) -> str:
    test_equipment = emulated.remedy(library)
    if test_equipment is not None:
        return test_equipment
    checkout = _PACKAGE.parent
    if (checkout / "setup.py").is_file():
        return (
            f"with {_NEEDS[library]}, build it in the checkout: "
            f"pip install --no-build-isolation -e {shlex.quote(str(checkout))}; or, if "
            "the package is installed as well, start Python in another folder, since this one hides it"
        )
    return (
        f"with {_NEEDS[library]}, install again from a checkout: "
        "pip install --no-build-isolation --no-deps --force-reinstall ."
    )


def file_of(library: str) -> Path | None:
    """itrd_kernels/_<library>.*, if it was built."""
    candidates = sorted(_PACKAGE.glob(f"_{library}.*"))
    return next((path for path in candidates if path.suffix in (".so", ".pyd", ".dylib")), None)


def load(library: str) -> str | None:
    """Load itrd_kernels/_<library>.*; None if that worked, else the reason and the remedy."""
    file = file_of(library)
    if file is None:
        return f"the native library itrd_kernels/_{library} was not built; {_remedy(library)}"
    try:
        torch.ops.load_library(file)
    except (OSError, RuntimeError) as error:
        name, version = file.name, torch.__version__
        return f"the native library {name} does not load with torch {version} ({error}); {_remedy(library)}"
    return None


_REASONS = {backend: load(emulated.library(backend)) for backend in ("cpu", "cuda")}


def unavailable(backend: str) -> str | None:
    """None if the native library of this backend is loaded, else the reason and the remedy."""
    return _REASONS[backend]
