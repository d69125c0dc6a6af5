"""nvcc's PTX of CUDA C++ for sm_80, kept in build/ptx for as long as it is newer than the sources."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "ptx"
NVCC = shutil.which("nvcc", path=os.pathsep.join([os.environ.get("CUDA_HOME", "") + "/bin", os.environ["PATH"]]))
MISSING = "no nvcc; put it on the PATH, or point CUDA_HOME at a toolkit"


def ptx(source: Path, flags: Iterable[str] = (), headers: Iterable[Path] = ()) -> str:
    """The PTX of one file."""
    options = [flag.strip("-").replace("=", "") for flag in flags]
    result = OUT / "_".join([source.parent.name, source.name, *options, "sm_80.ptx"])
    if not result.exists() or any(result.stat().st_mtime < file.stat().st_mtime for file in [source, *headers]):
        OUT.mkdir(parents=True, exist_ok=True)
        # Several workers of pytest-xdist may compile the same.
        mine = result.with_suffix(f".{os.getpid()}")
        subprocess.run([NVCC, "-ptx", "-arch=compute_80", "-O3", *flags, str(source), "-o", str(mine)], check=True)
        mine.replace(result)
    return result.read_text()
