"""How far float32 takes PKT from float64, where student and teacher differ by 1 %: pkt_digits.py.

Relative errors of the value over ten draws of normal features (three from n = 2048 on), the most and the median: of
the CPU backend, of the reference formula, and of the definition as it stands.
"""

import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.test_pair_losses import plain_pkt
from itrd_kernels import pkt_loss

SHAPES = ((256, 64), (512, 64), (2048, 64), (256, 512), (1024, 512), (4096, 256))
DRAWS = 10
CONTENDERS = {
    "fused": lambda s, t: pkt_loss(s, t, backend="cpu"),
    "reference": lambda s, t: pkt_loss(s, t, backend="reference"),
    "definition": plain_pkt,
}


def features(n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(n, d, generator=generator)
    return teacher + 0.01 * torch.randn(n, d, generator=generator), teacher


def main() -> None:
    for n, d in SHAPES:
        errors: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for seed in range(DRAWS if n < 2000 else 3):
            student, teacher = features(n, d, seed)
            exact = pkt_loss(student.double(), teacher.double(), backend="cpu").item()
            for name, loss in CONTENDERS.items():
                errors[name].append(abs(loss(student, teacher).item() / exact - 1))
        print(f"{n} × {d}: " + ", ".join(f"{k} {max(v):.1e} ({statistics.median(v):.1e})" for k, v in errors.items()))


if __name__ == "__main__":
    main()
