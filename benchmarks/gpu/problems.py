"""The problems that parity is asked on: kinds × shapes × variants, and hard inputs."""

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.contenders import KINDS

SHAPES = (
    (2, 1), (64, 128), (65, 33), (257, 513), (512, 512), (1000, 200), (1024, 2048), (2050, 96), (4096, 512),
    (16384, 256),
)  # fmt: skip
HARD_SHAPES = ((65, 33), (1000, 200))


class Variant(NamedTuple):
    """`want` are the gradients of z_e, z_t, z_s; with `raw` there is a z_s of another width beside z_e."""

    want: tuple[bool, bool, bool] = (True, True, False)
    log: bool = False
    alpha: float = 1.5
    betas: tuple[float, float] = (2.0, 1.0)
    raw: bool = False
    strided: bool = False
    hard: str = ""


VARIANTS = {
    "student": Variant((True, False, False)),
    "both gradients": Variant(),
    "raw z_s beside z_e": Variant((True, True, True), raw=True),
    "logarithms": Variant(log=True),
    "correlation alone": Variant(betas=(1.0, 0.0)),
    "mutual information alone": Variant(betas=(0.0, 1.0)),
    "strided": Variant(strided=True),
    "α = 1.01": Variant((True, False, False), alpha=1.01),
    "α = 10": Variant(alpha=10.0),
}
HARD = {
    name: Variant((True, True, True), raw=True, hard=name)
    for name in ("zero rows", "dead columns", "rows of 1e25", "rows of 1e-25", "NaN", "inf")
}


class Problem(NamedTuple):
    kind: str
    n: int
    d: int
    variant: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.n}×{self.d} {self.variant}"

    @property
    def what(self) -> Variant:
        return (VARIANTS | HARD)[self.variant]

    def inputs(self, device: str, seed: int) -> list[Tensor | None]:
        """z_e (n, d), z_t (n, d) and z_s (n, d // 2 + 1) or None: columns of their own means and scales, correlated."""
        generator = torch.Generator(device).manual_seed(seed)
        normal = lambda *shape: torch.randn(*shape, generator=generator, device=device)  # noqa: E731
        common, found = normal(self.n, self.d), []
        for width in (self.d, self.d, self.d // 2 + 1 if self.what.raw else 0):
            if not width:
                found.append(None)
                continue
            z = 0.7 * common[:, :width] + normal(self.n, width)
            z = z * (0.5 + normal(width).abs()) + normal(width)
            found.append(_laid_out(_hardened(z, self).to(KINDS[self.kind][0]), self.what.strided, len(found)))
        return found


def _hardened(z: Tensor, problem: Problem) -> Tensor:
    hard, n, d = problem.what.hard, *z.shape
    if hard == "zero rows":
        z[:: max(1, n // 5)] = 0
    elif hard == "dead columns":
        z[:, :: max(1, d // 5)] = 0.1
    elif hard.startswith("rows of"):
        # float16 ends at 6.5e4 and, below its normal numbers, at 6e-8.
        big = hard.endswith("1e25")
        size = (1e3 if big else 1e-4) if problem.kind == "float16" else float(hard.split()[-1])
        z[:: max(1, n // 5)] *= size
    elif hard:
        z[n // 2, d // 2] = float(hard)
    return z


def _laid_out(z: Tensor, strided: bool, index: int) -> Tensor:
    """As rows of a wider array, or column by column; NaN lies where nothing must be read."""
    if not strided:
        return z
    if index % 2:
        return z.T.contiguous().T
    wide = torch.full((z.shape[0], z.shape[1] + 7), float("nan"), dtype=z.dtype, device=z.device)
    wide[:, 3 : 3 + z.shape[1]] = z
    return wide[:, 3 : 3 + z.shape[1]]


def all_problems() -> list[Problem]:
    """By value: what everybody trains with first, then the other variants, then hard inputs."""
    found = [Problem(kind, n, d, variant) for variant in VARIANTS for kind in KINDS for n, d in SHAPES]
    return found + [Problem(kind, n, d, variant) for variant in HARD for kind in KINDS for n, d in HARD_SHAPES]


def rehearsed_problems() -> list[Problem]:
    found = [Problem(kind, 9, 7, "student") for kind in KINDS]
    found += [Problem("float32", 6, 5, variant) for variant in ("raw z_s beside z_e", "logarithms", "strided")]
    return found + [Problem("float32", 6, 5, variant) for variant in ("zero rows", "NaN")]
