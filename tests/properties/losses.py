"""The losses whose properties are tested, each by what it declares: a later one joins by its line in LOSSES."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import naive
import numpy as np
from hypothesis import strategies as st
from pair_sizes import float64_in, pkt_sizes, polynomial_sizes
from torch import Tensor

from itrd_kernels.functional import correlation_loss, itrd_loss, mutual_information_loss, pkt_loss

Settings = dict[str, Any]


@dataclass(frozen=True)
class Loss:
    """A loss of a student's and a teacher's features, and perhaps of the student's raw ones.

    Args:
        call: the loss of those tensors; it takes `backend` and the settings too.
        formula: its definition for NumPy arrays of any precision, degenerate inputs included.
        sizes: what roundings of the type that computes are counted in: of the loss, the change that roundings of its
            parts make, and of each gradient, entry by entry, its terms taken absolutely.
        settings: strategies of its settings.
        invariances: the changes of invariances.py that the loss does not feel.
        slices: the dimension along which each gradient is judged by itself, since the loss does not feel the scale of
            what lies there; None takes all of a gradient together.
        same_width: whether student and teacher must be of one width.
        raw: whether it takes the student's raw features too.
    """

    call: Callable[..., Tensor]
    formula: Callable[..., float]
    sizes: Callable[..., tuple[float, list[np.ndarray]]]
    settings: dict[str, st.SearchStrategy]
    invariances: tuple[str, ...]
    slices: int | None = None
    same_width: Callable[[Settings], bool] = lambda settings: True
    raw: bool = False


def correlation(s, t, alpha):
    """Eq. 6; shifting by the first row, which no other column feels, makes a dead column zero exactly."""
    e = naive.distances(s - s[0], t - t[0])
    return 2 * alpha * np.log2(e.max()) + np.log2(((e / e.max()) ** (2 * alpha)).sum())


def correlation_sizes(s, t, alpha, precision):
    """As in naive.py, with what a weight ∂L/∂v_j = 2α/ln 2 · e_j^(2α−1) / Σ_k e_k^(2α) adds where α is large.

    Each e = 1 − v is known to a rounding of 1, by which the weight moves by |2α−1|/e_j and by the loss's own size. A
    weight near the end of the range has few digits, since 1/n and the upstream gradient come to it before 1/σ does.
    """
    # The truth rounds the means, to float64.
    off_s, off_t = (np.abs(z.mean(0)) * float64_in(precision) for z in (s, t))
    s, t = s - s[0], t - t[0]
    e, value = naive.distances(s, t), naive.correlation_size(s, t, alpha)
    weights = naive.correlation_weights(s, t, alpha) * (1 + abs(2 * alpha - 1) / e + value)
    weights += 2 * alpha / np.log(2) / e * np.finfo(precision).tiny / np.finfo(precision).eps
    return value, [weights * naive.correlation_terms(*of) for of in ((s, t, off_s, off_t), (t, s, off_t, off_s))]


def potentials(s, t):
    """Both of Eq. 9, of the rows that are not zero; without any of them a potential is 0."""
    alive_s, alive_t = (s != 0).any(1), (t != 0).any(1)
    return [
        naive.potential(_tamed(s)[alive], other[alive]) if alive.any() else s.dtype.type(0)
        for other, alive in ((np.ones_like(s), alive_s), (_tamed(t), alive_s & alive_t))
    ]


def gram(s, t, log):
    """Eq. 9; the logarithm of a potential that is 0 counts as 0."""
    of_s, of_st = (np.log2(p) if log and p else p for p in potentials(s, t))
    return of_s - of_st


def gram_sizes(s, t, log, precision):
    """Each cosine g and h is known to a rounding: P_s = Σ g²/m² moves by 2 P_s and P_st = Σ g²h²/m² by 4 P_st."""
    p = np.array(potentials(s, t))
    # log2 P moves by 1/ln 2 of that over P, and is rounded itself.
    value = np.sum([2, 4] * (p != 0)) / np.log(2) + np.abs(np.log2(p[p != 0])).sum() if log else np.dot([2, 4], p)
    gradients = []
    for of_teacher, z in ((False, s), (True, t)):
        terms, whole = (
            naive.gram_gradient_terms(_tamed(s), _tamed(t), of_teacher, log, kind) for kind in (False, True)
        )
        # The truth forms the diagonal too.
        gradients.append((terms + float64_in(precision) * whole) / _largest(z))
    return value, gradients


def _largest(z):
    largest = np.abs(z).max(1, keepdims=True)
    return np.where(largest, largest, 1)


def _tamed(z):
    """Rows of order one, whose squares stay in range."""
    return z / _largest(z)


def polynomial(s, t, kernel, log):
    """The same with (cosine + c)^p: of rows that are not zero, as naive.py has it."""
    (c, p), alive_s, alive_t = kernel, (s != 0).any(1), (t != 0).any(1)
    similar = [2 * naive.similarities(_tamed(z)) - 1 for z in (s, t)]
    g_s, g_t = ((x + c) ** p * np.outer(a, a) for x, a in zip(similar, (alive_s, alive_t), strict=True))
    of_s, of_st = (
        (g**2).sum() / ((1 + c) ** power * max(alive.sum(), 1)) ** 2
        for g, alive, power in ((g_s, alive_s, p), (g_s * g_t, alive_s & alive_t, 2 * p))
    )
    of_s, of_st = (np.log2(x) if log and x else x for x in (of_s, of_st))
    return of_s - of_st


def pkt(s, t, eps):
    return naive.pkt(_tamed(s), _tamed(t), eps)


def itrd_total(*inputs, betas, **settings):
    beta_corr, beta_mi = betas
    return itrd_loss(*inputs, beta_corr=beta_corr, beta_mi=beta_mi, **settings).total


def itrd(e, t, s=None, *, alpha, betas, log):
    """Eq. 10 without the cross-entropy."""
    terms = (lambda: correlation(e, t, alpha)), (lambda: gram(e if s is None else s, t, log))
    return sum(beta * term() for beta, term in zip(betas, terms, strict=True) if beta)


def itrd_sizes(e, t, s=None, *, alpha, betas, log, precision):
    """The sums of its terms'."""
    value, sizes = 0.0, [np.zeros(z.shape) for z in (e, t, s) if z is not None]
    terms = (
        ((0, 1), lambda: correlation_sizes(e, t, alpha, precision)),
        ((0 if s is None else 2, 1), lambda: gram_sizes(e if s is None else s, t, log, precision)),
    )
    for beta, (places, term) in zip(betas, terms, strict=True):
        if beta:
            of_value, of_gradients = term()
            value += beta * of_value
            for place, size in zip(places, of_gradients, strict=True):
                sizes[place] += beta * size
    return value, sizes


