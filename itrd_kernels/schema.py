"""What every backend's operators look like from outside: schemas, the rows of `moments`, fake kernels.

Every backend owns a namespace (`itrd_cpu`, `itrd_triton`, `itrd_cuda`) with the same three operators. C++ has the same
schemas in csrc/operators.h and the same rows in csrc/moments.h; tests compare them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FORWARD = (
    "forward(Tensor z_e, Tensor z_t, Tensor? z_s, float alpha, float beta_corr, float beta_mi, bool log, "
    "bool want_e, bool want_t, bool want_s, bool tf32) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
BACKWARD = (
    "backward(Tensor? g_total, Tensor? g_correlation, Tensor? g_mutual_information, "
    "Tensor z_e, Tensor z_t, Tensor? z_s, Tensor moments, Tensor dgram_s, Tensor dgram_t, "
    "float beta_corr, float beta_mi, bool want_e, bool want_t, bool want_s) -> (Tensor, Tensor, Tensor)"
)
GRAM = (
    "gram(Tensor z_s, Tensor z_t, Tensor? other_s, Tensor? other_t, int offset, Tensor? keep, Tensor? other_keep, "
    "str loss, float[] parameters, Tensor? coefficients, Tensor? statistics, Tensor? other_statistics, "
    "bool want_s, bool want_t, bool tf32) -> (Tensor, Tensor, Tensor, Tensor)"
)

# Rows of `moments` (8, d_t): μ_s and its rounding error, 1/σ_s (0 in a dead column), the same of z_t, and with the n
# samples of the batch a = ∂L_corr/∂v / n and b = v ∂L_corr/∂v / (n−1): ∂L_corr/∂s_ij = (a t̂_ij − b ŝ_ij)/σ_s.
MOMENT_ROWS = ("mean_s", "mean_low_s", "rstd_s", "mean_t", "mean_low_t", "rstd_t", "a", "b")


def namespace(backend: str) -> str:
    """Where the operators of a backend live: torch.ops.<namespace>."""
    return f"itrd_{backend}"


def gram_student(z_e: Tensor, z_s: Tensor | None, want_e: bool, want_s: bool) -> tuple[Tensor, bool]:
    """The student's features that the Gram term reads, and whether their gradient is wanted: z_s, or z_e without it."""
    return (z_e, want_e) if z_s is None else (z_s, want_s)


def fake_forward(
    z_e, z_t, z_s, alpha, beta_corr, beta_mi, log, want_e, want_t, want_s, tf32
):  # fmt: skip
    """Shapes and dtypes of what `forward` returns; see dispatch.forward."""
    wide = torch.float64 if z_t.dtype == torch.float64 else torch.float32
    new = lambda *shape: z_t.new_empty(shape, dtype=wide)  # noqa: E731
    student, want_student = gram_student(z_e, z_s, want_e, want_s)
    return (
        new(),
        new(),
        new(),
        new(len(MOMENT_ROWS), z_t.shape[1]) if beta_corr and (want_e or want_t) else new(0),
        new(*student.shape) if beta_mi and want_student else new(0),
        new(*z_t.shape) if beta_mi and want_t else new(0),
    )


def fake_backward(
    g_total, g_correlation, g_mutual_information, z_e, z_t, z_s, moments, dgram_s, dgram_t,
    beta_corr, beta_mi, want_e, want_t, want_s,
):  # fmt: skip
    """Shapes and dtypes of what `backward` returns; see dispatch.backward."""
    like = lambda z, want: z_t.new_empty(z.shape if want else 0)  # noqa: E731
    return like(z_e, want_e), like(z_t, want_t), like(z_s, want_s) if z_s is not None else z_t.new_empty(0)


