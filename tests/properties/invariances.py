"""Changes of the inputs that a loss does not feel, exact in every type for small whole numbers.

Each takes the inputs and gives the changed ones, and for each a function from the gradient before to the one after.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Change = tuple[Tensor, Callable[[Tensor], Tensor]]


def permuted_samples(tensors: list[Tensor], generator: torch.Generator) -> list[Change]:
    order = torch.randperm(len(tensors[0]), generator=generator)
    return [(z[order], lambda g: g[order]) for z in tensors]


def scaled_columns(tensors: list[Tensor], generator: torch.Generator) -> list[Change]:
    return [_scaled(z, (1, z.shape[1]), generator) for z in tensors]


def scaled_rows(tensors: list[Tensor], generator: torch.Generator) -> list[Change]:
    return [_scaled(z, (len(z), 1), generator) for z in tensors]


def _scaled(z: Tensor, shape: tuple[int, int], generator: torch.Generator) -> Change:
    """By powers of two; the gradient grows where the features shrink."""
    most = 10 if z.dtype == torch.float16 else 90
    factor = 2.0 ** torch.randint(-most, most + 1, shape, generator=generator).double()
    return (z.double() * factor).to(z.dtype), lambda g: g / factor


def shifted_columns(tensors: list[Tensor], generator: torch.Generator) -> list[Change]:
    return [(z + torch.randint(-100, 101, (1, z.shape[1]), generator=generator), lambda g: g) for z in tensors]


def rotated_rows(tensors: list[Tensor], generator: torch.Generator) -> list[Change]:
    """By M = |u|² − 2uuᵀ, a reflection times |u|², with whole numbers as entries."""

    def rotated(z: Tensor) -> Change:
        u = torch.zeros(z.shape[1], dtype=torch.float64)
        u[torch.randperm(len(u), generator=generator)[:3]] = 1.0
        m = u.dot(u) * torch.eye(len(u), dtype=u.dtype) - 2 * u.outer(u)
        return (z.double() @ m).to(z.dtype), lambda g: g @ m / u.dot(u) ** 2

    return [rotated(z) for z in tensors]


INVARIANCES: dict[str, Callable[[list[Tensor], torch.Generator], list[Change]]] = {
    "permuted samples": permuted_samples,
    "scaled columns": scaled_columns,
    "scaled rows": scaled_rows,
    "shifted columns": shifted_columns,
    "rotated rows": rotated_rows,
}
