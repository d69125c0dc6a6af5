"""Builds the native libraries of csrc/ where the tools for them are present; everything else stands in pyproject.toml.

Environment: CUDA_HOME (else found through nvcc), TORCH_CUDA_ARCH_LIST (else a broad default), CXX.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
OPTIONS = ["-O3", "-g0", "-fno-math-errno", "-fvisibility=hidden"]
# The oldest torch whose stable ABI is used: one build serves that release and all later ones.
TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000ULL"


def skip(what: str, why: str) -> None:
    print(f"itrd_kernels: building without the {what} ({why})", file=sys.stderr)


def extensions_and_commands():
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError as error:
        skip("native libraries", f"torch cannot be imported: {error}; use --no-build-isolation")
        return [], {}
    if shutil.which(os.environ.get("CXX", "c++").split()[0]) is None and sys.platform != "win32":
        skip("native libraries", "no C++ compiler; install one, or point CXX at it")
        return [], {}

    class OptionalBuildExtension(BuildExtension):
        """A library that does not compile costs its backend, not the installation."""

        def build_extensions(self):
            wanted, self.extensions = self.extensions, []
            for extension in wanted:
                self.extensions = [extension]
                try:
                    super().build_extensions()
                except Exception as error:
                    if os.environ.get("ITRD_REQUIRE_NATIVE") == "1":
                        raise
                    skip(extension.name, f"it does not compile: {error}")
            self.extensions = wanted

        def copy_extensions_to_source(self):
            built = [e for e in self.extensions if Path(self.get_ext_fullpath(e.name)).exists() or self._was_built(e)]
            self.extensions = built
            super().copy_extensions_to_source()

        def _was_built(self, extension):
            return (Path(self.build_lib) / self.get_ext_filename(self.get_ext_fullname(extension.name))).exists()

    cpu = CppExtension(
        "itrd_kernels._cpu",
        ["csrc/ops.cpp", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc/cpu").glob("*.cpp"))],
        include_dirs=[str(ROOT / "csrc")],
        depends=sorted(str(p) for p in (ROOT / "csrc").rglob("*.h")),
        extra_compile_args=[TORCH_TARGET, *([] if os.name == "nt" else OPTIONS)],
        py_limited_api=True,
    )
    return [cpu], {"build_ext": OptionalBuildExtension}


ext_modules, cmdclass = extensions_and_commands()
setup(ext_modules=ext_modules, cmdclass=cmdclass, options={"bdist_wheel": {"py_limited_api": "cp310"}})
