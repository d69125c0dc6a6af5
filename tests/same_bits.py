"""Compares the CPU library of an old build with the one here, bit for bit: for changes that must not change a result.

    python tests/same_bits.py OLD_PACKAGE_FOLDER [INSTRUCTION_SET …]

Before the change, copy the folder `itrd_kernels`, with its built libraries, into OLD_PACKAGE_FOLDER. Each build is
loaded in a process of its own, once for every instruction set that the processor has (or that is named), and runs the
same losses and gradients. Exit status 1, and the first differences, where any bit differs. With `make emulated-tiles`
done for both builds, ITRD_EMULATED_TILES=1 and the instruction set amx compare the products on emulated AMX tiles.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).parents[1]
SETS = ("amx", "avx512_bf16", "avx512", "avx2", "portable")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

# (n, d): ragged and aligned; for rows as they lie, packed rows and AMX; in one block of W, and in several.
SHAPES = (
    *((2, 1), (3, 5), (7, 16), (17, 31), (31, 48), (33, 64), (64, 128), (65, 208), (101, 144), (200, 512), (256, 272)),
    *((257, 65), (300, 40), (290, 130), (700, 67), (1060, 33), (1100, 96)),
)
KINDS = ("plain", "rows apart", "extreme rows", "extreme columns")


class Setting(NamedTuple):
    beta_corr: float
    beta_mi: float
    wanted: str = ""  # whose gradients: of the student's features e, the teacher's t, a projection's s
    log: bool = False
    projected: int = 0  # by how much wider than e the features s are that the mutual-information loss has of its own


SETTINGS = (
    *(Setting(1, 0, wanted) for wanted in ("", "et")),
    *(Setting(0, 1, "", log) for log in (False, True)),
    *(Setting(0, 1, "e"), Setting(0, 1, "t", True)),
    *(Setting(2, 1, "et", log) for log in (False, True)),
    *(Setting(2, 1, "ets", False, more) for more in (3, 16)),
)


def features(n: int, d: int, dtype: torch.dtype, kind: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    padding = 3 if kind == "rows apart" else 0
    z = torch.randn(n, d + padding, generator=generator, dtype=torch.float64) + torch.linspace(0, 2, d + padding)
    far = 2.0**6 if dtype == torch.float16 else 2.0**60
    if kind.startswith("extreme"):
        lines = z if kind == "extreme rows" else z.T
        lines[seed::7] *= far
        lines[5::7] /= far
        lines[4::9] = 0.0
    return z.to(dtype)[:, padding:]


def results() -> Iterator[tuple[str, torch.Tensor]]:
    """The name and the value of every result of the library that is loaded."""
    from itrd_kernels import itrd_loss

    for (n, d), dtype, kind in itertools.product(SHAPES, DTYPES, KINDS):
        if n > 300 and kind != "plain":
            continue
        for setting in SETTINGS:
            widths = {"e": d, "t": d} | ({"s": d + setting.projected} if setting.projected else {})
            z = {who: features(n, width, dtype, kind, i) for i, (who, width) in enumerate(widths.items())}
            for who in setting.wanted:
                z[who].requires_grad_()
            loss = itrd_loss(
                *z.values(), beta_corr=setting.beta_corr, beta_mi=setting.beta_mi, log=setting.log, backend="cpu"
            )
            name = f"{n}×{d} {str(dtype).removeprefix('torch.')} {kind} {tuple(setting)}"
            for term, value in loss._asdict().items():
                yield f"{name} {term}", value.detach()
            if setting.wanted:
                (96 * loss.total).backward()
            yield from ((f"{name} gradient of {who}", z[who].grad) for who in setting.wanted)


def write(package_folder: Path, isa: str, to: Path) -> str | None:
    """None once the results of a build are in the file `to`, else why it does not run."""
    environment = {**os.environ, "PYTHONPATH": str(package_folder), "PYTHONSAFEPATH": "1", "ITRD_CPU_ISA": isa}
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    done = subprocess.run([sys.executable, __file__, "--write", to], env=environment, stderr=subprocess.PIPE, text=True)
    return (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1] if done.returncode else None


def main(old: Path, sets: list[str]) -> int:
    compared, different = 0, []
    for isa in sets or SETS:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("old", "new")]
            reasons = [write(package, isa, to) for package, to in zip((old, ROOT), files, strict=True)]
            if any(reasons):
                print(f"{isa}: not compared: {next(filter(None, reasons))}")
                if sets or reasons.count(None):
                    different.append(f"{isa}: does not run")
                continue
            before, after = (torch.load(file) for file in files)
        assert before.keys() == after.keys()
        bits = {name: tuple(z[name].flatten().view(torch.uint8) for z in (before, after)) for name in before}
        different += [f"{isa} {name}" for name, pair in bits.items() if not torch.equal(*pair)]
        compared += len(before)
        print(f"{isa}: {len(before)} results compared")
    print(f"{compared} results compared, {len(different)} differ", *different[:20], sep="\n")
    return 1 if different or not compared else 0


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        torch.save(dict(results()), sys.argv[2])
    else:
        sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
