"""What a training loop relies on: repeating bits, CUDA graphs, no synchronisation, streams, autocast, torch.compile."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.gpu import clock, contenders
from benchmarks.gpu.day import Case, Day, Wrong
from itrd_kernels import FusedITRDLoss, itrd_loss

REPEATS, REPLAYS = 20, 3
SHAPE = (1000, 200)


def cases(day: Day) -> Iterator[Case]:
    n, d = (12, 8) if day.rehearse else SHAPE
    for backend in day.backends:
        for name, check in CHECKS.items():
            yield Case(f"{backend}: {name}", lambda b=backend, check=check: check(day, b, n, d) or {"ok": True})


def step(backend: str, z_s: Tensor, z_t: Tensor) -> list[Tensor]:
    total = itrd_loss(z_s, z_t, backend=backend).total
    return [total.detach(), *torch.autograd.grad(total, z_s)]


def repeats(day: Day, backend: str, n: int, d: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        inputs = contenders.features(n, d, dtype, day.device)
        first = step(backend, *inputs)
        for _ in range(2 if day.rehearse else REPEATS):
            _same(first, step(backend, *inputs), f"{dtype}: another run")


def beside_a_busy_stream(day: Day, backend: str, n: int, d: int) -> None:
    inputs = contenders.features(n, d, torch.bfloat16, day.device)
    first = step(backend, *inputs)
    size = 16 if day.rehearse else 4096
    load = torch.randn(size, size, device=day.device)
    for _ in range(2 if day.rehearse else REPEATS):
        with _stream():
            load @ load
        _same(first, step(backend, *inputs), "a run beside a busy stream")


def another_stream(day: Day, backend: str, n: int, d: int) -> None:
    inputs = contenders.features(n, d, torch.float32, day.device)
    first = step(backend, *inputs)
    with _stream() as stream:
        found = step(backend, *inputs)
    torch.cuda.current_stream().wait_stream(stream)
    _same(first, found, "another stream")


def captured(day: Day, backend: str, n: int, d: int) -> None:
    """A graph that is replayed on changed inputs gives what an eager step gives for them."""
    z_s, z_t = contenders.features(n, d, torch.float32, day.device)
    replay, outputs = clock.capture(lambda: step(backend, z_s, z_t))
    for number in range(REPLAYS):
        fresh_s, fresh_t = contenders.features(n, d, torch.float32, day.device, seed=number + 1)
        with torch.no_grad():
            z_s.copy_(fresh_s)
            z_t.copy_(fresh_t)
        replay()
        _same(step(backend, z_s, z_t), outputs, f"replay {number}")


def no_synchronisation(day: Day, backend: str, n: int, d: int) -> None:
    inputs = contenders.features(n, d, torch.float32, day.device)
    step(backend, *inputs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(backend, *inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def under_autocast(day: Day, backend: str, n: int, d: int) -> None:
    """The module, its embedding in bfloat16, against the reference on the same embedded features."""
    criterion = FusedITRDLoss(d, d + 8, backend=backend).to(day.device)
    z_s, _ = contenders.features(n, d, torch.float32, day.device)
    _, z_t = contenders.features(n, d + 8, torch.float32, day.device)
    with torch.autocast(day.device, dtype=torch.bfloat16):
        loss = criterion(z_s, z_t)
    loss.backward()
    with torch.autocast(day.device, dtype=torch.bfloat16):
        embedded = criterion.embed(z_s.detach())
    expected = itrd_loss(embedded.float(), z_t, backend="reference").total
    gap = (loss - expected).abs().item()
    if not gap <= 1e-2 * max(1.0, expected.abs().item()) or not z_s.grad.isfinite().all():
        raise Wrong(f"{loss.item():.6g} under autocast, the reference gives {expected.item():.6g}")


def under_compile(day: Day, backend: str, n: int, d: int) -> None:
    torch.compiler.reset()
    criterion = FusedITRDLoss(d, d + 8, backend=backend).to(day.device)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager" if day.rehearse else "inductor")
    z_s, _ = contenders.features(n, d, torch.float32, day.device)
    _, z_t = contenders.features(n, d + 8, torch.float32, day.device)
    results = []
    for function in (criterion, compiled):
        loss = function(z_s, z_t)
        results.append([loss.detach(), *torch.autograd.grad(loss, [z_s, *criterion.parameters()])])
    for ours, eager in zip(*results, strict=True):
        # Near 0 an entry has lost its digits to cancellation.
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5 * max(1e-3, eager.abs().max().item()))


CHECKS: dict[str, Callable] = {
    "results repeat bit for bit": repeats,
    "beside a busy stream": beside_a_busy_stream,
    "on another stream": another_stream,
    "graph capture": captured,
    "no synchronisation": no_synchronisation,
    "autocast": under_autocast,
    "torch.compile": under_compile,
}


def _same(expected: list[Tensor], found: list[Tensor], what: str) -> None:
    for index, (a, b) in enumerate(zip(expected, found, strict=True)):
        if not torch.equal(a, b):
            gap, size = (a - b).abs().max().item(), a.abs().max().item()
            raise Wrong(f"{what} differs in result {index}, by {gap:.3g} of {size:.3g}")


@contextlib.contextmanager
def _stream() -> Iterator[torch.cuda.Stream]:
    """A stream that starts behind the current one."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield stream
