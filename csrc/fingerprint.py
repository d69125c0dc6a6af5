"""`python csrc/fingerprint.py` prints a hash of the native sources, which every library built from them carries.

A library that lies about can so be told from one that was built from other sources, without loading it.
"""

import hashlib
import re
from pathlib import Path

HERE = Path(__file__).parent
_MARK = "itrd_kernels was built from csrc "


def of_sources(folder: Path = HERE) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".cpp", ".h", ".cu", ".cuh")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def of_library(path: Path) -> str | None:
    """The hash in a built library; None where it carries none."""
    found = re.search(_MARK.encode() + rb"([0-9a-f]{64})", path.read_bytes())
    return found[1].decode() if found else None


def write_source(folder: Path) -> Path:
    """A C++ file for the build, which puts the hash into the library; left alone where it says so already."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fingerprint.cpp"
    value = f'"{_MARK}{of_sources()}"'
    # Nobody refers to it: external, and marked as used where compilers know the attribute, it stays in the library.
    text = f"""#if defined(__GNUC__)
#define ITRD_USED __attribute__((used))
#else
#define ITRD_USED
#endif
extern "C" {{
extern const char itrd_fingerprint[];
ITRD_USED const char itrd_fingerprint[] = {value};
}}
"""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return path


if __name__ == "__main__":
    print(of_sources())
