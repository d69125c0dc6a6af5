"""The operator `gram` in plain PyTorch, with n × m arrays: what it means, and what every backend is tested against."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from itrd_kernels.formulas import mutual_information, pkt
from itrd_kernels.formulas.normalise import at_least_float32, normalise_rows
from itrd_kernels.formulas.pairs import Entries

ENTRIES: dict[str, Callable[..., Entries]] = {
    "mutual_information": mutual_information.mutual_information_entries,
    "polynomial": mutual_information.polynomial_entries,
    "pkt": pkt.pkt_entries,
}


def gram(
    z_s: Tensor,
    z_t: Tensor,
    other_s: Tensor | None,
    other_t: Tensor | None,
    offset: int,
    keep: Tensor | None,
    other_keep: Tensor | None,
    loss: str,
    parameters: Sequence[float],
    coefficients: Tensor | None,
    statistics: Tensor | None,
    other_statistics: Tensor | None,
    want_s: bool,
    want_t: bool,
    tf32: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As dispatch.gram describes it."""
    s, t = _kept(z_s, keep), _kept(z_t, keep)
    if other_s is None or other_t is None:
        columns_s, columns_t, other_keep, other_statistics = s, t, keep, statistics
    else:
        columns_s, columns_t = _kept(other_s, other_keep), _kept(other_t, other_keep)
    rows = _statistics(s, t, keep, statistics)
    columns = _statistics(columns_s, columns_t, other_keep, other_statistics)
    alive = _statistics(columns_s, columns_t, other_keep, None)
    counts = torch.stack([alive[0].sum(), (alive[0] * alive[1]).sum()])
    if coefficients is None:
        coefficients = (
            s.new_tensor(parameters) if loss == "pkt" else mutual_information.coefficients_of(counts, parameters)
        )
    diagonal = torch.arange(len(s), device=s.device)[:, None] + offset == torch.arange(len(columns_s), device=s.device)
    g, h = _cosines(s, columns_s, diagonal), _cosines(t, columns_t, diagonal)
    entries = ENTRIES[loss](g, h, rows, columns, coefficients, parameters)
    sums = torch.stack([entries.first.double().sum(), entries.second.double().sum(), *counts.double()])
    nothing = s.new_empty(0)
    return (
        sums,
        _gradient(s, columns_s, entries.w_s, diagonal) if want_s else nothing,
        _gradient(t, columns_t, entries.w_t, diagonal) if want_t else nothing,
        torch.stack([entries.row_s.sum(1), entries.row_t.sum(1)])
        if statistics is not None and (want_s or want_t) and entries.row_s is not None and entries.row_t is not None
        else nothing,
    )


def _kept(z: Tensor, keep: Tensor | None) -> Tensor:
    """Rows that do not count are zero, whatever they hold."""
    z = at_least_float32(z)
    return z if keep is None else z.where(keep[:, None], 0.0)


def _statistics(s: Tensor, t: Tensor, keep: Tensor | None, given: Tensor | None) -> Tensor:
    """(2, n): what is given, else 1 for a row that is not zero; 0 where a row does not count."""
    statistics = torch.stack([(s != 0).any(1), (t != 0).any(1)]).to(s.dtype) if given is None else given.to(s.dtype)
    return statistics if keep is None else statistics * keep


def _cosines(z: Tensor, other: Tensor, diagonal: Tensor) -> Tensor:
    """G, on whose diagonal there is exactly 1, or 0 for a zero row."""
    own = normalise_rows(z)
    return (own @ normalise_rows(other).T).where(~diagonal, (z != 0).any(1).to(z.dtype)[:, None])


def _gradient(z: Tensor, other: Tensor, w: Tensor, diagonal: Tensor) -> Tensor:
    """4 (g − (g·ẑ)ẑ)/‖z‖ of each row, g_i = Σ_j W_ij ẑ_j; W_ii ẑ_i is along ẑ_i, which the projection removes."""
    own = normalise_rows(z)
    g = w.where(~diagonal, 0.0) @ normalise_rows(other)
    g = g - (g * own).sum(1, keepdim=True) * own
    largest = z.abs().amax(1, keepdim=True)
    scale = largest.where(largest != 0, 1.0)
    norm = (z / scale).square().sum(1, keepdim=True).sqrt()
    return torch.where(norm == 0, 0.0, 4 * g / norm.where(norm != 0, 1.0) / scale)
