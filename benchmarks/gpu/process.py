"""One process with a deadline: how it ended, its last lines, and what the GPU's clocks did meanwhile."""

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

TAIL = 40
# Between two looks at the clocks: nvidia-smi takes a tenth of a second of the host, which medians do not feel.
CLOCKS_EVERY = 10.0


class Attempt(NamedTuple):
    """`exit_status` is negative where a signal ended the process (as subprocess has it)."""

    exit_status: int
    timed_out: bool
    seconds: float
    tail: list[str]
    clocks: dict | None


def run(
    command: list[str],
    environment: dict[str, str],
    log: Path,
    deadline: float,
    silent_since: Callable[[], float] | None = None,
    patience: float = float("inf"),
) -> Attempt:
    """Run until it ends, until `deadline` (time.time()), or until nothing was heard of it for `patience` seconds.

    It runs in the log's folder: Python puts the one it runs in before PYTHONPATH, and the checkout must not be that.
    """
    begin, sampled, samples, timed_out = time.time(), 0.0, [], False
    with log.open("wb") as output:
        child = start(command, environment, output, log.parent)
        try:
            while child.poll() is None:
                now = time.time()
                silent = now - max(begin, silent_since() if silent_since else begin)
                if now > deadline or (silent_since and silent > patience):
                    timed_out = True
                    break
                if now - sampled > CLOCKS_EVERY:
                    sampled = now
                    samples.append(clocks())
                time.sleep(0.05)
        finally:
            end_group(child)
    status = -signal.SIGKILL if child.returncode is None else child.returncode
    return Attempt(status, timed_out, round(time.time() - begin, 2), last_lines(log), _range(samples))


def start(command: list[str], environment: dict[str, str], output: IO, folder: Path) -> subprocess.Popen:
    """In a group of its own, so that what it starts dies with it, and in this session, so that it dies with that."""
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        preexec_fn=os.setpgrp,
    )  # fmt: skip


def end_group(child: subprocess.Popen) -> None:
    """Kill the process and all that it left running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    # A process that hangs in the driver cannot be killed, and must not hang the day.
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=10)


def last_lines(log: Path, count: int = TAIL) -> list[str]:
    text = log.read_bytes()[-65536:].decode(errors="replace")
    return [line[-500:] for line in text.splitlines()[-count:]]


_CLOCKS = {"sm_mhz": "clocks.sm", "memory_mhz": "clocks.mem", "celsius": "temperature.gpu", "watts": "power.draw"}


def clocks() -> dict[str, float] | None:
    """What nvidia-smi says of the first GPU now; None where there is none to ask."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(_CLOCKS.values())}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
        return {name: float(value) for name, value in zip(_CLOCKS, done.stdout.split(","), strict=True)}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _range(samples: list[dict | None]) -> dict | None:
    """{clock: [least, median, most]} over the samples."""
    known = [sample for sample in samples if sample is not None]
    if not known:
        return None
    columns = {name: [sample[name] for sample in known] for name in _CLOCKS}
    return {name: [min(values), statistics.median(values), max(values)] for name, values in columns.items()}
