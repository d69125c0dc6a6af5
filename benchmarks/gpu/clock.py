"""How a step is timed on a GPU: three figures that must not be mixed, and the peak of its memory.

`graph` is the device's time alone, `cold` that of one eager step whose inputs left the L2 cache, `host` what Python and
PyTorch take to issue a step.
"""

import functools
import math
import statistics
import time
from collections.abc import Callable

import torch

Run = Callable[[], object]

# Seconds that one figure of one contender may take in one pass, and the fewest and most repetitions.
SECONDS, FEWEST, MOST = 0.06, 4, 60
# What takes as long as this is measured once a pass.
SLOW = 0.05
# Sets of inputs that one graph goes through.
MOST_SETS = 16


class Clock:
    def __init__(self, device: str) -> None:
        self.device = device
        properties = torch.cuda.get_device_properties(0)
        self.l2_bytes: int = getattr(properties, "L2_cache_size", 0) or 64 * 2**20

    @functools.cached_property
    def _sweep(self) -> torch.Tensor:
        return torch.empty(2 * self.l2_bytes, dtype=torch.int8, device=self.device)

    def sets(self, bytes_of_one: int) -> int:
        """Sets of inputs to rotate: beyond twice the L2 cache together, and not too many to capture."""
        return min(max(2, math.ceil(2.2 * self.l2_bytes / bytes_of_one)), MOST_SETS)

    def graph(self, steps: list[Run]) -> Callable[[], float]:
        """Captures the steps, one after another, as one graph; the result measures seconds per step.

        Each replay comes behind a write over twice the L2 cache, so that every step finds its own inputs cold.
        """
        replay, _ = capture(lambda: [step() for step in steps][-1])
        return lambda: self._median(replay, before=self._sweep.zero_) / len(steps)

    def cold(self, step: Run, host_seconds: float) -> float:
        """One eager step behind a write over the cache, with the device busy until the host has issued all of it."""
        cycles = int(2e9 * (1.5 * host_seconds + 50e-6))

        def before() -> None:
            self._sweep.zero_()
            torch.cuda._sleep(cycles)

        return self._median(step, before)

    def host(self, step: Run) -> float:
        """Seconds until the host has issued a step, nothing waited for; few at a time, so that the queue has room."""
        count, times = 1 if self.span(step) > SLOW else 3, []
        begin = time.perf_counter()
        while len(times) < FEWEST or (len(times) < MOST and time.perf_counter() - begin < SECONDS):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(count):
                step()
            times.append((time.perf_counter() - start) / count)
            if count == 1:
                break
        torch.cuda.synchronize()
        return statistics.median(times)

    def span(self, function: Run) -> float:
        """Seconds between events around one call."""
        return self._events(function)[0]

    def peak(self, step: Run) -> int:
        """Bytes that a step takes at most beside what is there before it."""
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def _median(self, function: Run, before: Run) -> float:
        """Seconds of `function` on the device, each time behind `before`."""
        once = self._events(function, before)[0]
        if once > SLOW:
            return once
        repeats = min(max(FEWEST, int(SECONDS / max(once, 1e-6))), MOST)
        return statistics.median(self._events(function, before, repeats))

    def _events(self, function: Run, before: Run = lambda: None, repeats: int = 1) -> list[float]:
        pairs = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before()
            begin.record()
            function()
            end.record()
            pairs.append((begin, end))
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) / 1e3 for begin, end in pairs]


def capture(function: Callable[[], object]) -> tuple[Callable[[], None], object]:
    """(replay, what it fills) of a function as a CUDA graph, warmed up on a stream of its own first."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function()
    return graph.replay, outputs
