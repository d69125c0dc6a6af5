"""Compiles and links C++ for the tests; what is newer than its sources is kept."""

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPILER = os.environ.get("CXX", "c++").split()
TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000ULL"


def build(
    target: Path,
    objects: Path,
    sources: list[Path],
    headers: list[Path],
    compile_flags: list[str],
    link_flags: list[str],
    libraries: list[str],
) -> Path:
    """`target`, of objects in a folder of their own; nothing to do where all is newer than what it is made from.

    One process at a time, since several workers of pytest-xdist may want the same.
    """
    objects.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> Path:
        result = objects / f"{source.name}.o"
        if not _newer(result, [source, *headers, Path(__file__)]):
            _run([*COMPILER, *compile_flags, "-x", "c++", "-c", str(source), "-o", str(result)])
        return result

    with open(objects / "lock", "w") as lock, ThreadPoolExecutor(os.cpu_count()) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = list(pool.map(compile_one, sources))
        if not _newer(target, made):
            _run([*COMPILER, *link_flags, *map(str, made), "-o", str(target), *libraries])
    return target


def torch_flags() -> tuple[list[str], list[str]]:
    """To compile against torch's stable ABI, and to link."""
    from torch.utils import cpp_extension

    includes = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    folders = [f"-L{path}" for path in cpp_extension.library_paths()]
    return [TORCH_TARGET, *includes], [*folders, "-ltorch", "-ltorch_cpu", "-lc10"]


def _newer(result: Path, sources: list[Path]) -> bool:
    return result.exists() and all(result.stat().st_mtime >= source.stat().st_mtime for source in sources)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or done.stderr:
        print(" ".join(command[:1] + command[-3:]), done.stderr, file=sys.stderr)
    if done.returncode:
        raise RuntimeError(f"{command[-3]} does not compile")
