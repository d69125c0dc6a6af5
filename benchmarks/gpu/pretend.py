"""Stand-ins for what the sections ask of torch.cuda, so that a rehearsal takes their way on a CPU.

Events read the clock, streams are none, a graph calls its function again, memory is not counted.
"""

import contextlib
import time
import types
from collections.abc import Callable

import torch
from torch import Tensor


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds."""
        return (end.at - self.at) * 1e3


class Stream:
    def wait_stream(self, other: "Stream") -> None: ...


def capture(function: Callable[[], list[Tensor]]) -> tuple[Callable[[], None], list[Tensor]]:
    """In the place of clock.capture."""
    outputs = function()

    def replay() -> None:
        for old, new in zip(outputs, function(), strict=True):
            old.copy_(new)

    return replay, outputs


def install() -> None:
    from benchmarks.gpu import clock

    nothing = lambda *_: None  # noqa: E731
    properties = types.SimpleNamespace(
        name="no GPU", major=0, minor=0, multi_processor_count=1, total_memory=2**30, L2_cache_size=2**16
    )
    stand_ins = {
        "Event": Event,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": contextlib.nullcontext,
        "memory_allocated": lambda: 0,
        "max_memory_allocated": lambda: 2**20,
        "get_device_properties": lambda device: properties,
        **dict.fromkeys(
            ("synchronize", "_sleep", "empty_cache", "reset_peak_memory_stats", "set_sync_debug_mode"), nothing
        ),
    }
    for name, stand_in in stand_ins.items():
        setattr(torch.cuda, name, stand_in)
    clock.capture = capture
    clock.SECONDS, clock.FEWEST, clock.MOST, clock.MOST_SETS = 0.0, 1, 1, 2
