"""Every shipped configuration and dtype compiled for GPUs that are not there: no spills, shared memory within limits,
the matrix units where they are meant, no float atomics.

`python tests/triton/test_compiled.py` writes the table of resources, here and in docs/evidence.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("triton", reason="Triton is not installed here: pip install 'itrd-kernels[triton]'")

import torch
import triton
from compiled import Launch, build, instead_of_launching, resources, specialised, step, sweep

from itrd_kernels.backends.triton import configurations
from itrd_kernels.backends.triton.losses import LOSSES
from itrd_kernels.backends.triton.records import Side

TABLE = Path(__file__).parent / "resources.json"
PAGE = Path(__file__).parents[2] / "docs/evidence/triton-resources.md"

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


class Architecture(NamedTuple):
    """Shared memory of a program and of a processor in KiB, registers and threads of a processor, its matrix units."""

    shared: int
    shared_of_processor: int
    registers: int
    threads: int
    half: str
    tf32: str = ""
    float64: str = ""


# For float64 Triton before 3.8 leaves the matrix units of sm_100 alone.
FLOAT64_OF_SM_100 = "mma.sync" if configurations.VERSION >= (3, 8) else ""

ARCHITECTURES = {
    "sm_80": Architecture(163, 164, 65536, 2048, "mma.sync", "mma.sync", "mma.sync"),
    "sm_86": Architecture(99, 100, 65536, 1536, "mma.sync", "mma.sync"),
    "sm_90": Architecture(227, 228, 65536, 2048, "mma.sync|wgmma", "mma.sync|wgmma", "mma.sync"),
    "sm_100": Architecture(227, 228, 65536, 2048, "mma.sync|tcgen05", "mma.sync|tcgen05", FLOAT64_OF_SM_100),
    "sm_120": Architecture(99, 100, 65536, 1536, "mma.sync", "mma.sync"),
    "gfx942": Architecture(64, 64, 131072, 2048, "v_mfma", "v_mfma", "v_mfma"),
    "gfx1100": Architecture(64, 128, 196608, 2048, "v_wmma"),
}

# One of each kind of matrix unit in `make test`; each costs half a minute where nothing is cached.
QUICK = ("sm_80", "sm_90", "gfx942")

KINDS = {
    "float16": (F16, False),
    "bfloat16": (BF16, False),
    "tf32": (F32, True),
    "float32": (F32, False),
    "float64": (F64, False),
}

MULTIPLYING = ("gram_tiles", "gram_gradients", "pair_tiles", "pair_gradients")

# One n of each bucket of the tables.
SIZES = {"small": 256, "large": 1024}


def launches(arch: str, kind: str, n: int, **options) -> list[Launch]:
    dtype, tf32 = KINDS[kind]
    found: list[Launch] = []
    with instead_of_launching(found.append, arch):
        step(n, 512, 256, dtype, tf32=tf32, **options)
    return found


# Of `gram`, the variants that need most: a loss that is asked in both directions, and a rectangle with masks.
SWEEPS = {
    "pkt, triangle": ({"loss": "pkt"}, ("small",)),
    "polynomial, rectangle": ({"loss": "polynomial", "others": 1100, "keep": True}, ("large",)),
}


def swept(arch: str, kind: str, n: int, **options) -> list[Launch]:
    dtype, tf32 = KINDS[kind]
    found: list[Launch] = []
    with instead_of_launching(found.append, arch):
        sweep(n, 512, 256, dtype, tf32=tf32, **options)
    return found


def distinct(found: list[Launch]) -> list[Launch]:
    """Those that compile to different kernels."""
    return list({(item.name, str(specialised(item)[:3]), str(item.constants)): item for item in found}.values())


def check(item: Launch, arch: str, kind: str) -> dict:
    """Compile one launch, check it, and return its line of the table."""
    limits = ARCHITECTURES[arch]
    compiled = build(item, arch)
    used = resources(compiled)
    assert used.spilled == 0, (arch, kind, item.name, item.constants, used)
    assert used.shared <= limits.shared * 1024
    text = compiled.asm.get("ptx") or compiled.asm["amdgcn"]
    assert not re.search(r"(atom|red)\.\S*\.f(16|32|64)|atomic_(pk_)?add_(f|bf)", text)
    if item.name in MULTIPLYING:
        expected = {"tf32": limits.tf32, "float64": limits.float64}.get(kind, limits.half)
        # The correlation alone multiplies no matrices.
        if kind != "float32" and item.constants.get("GRAM", True):
            assert bool(expected) == bool(used.matrix)
            assert all(re.match(expected, name) for name in used.matrix)
    threads = item.constants.get("num_warps", 4) * compiled.metadata.target.warp_size
    # Registers are given out eight at a time, and a program reserves 1 KiB of shared memory.
    of_registers = limits.registers // (threads * -(-max(used.registers, 8) // 8) * 8)
    assert of_registers > 0, "maxnreg promises more registers than there are"
    of_shared = limits.shared_of_processor * 1024 // (used.shared + 1024)
    programs = max(1, min(limits.threads // threads, of_registers, of_shared))
    return {
        "registers": used.registers,
        "shared": used.shared,
        "occupancy": round(programs * threads / limits.threads, 2),
        "matrix": re.sub(r"[._].*", "", re.sub(r"^v_", "", min(used.matrix))) if used.matrix else "",
    }


def entries(arch: str) -> Iterator[tuple[str, str, Launch]]:
    """(key, kind, launch) of each line of the table."""
    for kind in KINDS:
        for size, n in SIZES.items():
            for item in launches(arch, kind, n):
                yield f"{item.name} {kind} {size}", kind, item
        # Of float16 features these losses make float32.
        for name, (options, sizes) in SWEEPS.items() if kind != "float16" else ():
            for size in sizes:
                for item in swept(arch, kind, SIZES[size], **options):
                    yield f"{item.name} ({name}) {kind} {size}", kind, item


def table(arch: str) -> dict[str, dict]:
    return {key: check(item, arch, kind) for key, kind, item in entries(arch)}


@pytest.mark.parametrize(
    "arch", [arch if arch in QUICK else pytest.param(arch, marks=pytest.mark.slow) for arch in ARCHITECTURES]
)
def test_shipped_configurations(arch):
    """All gradients wanted, the largest variant of every kernel; and nothing grows beyond the table.

    Another Triton than the table's need not choose the same registers and instructions, but passes every other check.
    """
    baseline = json.loads(TABLE.read_text())
    known, found = baseline["kernels"][arch], table(arch)
    assert found.keys() == known.keys(), "run python tests/triton/test_compiled.py"
    for name, line in found.items() if triton.__version__ == baseline["triton"] else ():
        assert line["shared"] <= known[name]["shared"], name
        assert line["registers"] <= 1.1 * known[name]["registers"] + 8, name
        assert line["matrix"] == known[name]["matrix"], name


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch not in QUICK])
def test_float16_of_large_batches(arch):
    """What Triton 3.6 and 3.7 could not compile for sm_100, where the whole table is slow."""
    for item in launches(arch, "float16", SIZES["large"]):
        if item.name == "gram_tiles":
            check(item, arch, "float16")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_other_variants(arch, kind):
    """Fewer gradients, one term alone, the log form, panels, widths that are no multiple of anything."""
    for options in (
        {"want": (True, False, True)},
        {"want": (False, False, False)},
        {"log": True},
        {"beta_corr": 0.0},
        {"beta_mi": 0.0},
    ):
        for item in launches(arch, kind, 256, **options):
            check(item, arch, kind)
    found: list[Launch] = []
    dtype, tf32 = KINDS[kind]
    with instead_of_launching(found.append, arch):
        step(1000, 37, 50, dtype, tf32=tf32)
        step(40000, 64, 64, dtype, tf32=tf32, want=(True, True, True))
    for item in distinct(found):
        check(item, arch, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_other_variants_of_sweeps(arch, kind):
    """Every loss in both schedules, with and without masks, fewer gradients, panels, ragged widths."""
    found: list[Launch] = []
    dtype, tf32 = KINDS[kind]
    with instead_of_launching(found.append, arch):
        for loss in (name for name, loss in LOSSES.items() if loss.fits_float16 or kind != "float16"):
            sweep(256, 512, 256, dtype, loss, tf32=tf32, keep=True)
            sweep(256, 512, 256, dtype, loss, others=300, tf32=tf32, want=(True, False))
            sweep(1000, 37, 50, dtype, loss, others=1100, tf32=tf32)
            sweep(40000, 64, 64, dtype, loss, tf32=tf32)
    for item in distinct(found):
        check(item, arch, kind)


def intensity(item: Launch) -> float | None:
    """Floating-point operations per byte that a program of the matrix kernels reads."""
    constants = item.constants
    if "BLOCK" not in constants:
        return None
    height, width = constants["BLOCK"], constants.get("COLUMNS" if "gradients" in item.name else "BLOCK")
    size = next(argument.z for argument in item.arguments if isinstance(argument, Side)).element_size()
    return 2 * height * width / ((height + width) * size)


def write_json() -> None:
    baseline = {"kernels": {arch: table(arch) for arch in ARCHITECTURES}, "triton": triton.__version__}
    TABLE.write_text(json.dumps(baseline, indent=1, sort_keys=True) + "\n")


def write_markdown() -> None:
    """Registers, KiB of shared memory and occupancy per architecture, into docs/evidence."""
    known = json.loads(TABLE.read_text())["kernels"]
    lines = [
        "| kernel, dtype, batch | operations per byte | " + " | ".join(ARCHITECTURES) + " |",
        "|" + "---|" * (2 + len(known)),
    ]
    for key, _, item in entries("sm_80"):
        ratio = intensity(item)
        if ratio is None and "large" in key:
            continue
        found = (known[arch][key] for arch in ARCHITECTURES)
        cells = (
            f"{line['registers']} · {line['shared'] // 1024} · {line['occupancy']:.0%} {line['matrix']}".strip()
            for line in found
        )
        lines.append(f"| {key} | {'' if ratio is None else f'{ratio:.0f}'} | " + " | ".join(cells) + " |")
    begin, end = "<!-- resources: begin -->", "<!-- resources: end -->"
    text = PAGE.read_text()
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    PAGE.write_text("\n".join([before, *lines, after]))


if __name__ == "__main__":
    write_json()
    write_markdown()
