"""What ptxas makes of the CUDA kernels: registers, stack, spills and static shared memory per architecture.

python tests/cuda_on_host/ptxas.py writes ptxas.json, the baseline that test_ptxas.py compares with.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
BASELINE = HERE / "ptxas.json"
SOURCES = sorted((HERE.parent.parent / "csrc" / "cuda").glob("*.cu"))
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")

_REPORT = re.compile(
    r"Compiling entry function '(\S+)' for '(\S+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads.*?Used (\d+) registers(?:.*?, (\d+) bytes smem)?"
)


def nvcc_version(nvcc: str) -> str:
    return re.search(r"release (\S+),", subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout)[1]


def measure(nvcc: str) -> dict[str, dict[str, dict[str, int]]]:
    """{architecture: {kernel: {"registers", "stack", "spills", "shared"}}}, compiled as setup.py does.

    Dynamic shared memory is not here: the launches ask for it.
    """
    targets = [f"-gencode=arch=compute_{min(int(name[3:]), 80)},code={name}" for name in ARCHITECTURES]
    found: dict[str, dict[str, dict[str, int]]] = {name: {} for name in ARCHITECTURES}
    for source in SOURCES:
        with tempfile.NamedTemporaryFile(suffix=".o") as out:
            command = [nvcc, *targets, "-O3", "-Xptxas", "-v", "-c", str(source), "-o", out.name]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        for entry in re.split(r"(?=ptxas info\s+: Compiling entry)", text):
            if report := _REPORT.search(" ".join(entry.split("\n"))):
                name, architecture, stack, stores, loads, registers, shared = report.groups()
                found[architecture][_readable(name)] = {
                    "registers": int(registers),
                    "stack": int(stack),
                    "spills": int(stores) + int(loads),
                    "shared": int(shared or 0),
                }
    return found


def _readable(name: str) -> str:
    """gram_tiles<float, Ieee, 64> of a mangled name."""
    full = subprocess.run(["c++filt", name], capture_output=True, text=True).stdout
    return full.split("(")[0].replace("void ", "").replace("itrd::", "").strip()


if __name__ == "__main__":
    nvcc = sys.argv[1] if len(sys.argv) > 1 else "nvcc"
    baseline = {"nvcc": nvcc_version(nvcc), "kernels": measure(nvcc)}
    rows = re.compile(r"\{\s+(\"registers[^}]*?)\s+\}")
    text = rows.sub(lambda match: "{" + " ".join(match[1].split()) + "}", json.dumps(baseline, indent=1))
    BASELINE.write_text(text + "\n")
