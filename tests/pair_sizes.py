"""What roundings of the pair losses are counted in: see Loss.sizes in losses.py.

Each cosine is known to a rounding of 1, or of the sum of its terms taken absolutely. By so much times its slope a loss
moves, and each weight W; a gradient is 4 W ẑ, projected, with every product taken absolutely.
"""

import naive
import numpy as np


def unit_rows(z):
    """ẑ, 0 for a zero row, and 1/‖z‖, which is 0 there."""
    largest = np.abs(z).max(1, keepdims=True)
    scaled = z / np.where(largest, largest, 1)
    norm = np.linalg.norm(scaled, axis=1, keepdims=True)
    alive = norm != 0
    return scaled / np.where(alive, norm, 1), np.where(alive, 1 / np.where(alive, norm, 1), 0) / np.where(
        largest, largest, 1
    )


def projected(w, z):
    """4 (W|ẑ| + (W|ẑ|·|ẑ|)|ẑ|)/‖z‖."""
    unit, per_norm = unit_rows(z)
    g = 4 * w @ np.abs(unit)
    return (g + (g * np.abs(unit)).sum(1, keepdims=True) * np.abs(unit)) * per_norm


def float64_in(precision):
    """A rounding of float64 in roundings of `precision`: the truth's own error."""
    return np.finfo(np.float64).eps / np.finfo(precision).eps


def polynomial_sizes(s, t, kernel, log, precision):
    c, p = kernel
    units = [unit_rows(z)[0] for z in (s, t)]
    alive = [(z != 0).any(1) for z in (s, t)]
    both = [np.outer(a, a) for a in alive]
    # |ẑ||ẑ|ᵀ bounds a cosine and the size of what it is rounded by.
    x, y = (np.abs(z) @ np.abs(z).T + c for z in units)
    g, h = both[0] * x**p, both[1] * y**p
    slope_g, slope_h = both[0] * p * x ** (p - 1), both[1] * p * y ** (p - 1)
    bend_g, bend_h = (k * p * (p - 1) * z ** max(p - 2, 0) for k, z in zip(both, (x, y), strict=True))
    one = (1 + c) ** p
    traces = max(alive[0].sum(), 1) * one, max((alive[0] & alive[1]).sum(), 1) * one**2
    exact = [k * (z @ z.T + c) ** p for k, z in zip(both, units, strict=True)]
    potentials = np.array([(exact[0] ** 2).sum() / traces[0] ** 2, ((exact[0] * exact[1]) ** 2).sum() / traces[1] ** 2])
    moves = np.array(
        [(2 * g * slope_g).sum() / traces[0] ** 2, 2 * (g * h * (slope_g * h + g * slope_h)).sum() / traces[1] ** 2]
    )
    # Powers and traces are rounded too.
    moves += 4 * potentials
    value = moves.sum()
    c_s, c_st = 1 / traces[0] ** 2, 1 / traces[1] ** 2
    if log:
        some = potentials != 0
        value = (moves[some] / potentials[some]).sum() / np.log(2) + np.abs(np.log2(potentials[some])).sum()
        c_s, c_st = (coefficient / z if z else 0.0 for coefficient, z in zip((c_s, c_st), potentials, strict=True))
    whole_s = (g * slope_g + slope_g**2 + g * bend_g) * (c_s + c_st * h**2) + 2 * g * slope_g * c_st * h * slope_h
    whole_t = c_st * (g**2 * (h * slope_h + slope_h**2 + h * bend_h) + 2 * g * slope_g * h * slope_h)
    # The diagonal is projected out, but the truth forms it.
    share = float64_in(precision)
    off = 1 - np.eye(len(s)) * (1 - share)
    return value, [projected(w * off, z) for w, z in ((whole_s, s), (whole_t, t))]


def pkt_sizes(s, t, eps, precision):
    k = len(s)
    similar = [naive.similarities(unit_rows(z)[0]) for z in (s, t)]
    # ρ = 2/Σ_j (1 + cosine), by which similarities become probabilities q and p.
    rho_s, rho_t = (1 / z.sum(1, keepdims=True) for z in similar)
    q, p = similar[0] * rho_s, similar[1] * rho_t
    u, x = eps / (q + eps) - (p - q) / (q + eps), np.log((p + eps) / (q + eps)) - eps / (p + eps)
    # What u and x move by with two roundings of both cosines, of a product and of norms, and with the row sums.
    by_g, by_h = rho_s / (q + eps), rho_t / (p + eps)
    mixed = rho_t / (q + eps)
    moves_u = (p + eps) / (q + eps) * by_g + mixed
    moves_x = by_g + 2 * by_h
    # The truth forms derivatives of order one that cancel in u and x.
    share = float64_in(precision)
    size_u, size_x = np.abs(u) + moves_u + 4 * share, np.abs(x) + moves_x + 4 * share
    value = np.mean(np.abs(u) * (rho_s / 2 + q) + np.abs(x) * (rho_t / 2 + p))
    # A rounding at which a term bends counts as well, where a probability is as small as a rounding.
    value += np.finfo(precision).eps * np.mean(size_u * rho_s + size_x * rho_t)
    gradients = []
    for z, rho, size, probability in ((s, rho_s, size_u, q), (t, rho_t, size_x, p)):
        one_sided = rho * size / (8 * k**2)
        # The row sums' part has rank one: κ_i + κ_j for each pair.
        kappa = rho * (size * probability).sum(1, keepdims=True) / (2 * k**2)
        pairs = (one_sided + one_sided.T) * (1 - np.eye(k) * (1 - share))
        gradients.append(projected(pairs + (kappa + kappa.T) / 4, z))
    return value, gradients
