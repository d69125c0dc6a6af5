"""What torch.autocast does to the loss: whether it is on, and for which kinds of devices there is one."""

import torch

# Asked once, since torch.compile of torch 2.11 cannot trace the question; of other kinds torch is asked each time.
_KNOWN = {kind: torch.amp.is_autocast_available(kind) for kind in ("cpu", "cuda", "xpu", "mps", "hpu", "xla", "meta")}


def autocasts(device_type: str) -> bool:
    """Whether torch.autocast is on for this kind of device."""
    return can_autocast(device_type) and torch.is_autocast_enabled(device_type)


def can_autocast(device_type: str) -> bool:
    """Whether torch.autocast knows this kind of device."""
    available = _KNOWN.get(device_type)
    return torch.amp.is_autocast_available(device_type) if available is None else available