ALPHA = st.sampled_from([1.5, 1.01, 0.3, 10.0, 300.0]) | st.floats(0.05, 300.0)
BETAS = st.sampled_from([(2.0, 1.0), (0.0, 1.0), (1.0, 0.0), (1e-3, 50.0), (30.0, 0.1)])
KERNELS = st.sampled_from([(0.0, 1), (1.0, 2), (0.5, 3), (3.0, 3), (0.0, 2)])

LOSSES = {
    "correlation": Loss(
        correlation_loss,
        correlation,
        correlation_sizes,
        {"alpha": ALPHA},
        ("permuted samples", "scaled columns", "shifted columns"),
        slices=0,
    ),
    "mutual_information": Loss(
        mutual_information_loss,
        gram,
        gram_sizes,
        {"log": st.booleans()},
        ("permuted samples", "scaled rows", "rotated rows"),
        slices=1,
        same_width=lambda settings: False,
    ),
    "polynomial": Loss(
        mutual_information_loss,
        polynomial,
        polynomial_sizes,
        {"kernel": KERNELS, "log": st.booleans()},
        ("permuted samples", "scaled rows", "rotated rows"),
        slices=1,
        same_width=lambda settings: False,
    ),
    "pkt": Loss(
        pkt_loss,
        pkt,
        pkt_sizes,
        {"eps": st.sampled_from([1e-7, 1e-5, 1e-2])},
        ("permuted samples", "scaled rows", "rotated rows"),
        slices=1,
        same_width=lambda settings: False,
    ),
    "itrd": Loss(
        itrd_total,
        itrd,
        itrd_sizes,
        {"alpha": ALPHA, "betas": BETAS, "log": st.booleans()},
        ("permuted samples",),
        same_width=lambda settings: settings["betas"][0] > 0,
        raw=True,
    ),
}
