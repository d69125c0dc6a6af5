"""The programs that watch a process from outside: where they are, and stand-ins for a rehearsal."""

import os
import shutil
import subprocess
import sys

from benchmarks.gpu.day import Day

# What one run under a tool may take.
SECONDS = 50
# Where a toolkit lies that is not on the PATH.
ELSEWHERE = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer", "/opt/cuda/bin")


def find(day: Day, tool: str) -> str | None:
    """Its path; None where it is not to be found. In a rehearsal the stand-in."""
    home = [os.path.join(os.environ["CUDA_HOME"], "bin")] if "CUDA_HOME" in os.environ else []
    folders = [str(day.folder)] if day.rehearse else [os.environ.get("PATH", ""), *home, *ELSEWHERE]
    return shutil.which(tool, path=os.pathsep.join(folders))


def watch(day: Day, command: list[str], backend: str, problems: list[str], **environment: str) -> tuple[int, str]:
    """(exit status, all that was printed) of steps of a backend under a tool."""
    step = [sys.executable, "-m", "benchmarks.gpu.sections.one_step", day.device, backend, *problems]
    limit = max(10.0, min(SECONDS, day.left))
    try:
        done = subprocess.run(
            [*command, *step], capture_output=True, text=True, env=os.environ | environment, timeout=limit
        )
    except subprocess.TimeoutExpired as late:
        return -9, (late.stdout or b"").decode(errors="replace") + f"\nnot done after {limit:.0f} s"
    return done.returncode, done.stdout + done.stderr


def write_stand_in(day: Day, tool: str, says: str) -> None:
    """A program that takes the tool's options, runs what is to be watched, and prints what the tool would."""
    script = day.folder / tool
    script.write_text(
        f'#!/bin/sh\nwhile [ "$1" != "{sys.executable}" ]; do shift; done\n"$@" || exit 9\ncat <<END\n{says}\nEND\n',
        "utf-8",
    )
    script.chmod(0o755)
