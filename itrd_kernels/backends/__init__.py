"""The table of backends: which can run here, and if not, why not and what to do."""

from collections.abc import Callable

from itrd_kernels.backends import native

# Backends in the order in which "auto" prefers them; those with operators own the namespace itrd_<name>.
WITH_OPERATORS = ("cpu", "triton", "cuda")


def _triton_unavailable() -> str | None:
    return "the Triton kernels are not part of this release yet; use backend='auto'"


def _cuda_unavailable() -> str | None:
    return "the CUDA C++ kernels are not part of this release yet; use backend='auto'"


_UNAVAILABLE: dict[str, Callable[[], str | None]] = {
    "reference": lambda: None,
    "cpu": lambda: native.unavailable("cpu"),
    "triton": _triton_unavailable,
    "cuda": _cuda_unavailable,
}

# The reasons do not change while the process runs, and asking on every call would cost more than a small batch.
_REASONS = {name: unavailable() for name, unavailable in _UNAVAILABLE.items()}

_DEVICE_TYPE = {"cpu": "cpu", "triton": "cuda", "cuda": "cuda"}


def available_backends() -> dict[str, str | None]:
    """{backend: None if it can run here, else the reason and the remedy}."""
    return dict(_REASONS)


def why_not(name: str, device_type: str) -> str | None:
    """None if the backend can run on tensors of this device type, else the reason and the remedy."""
    reason = _REASONS[name]
    if reason is None and device_type != _DEVICE_TYPE.get(name, device_type):
        return f"it runs on {_DEVICE_TYPE[name]} tensors; move the inputs there, or use backend='auto'"
    return reason


def fastest(device_type: str) -> str:
    """The backend that "auto" takes on this device type; "reference" wherever no other can run."""
    for name in WITH_OPERATORS:
        if why_not(name, device_type) is None:
            return name
    return "reference"


def has_operators(name: str) -> bool:
    return _REASONS[name] is None