def fake_gram(
    z_s, z_t, other_s, other_t, offset, keep, other_keep, loss, parameters, coefficients, statistics, other_statistics,
    want_s, want_t, tf32,
):  # fmt: skip
    """Shapes and dtypes of what `gram` returns; see dispatch.gram."""
    wide = torch.float64 if z_t.dtype == torch.float64 else torch.float32
    new = lambda *shape: z_t.new_empty(shape, dtype=wide)  # noqa: E731
    return (
        z_t.new_empty(4, dtype=torch.float64),
        new(*z_s.shape) if want_s else new(0),
        new(*z_t.shape) if want_t else new(0),
        new(2, z_t.shape[0]) if statistics is not None and (want_s or want_t) else new(0),
    )


class PairTraits(NamedTuple):
    """What all backends know of a loss of `gram`; csrc/losses/list.h has the same.

    Attributes:
        parameters: numbers that it takes.
        one_sided: ℓ_ij + ℓ_ji of two rows that have statistics of their own, which must be given; it has row sums.
    """

    parameters: int
    one_sided: bool


def check_gram(
    loss: str,
    traits: PairTraits | None,
    z_s: Tensor,
    z_t: Tensor,
    other_s: Tensor | None,
    other_t: Tensor | None,
    offset: int,
    keep: Tensor | None,
    other_keep: Tensor | None,
    parameters: Sequence[float],
    coefficients: Tensor | None,
    statistics: Tensor | None,
    other_statistics: Tensor | None,
) -> None:
    """Raise RuntimeError for arguments of `gram` that do not fit; traits None: there is no such loss."""
    if traits is None:
        raise RuntimeError(f"gram: unknown loss {loss!r}")
    if len(parameters) != traits.parameters:
        raise RuntimeError(f"gram: {loss!r} takes {traits.parameters} parameters, not {len(parameters)}")
    if z_t.dtype not in _DTYPES:
        raise RuntimeError(f"gram: z_t must be float16, bfloat16, float32 or float64, not {z_t.dtype}")
    _check_rows("", z_s, z_t, keep, statistics, traits, z_t)
    if other_s is None or other_t is None:
        if not (other_s is other_t is other_keep is other_statistics):
            raise RuntimeError("gram: other_s, other_t and what goes with them must be given together")
    else:
        _check_rows("other_", other_s, other_t, other_keep, other_statistics, traits, z_t)
        if other_s.shape[1] != z_s.shape[1] or other_t.shape[1] != z_t.shape[1]:
            raise RuntimeError("gram: other_s and other_t must be as wide as z_s and z_t")
    n, m = len(z_t), len(z_t if other_t is None else other_t)
    if not 0 <= offset <= m - n:
        raise RuntimeError(f"gram: offset {offset} does not place {n} own rows among {m} column rows")
    _check("coefficients", coefficients, (2,), torch.promote_types(z_t.dtype, torch.float32), z_t)


_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _check_rows(
    prefix: str, s: Tensor, t: Tensor, keep: Tensor | None, statistics: Tensor | None, traits: PairTraits, like: Tensor
) -> None:
    """Rows of student and teacher, as many of each, of the dtype and device of `like`, and what is said of them."""
    for name, z in ((f"{prefix or 'z_'}s", s), (f"{prefix or 'z_'}t", t)):
        if z.dim() != 2 or z.shape[1] == 0:
            raise RuntimeError(f"gram: {name} must have two dimensions, and features")
        _check(name, z, (len(t), z.shape[1]), like.dtype, like)
    _check(f"{prefix}keep", keep, (len(t),), torch.bool, like)
    if (statistics is not None) != traits.one_sided:
        raise RuntimeError(f"gram: this loss {'needs' if traits.one_sided else 'takes no'} {prefix}statistics")
    _check(f"{prefix}statistics", statistics, (2, len(t)), torch.promote_types(like.dtype, torch.float32), like)


def _check(name: str, given: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, like: Tensor) -> None:
    if given is not None and (given.shape != shape or given.dtype != dtype or given.device != like.device):
        raise RuntimeError(
            f"gram: {name} must be {dtype} of shape {shape} on {like.device}, not {given.dtype} of shape "
            f"{tuple(given.shape)} on {given.device}"
        )
