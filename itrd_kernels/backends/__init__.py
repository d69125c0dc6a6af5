"""The table of backends: which can run here, and if not, why not and what to do."""

import torch

from itrd_kernels.backends import cpu, cuda, triton
from itrd_kernels.backends.base import Backend

# In the order in which "auto" prefers them. Beside them "reference" runs the formulas on tensors of any device.
_RECORDS = (cpu.BACKEND, triton.BACKEND, cuda.BACKEND)
WITH_OPERATORS: dict[str, Backend] = {record.name: record for record in _RECORDS}
NAMES = ("reference", *WITH_OPERATORS)

# The reasons do not change while the process runs, and asking on every call would cost more than a small batch.
_REASONS = {record.name: record.unavailable() for record in _RECORDS}


def available_backends() -> dict[str, str | None]:
    """{backend: None if it can run here, else the reason and the remedy}."""
    return {"reference": None} | {name: _REASONS[name] or _no_device(WITH_OPERATORS[name]) for name in WITH_OPERATORS}


def _no_device(backend: Backend) -> str | None:
    """Why there are no tensors that it could take, if so."""
    if "cpu" in backend.takes or any(is_here(device_type) for device_type in backend.takes):
        return None
    kinds = " or ".join("GPU" if device_type == "cuda" else device_type for device_type in backend.takes)
    return f"torch {torch.__version__} sees no {kinds}: install its driver, and a build of torch for it"


def is_here(device_type: str) -> bool:
    """Whether this machine has a device of this type that torch can use."""
    module = getattr(torch, device_type, None)
    return module is not None and module.is_available()


def why_not(name: str, device_type: str) -> str | None:
    """None if the backend can run on tensors of this device type, else the reason and the remedy."""
    if name == "reference":
        return None
    reason, takes = _REASONS[name], WITH_OPERATORS[name].takes
    if reason is None and device_type not in takes:
        return f"it runs on {' or '.join(takes)} tensors; move the inputs there, or use backend='auto'"
    return reason


def has_operators(name: str) -> bool:
    """Whether its operators can be defined in this process, whatever devices there are."""
    return _REASONS[name] is None


def meant_for(device_type: str) -> list[str]:
    """The backends for tensors of this device type, the best first, test equipment left out."""
    return [record.name for record in _RECORDS if device_type in record.device_types]


def _first_that_runs(device_type: str) -> str:
    return next((name for name in meant_for(device_type) if why_not(name, device_type) is None), "reference")


def fastest_by_device_type() -> dict[str, str]:
    """{device type: the backend that "auto" takes}, for every device type that a backend names."""
    named = dict.fromkeys(device_type for record in _RECORDS for device_type in record.device_types)
    return {device_type: _first_that_runs(device_type) for device_type in named}


_FASTEST = fastest_by_device_type()


def fastest(device_type: str) -> str:
    """The backend that "auto" takes on this device type; "reference" wherever no other can run."""
    return _FASTEST.get(device_type, "reference")


def device_types() -> tuple[str, ...]:
    """Every device type that a backend is meant for."""
    return tuple(_FASTEST)
