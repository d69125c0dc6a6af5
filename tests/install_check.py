"""`make install-check`: the package as a user installs it: in an empty environment, from the checkout and the sdist.

The first installation is isolated (pip fetches torch for the build), the second uses --no-build-isolation.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent

USE = """
import torch, itrd_kernels
from pathlib import Path
assert "site-packages" in itrd_kernels.__file__, itrd_kernels.__file__
assert (Path(itrd_kernels.__file__).parent / "py.typed").exists()
reasons = itrd_kernels.available_backends()
assert reasons["cpu"] is None, reasons
criterion = itrd_kernels.FusedITRDLoss(12, 20, backend="cpu")
z_s, z_t = torch.randn(32, 12, requires_grad=True), torch.randn(32, 20)
loss = criterion(z_s, z_t)
loss.backward()
criterion.backend = "reference"
torch.testing.assert_close(loss, criterion(z_s, z_t))
print("itrd_kernels", itrd_kernels.__version__, "with torch", torch.__version__, "works")
"""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("+", *command, flush=True)
    # With the versions that development is pinned to, in build environments too.
    pins = str(ROOT / "constraints.txt")
    environment = {**os.environ, "PIP_CONSTRAINT": pins, "PIP_BUILD_CONSTRAINT": pins, "ITRD_REQUIRE_NATIVE": "1"}
    # The CUDA kernels for one architecture show what the check is about, in a fraction of the time.
    environment.setdefault("TORCH_CUDA_ARCH_LIST", "8.0")
    environment.pop("PYTHONPATH", None)
    subprocess.run([str(part) for part in command], cwd=cwd, env=environment, check=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        empty = Path(scratch)
        venv.create(empty / "venv", with_pip=True)
        python = empty / "venv/bin/python"
        pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")

        run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", empty, ROOT)
        (sdist,) = empty.glob("*.tar.gz")

        run(*pip, ROOT)
        run(python, "-c", USE, cwd=empty)

        run(*pip, "setuptools", "ninja")
        run(*pip, "--no-build-isolation", "--no-deps", "--force-reinstall", sdist)
        run(python, "-c", USE, cwd=empty)
        run(python, "-m", "itrd_kernels", cwd=empty)


if __name__ == "__main__":
    main()
