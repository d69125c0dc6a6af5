"""First-order lower bounds on the time of profiled launches on real GPUs. A model, and no measurement.

The bound is the work of a launch over peak rates, for the busiest multiprocessor: nothing waits, all caches and pipes
are perfect. It tells which resource to relieve first and below which time a kernel cannot fall, not how long it takes.
"""

import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

# Dispatchers of a multiprocessor, each with units of its own; fewer warps than these use fewer of them.
PARTITIONS = 4
SPECIAL_FUNCTIONS_PER_CYCLE = 16
WAVEFRONTS_PER_CYCLE = 1
REGISTERS = 65536
# An A100 or H100 takes about this long from one small kernel to the next.
LAUNCH_US = 2.5


class GPU(NamedTuple):
    """Peaks at boost clock, dense.

    `dram` in GB/s; `tensor` in TFLOP/s of mma by input type; fp32 and fp64 in lanes per cycle and multiprocessor;
    warps, blocks and KiB of shared memory per multiprocessor.
    """

    arch: str
    multiprocessors: int
    ghz: float
    dram: float
    fp32: int
    fp64: int
    warps: int
    blocks: int
    shared: int
    tensor: dict


# Sources: NVIDIA's A100 datasheet (SXM, 80 GB), H100 datasheet (SXM) and architecture whitepaper, Ada GPU architecture
# whitepaper (float16 and bfloat16 with sums in float32; mma of float64 runs on the ordinary units); for operations per
# cycle and limits of residency the CUDA C++ Programming Guide, arithmetic throughput and compute capabilities.
GPUS = {
    "A100": GPU("sm_80", 108, 1.41, 2039, 64, 32, 64, 32, 164,
                {"f64": 19.5, "tf32": 156, "bf16": 312, "f16": 312, "s8": 624, "u8": 624}),
    "H100": GPU("sm_90", 132, 1.98, 3350, 128, 64, 64, 32, 228,
                {"f64": 67, "tf32": 494.7, "bf16": 989.4, "f16": 989.4, "s8": 1979, "u8": 1979}),
    "RTX 4090": GPU("sm_89", 128, 2.52, 1008, 128, 2, 48, 24, 100,
                    {"f64": 1.29, "tf32": 82.6, "bf16": 165.2, "f16": 165.2, "s8": 660.6, "u8": 660.6}),
}  # fmt: skip


class Bound(NamedTuple):
    """`us` is the largest of `parts`, that of the resource `by`; `without_l2` is the time of every sector from DRAM."""

    us: float
    by: str
    parts: dict[str, float]
    without_l2: float
    blocks_per_multiprocessor: int
    limited_by: str


def registers(text: str, name: str, arch: str) -> int | None:
    """Registers a thread of a kernel as ptxas reports them; None without ptxas."""
    found = re.search(rf"entry function '{re.escape(name)}'.*?Used (\d+) registers", _ptxas_report(text, arch), re.S)
    return int(found[1]) if found else None


@functools.cache
def _ptxas_report(text: str, arch: str) -> str:
    """What `ptxas -v` says of all kernels of a module, the toolkit's ptxas or Triton's."""
    tool = shutil.which("ptxas", path=os.pathsep.join([os.environ.get("CUDA_HOME", "") + "/bin", os.environ["PATH"]]))
    if not tool:
        try:
            import triton.backends.nvidia as nvidia
        except ImportError:
            return ""
        tool = str(Path(next(iter(nvidia.__path__))) / "bin/ptxas")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(text)
        command = [tool, "-v", f"-arch={arch}", str(source), "-o", str(source.with_suffix(".cubin"))]
        return subprocess.run(command, capture_output=True, text=True).stderr


def occupancy(gpu: GPU, threads: int, shared: int, registers: int | None) -> tuple[int, str]:
    """Blocks of a kernel that fit on one multiprocessor, and what limits them."""
    warps = -(-threads // 32)
    # A block reserves 1 KiB of shared memory, and shared memory is given out in units of 128 bytes.
    limits = {
        "warps": gpu.warps // warps,
        "blocks": gpu.blocks,
        "shared": gpu.shared * 1024 // (-(-(shared + 1024) // 128) * 128),
    }
    if registers:
        # A partition gives registers to a warp in units of 256.
        a_warp = -(-registers * 32 // 256) * 256
        limits["registers"] = REGISTERS // PARTITIONS // a_warp * PARTITIONS // warps
    what = min(limits, key=limits.get)
    return limits[what], what


def bound(profile, gpu: GPU, cold: bool = True) -> Bound:
    """The lower bound of a profiled launch; cold=False for data that earlier launches left in the L2."""
    used = profile.registers or registers(profile.text, profile.name, gpu.arch)
    resident, limited_by = occupancy(gpu, profile.threads, profile.shared_bytes, used)
    if not resident:
        raise ValueError(f"{profile.name}: a block does not fit on a multiprocessor ({limited_by})")
    busiest = -(-profile.blocks // gpu.multiprocessors)
    share = busiest / profile.blocks
    warps = min(resident, busiest) * -(-profile.threads // 32)
    partitions = min(1.0, warps / PARTITIONS)

    def us(work: float, per_cycle: float) -> float:
        return share * work / per_cycle / gpu.ghz / 1e3

    def lanes(*classes: str) -> int:
        return 32 * sum(profile.classes.get(name, (0, 0))[0] for name in classes)

    issued = sum(count for name, (count, _) in profile.classes.items() if name != "mov")
    tensor_us = sum(flops / gpu.tensor[dtype] for (_, dtype), (_, flops) in profile.mma.items()) / 1e6
    parts = {
        # Each sector moves once.
        "dram": profile.total["compulsory_bytes"] / gpu.dram / 1e3,
        "mma": tensor_us * share * gpu.multiprocessors / partitions,
        "fp32": us(lanes("fp32 fma", "fp32 add", "fp32 mul"), gpu.fp32 * partitions),
        "fp64": us(lanes("fp64"), gpu.fp64 * partitions),
        "special functions": us(lanes("sfu"), SPECIAL_FUNCTIONS_PER_CYCLE * partitions),
        "issue": us(issued, PARTITIONS * partitions),
        "shared": us(profile.total["wavefronts"], WAVEFRONTS_PER_CYCLE),
    }
    by = max((name for name in parts if cold or name != "dram"), key=parts.get)
    return Bound(parts[by], by, parts, profile.total["sector_bytes"] / gpu.dram / 1e3, resident, limited_by)


def step_us(profiles, gpu: GPU) -> float:
    """The bound of all launches of a step, one after the other."""
    return sum(bound(profile, gpu).us + LAUNCH_US for profile in profiles)
