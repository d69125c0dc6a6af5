"""Builds the native libraries of csrc/ where the tools for them are present; everything else stands in pyproject.toml.

Environment: CUDA_HOME (else found through nvcc), TORCH_CUDA_ARCH_LIST (else a broad default), CXX, ITRD_LIBRARIES
("cpu cuda", or one of them), ITRD_REQUIRE_NATIVE=1 (a library that does not compile is an error).
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import setuptools

ROOT = Path(__file__).parent
# No vector leaves its translation unit, so that GCC's notes on how compilers pass them do not matter.
OPTIONS = ["-O3", "-g0", "-fno-math-errno", "-fvisibility=hidden", "-Wno-psabi"]
# The oldest torch whose stable ABI is used: one build serves that release and all later ones.
TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000ULL"

# One build serves all later Pythons, but for the free-threaded ones, which have no such interface.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


def skip(what: str, why: str) -> None:
    print(f"itrd_kernels: building without the {what} ({why})", file=sys.stderr)


def refuse_old_setuptools() -> None:
    """Whose complaint about the metadata in pyproject.toml would not name it; only --no-build-isolation meets one."""
    needed = re.search(r"setuptools>=(\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    if int(setuptools.__version__.split(".")[0]) < int(needed):
        sys.exit(
            f"itrd_kernels: the build needs setuptools >= {needed}, but {setuptools.__version__} is installed; "
            f"pip install 'setuptools>={needed}', or leave out --no-build-isolation"
        )


def find_cuda_home() -> str | None:
    """The toolkit's root: $CUDA_HOME, else where nvcc says it is from, since the nvcc on the PATH may be a link."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc")
    if home or not nvcc:
        return home
    steps = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.*?)\s*$", steps, re.MULTILINE)
    return str(Path(top[1]).resolve()) if top else None


def architecture_flags(asked: str) -> list[str]:
    """For nvcc; none where torch's own reading of TORCH_CUDA_ARCH_LIST is needed ("Hopper", "9.0a").

    No instruction of the kernels is newer than sm_80: one PTX for it and all later architectures, so that the front
    end, half of the compile time, runs once for them; with +PTX it also serves those that are not named.
    """
    flags = []
    for entry in filter(None, re.split(r"[;\s]+", asked)):
        version = re.fullmatch(r"(\d+)\.(\d)(\+PTX)?", entry)
        if version is None:
            return []
        real = int(version[1] + version[2])
        virtual = f"compute_{80 if real >= 80 else real}"
        flags.append(f"-gencode=arch={virtual},code=sm_{real}")
        if version[3]:
            flags.append(f"-gencode=arch={virtual},code={virtual}")
    return flags


def cuda_extensions(torch, cpp_extension, common):
    """The CUDA library, whether or not a GPU is present; none without a toolkit and a CUDA build of torch."""
    if torch.version.cuda is None:
        skip("CUDA library", "this torch is built without CUDA")
        return []
    if not cpp_extension.CUDA_HOME or shutil.which("nvcc", path=str(Path(cpp_extension.CUDA_HOME) / "bin")) is None:
        skip("CUDA library", "no CUDA toolkit; put nvcc on the PATH, or point CUDA_HOME at one")
        return []
    # Binary code for one architecture runs on the later ones of its generation.
    newest = ";10.0;12.0+PTX" if tuple(map(int, torch.version.cuda.split("."))) >= (12, 8) else "+PTX"
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "7.5;8.0;9.0" + newest)
    sources = sorted((ROOT / "csrc/cuda").glob("*.c*"))
    return [
        cpp_extension.CUDAExtension(
            "itrd_kernels._cuda",
            [str(p.relative_to(ROOT)) for p in sources if p.suffix in (".cu", ".cpp")],
            include_dirs=[str(ROOT / "csrc")],
            depends=sorted(str(p) for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cuh")),
            extra_compile_args={
                "cxx": common,
                "nvcc": ["-O3", "--threads=0", *architecture_flags(os.environ["TORCH_CUDA_ARCH_LIST"])],
            },
            py_limited_api=LIMITED_API,
        )
    ]


def extensions_and_commands():
    home = find_cuda_home()
    if home:
        os.environ["CUDA_HOME"] = home  # read when cpp_extension is imported
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        skip("native libraries", f"torch cannot be imported: {error}; use --no-build-isolation")
        return [], {}
    if shutil.which(os.environ.get("CXX", "c++").split()[0]) is None and sys.platform != "win32":
        skip("native libraries", "no C++ compiler; install one, or point CXX at it")
        return [], {}

    class OptionalBuildExtension(cpp_extension.BuildExtension):
        """A library that does not compile costs its backend, not the installation."""

        def build_extensions(self):
            wanted, self.extensions = self.extensions, []
            fingerprint = runpy.run_path(str(ROOT / "csrc/fingerprint.py"))["write_source"](Path(self.build_temp))
            for extension in wanted:
                extension.sources.append(str(fingerprint))
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

    common = [TORCH_TARGET, *([] if os.name == "nt" else OPTIONS)]
    cpu = cpp_extension.CppExtension(
        "itrd_kernels._cpu",
        sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc/cpu").rglob("*.cpp")),
        include_dirs=[str(ROOT / "csrc")],
        depends=sorted(str(p) for p in (ROOT / "csrc").rglob("*.h")),
        extra_compile_args=common,
        py_limited_api=LIMITED_API,
    )
    wanted = os.environ.get("ITRD_LIBRARIES", "cpu cuda").split()
    if not wanted or set(wanted) - {"cpu", "cuda"}:
        sys.exit(f"itrd_kernels: ITRD_LIBRARIES must be 'cpu cuda' or one of them, got {' '.join(wanted)!r}")
    extensions = [cpu] if "cpu" in wanted else []
    extensions += cuda_extensions(torch, cpp_extension, common) if "cuda" in wanted else []
    return extensions, {"build_ext": OptionalBuildExtension}


refuse_old_setuptools()
ext_modules, cmdclass = extensions_and_commands()
options = {"bdist_wheel": {"py_limited_api": "cp310"}} if LIMITED_API else {}
setuptools.setup(ext_modules=ext_modules, cmdclass=cmdclass, options=options)
