"""`install()` makes Triton believe in an sm_90 GPU whose driver does nothing, and its backend here in CPU tensors.

Kernels are really compiled and really launched by Triton's own launcher; only the driver below it returns at once.
Nothing is computed, so that results are rubbish and host time alone means something. It uses private names of Triton
(tried with 3.6.0 and 3.8.0), and has to come before the first import of itrd_kernels.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "noop_driver.c"


def install() -> None:
    if "itrd_kernels" in sys.modules:
        raise RuntimeError("the pretended driver must be installed before itrd_kernels is imported")
    folder = Path(tempfile.mkdtemp(prefix="noop-driver-"))
    library = folder / "libcuda.so.1"
    compiler = os.environ.get("CC", "cc")
    options = ["-shared", "-fPIC", "-O1", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([compiler, *options, "-o", str(library), str(SOURCE)], check=True)
    os.environ["TRITON_LIBCUDA_PATH"] = str(folder)
    # Whatever is linked with libcuda from now on finds this one by its name.
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)

    import triton

    triton.runtime.driver.set_active(_driver())
    # Only under this variable are the operators registered for CPU tensors; the kernels must not be interpreted.
    os.environ["TRITON_INTERPRET"] = "1"
    import itrd_kernels  # noqa: F401

    del os.environ["TRITON_INTERPRET"]
    from itrd_kernels.backends.triton import configurations, launch

    if launch.INTERPRETING:
        raise RuntimeError("the Triton backend's launches were imported while TRITON_INTERPRET was set")
    configurations.architecture = lambda device: "sm_90"


def _driver():
    from triton.backends.nvidia.driver import CudaDriver

    class PretendedDriver(CudaDriver):
        def __init__(self) -> None:
            super().__init__()
            self.get_device_capability = lambda device=0: (9, 0)
            self.get_current_stream = lambda device: 0
            self.get_current_device = lambda: 0
            self.set_current_device = lambda device: None

        @staticmethod
        def is_active() -> bool:
            return True

    return PretendedDriver()
