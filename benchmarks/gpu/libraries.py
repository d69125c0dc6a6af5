"""The native library of the day: the one in itrd_kernels/ if it was built from these sources, else a new one.

A new one is built beside what else happens, for this GPU alone, into a copy of the package in the scratch folder; pip
is not needed for that. Without it the day goes on with Triton alone.
"""

import os
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu import process

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "itrd_kernels"
SUFFIXES = (".so", ".pyd", ".dylib")

_fingerprint = runpy.run_path(str(ROOT / "csrc/fingerprint.py"))


class Library:
    """`_cuda`, or in a rehearsal the CUDA kernels' host build.

    `state` is one of "found", "building", "built", "missing"; `why` says why it is not "found".
    """

    def __init__(self, scratch: Path, rehearse: bool, capability: str | None) -> None:
        self.name = "_cuda_on_host" if rehearse else "_cuda"
        self.rehearse, self.capability = rehearse, capability
        self.folder = scratch / f"libraries-{_fingerprint['of_sources']()[:12]}"
        self.log = scratch / "build.log"
        self.child: subprocess.Popen | None = None
        self.state, self.why, self.seconds = "found", "", 0.0
        # Whether a rehearsal does without it.
        self.withheld = False
        refused = self.refused(PACKAGE)
        if refused:
            self.state, self.why = "missing", refused

    def refused(self, package: Path) -> str | None:
        """None if the library there was built from these sources, else the reason."""
        found = [path for path in sorted(package.glob(f"{self.name}.*")) if path.suffix in SUFFIXES]
        if not found:
            return f"there is no {self.name} in {package.name}/"
        mark = _fingerprint["of_library"](found[0])
        if mark != _fingerprint["of_sources"]():
            return f"{found[0].name} was built from other sources ({mark[:12] if mark else 'it carries no hash'})"
        return None

    def build(self, environment: dict[str, str], why: str = "") -> None:
        """Start building; `wait` for its end."""
        self.why = why or self.why
        package = self.folder / "itrd_kernels"
        # Anew in every call: the Python code may have changed since an earlier one built the library.
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"), dirs_exist_ok=True)
        if self.refused(package) is None:
            self.state = "built"
            return
        self.state, self.begin = "building", time.time()
        objects = self.folder / "objects"
        objects.mkdir(exist_ok=True)
        if self.rehearse:
            command = ["tests/cuda_on_host/compile_on_host.py", str(package / f"{self.name}.so"), str(objects)]
        else:
            command = ["setup.py", "build_ext", "--build-lib", str(self.folder), "--build-temp", str(objects)]
        told = {} if self.rehearse else {"TORCH_CUDA_ARCH_LIST": self.capability or "", "ITRD_LIBRARIES": "cuda"}
        with self.log.open("wb") as log:
            self.child = process.start([sys.executable, *command], {**environment, **told}, log, ROOT)

    def wait(self, until: float) -> None:
        """Until the build has ended, or `until` (time.time()); a build that takes longer goes on."""
        while self.child and self.child.poll() is None and time.time() < until:
            time.sleep(0.2)
        if self.child and self.child.poll() is not None:
            self.seconds = round(time.time() - self.begin, 1)
            refused = self.refused(self.folder / "itrd_kernels")
            self.state = "missing" if refused else "built"
            self.why += f"; building it gave nothing usable: {refused}" if refused else ""
            self.child = None

    def stop(self) -> None:
        if self.child:
            process.end_group(self.child)
            self.why += "; building it was not done in time"
            self.child, self.state = None, "missing"

    @property
    def usable(self) -> bool:
        return self.state in ("found", "built") and not self.withheld

    def import_path(self) -> list[str]:
        """What goes before the checkout on the sections' path: never a package with a library that was refused."""
        return [] if self.state == "found" else [str(self.folder)]

    def record(self) -> dict:
        if self.withheld:
            return {"name": self.name, "state": "missing", "why": "as the rehearsal of this stage wants it"}
        tail = process.last_lines(self.log, 12) if self.state == "missing" and self.log.exists() else []
        return {"name": self.name, "state": self.state, "why": self.why, "seconds": self.seconds, "tail": tail}


def environment(scratch: Path, rehearse: bool, import_path: list[str]) -> dict[str, str]:
    """What sections are told: the checkout's code, caches outside the output folder, no threads pinned."""
    told = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "ITRD_"))}
    ours = [ROOT, ROOT / "python", ROOT / "tests", ROOT / "tests/triton"]
    paths = [*import_path, *map(str, ours), told.get("PYTHONPATH", "")]
    told |= {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_PROC_BIND": "false",
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
    }
    return told | ({"TRITON_INTERPRET": "1", "ITRD_CUDA_ON_HOST": "1", "OMP_NUM_THREADS": "1"} if rehearse else {})
