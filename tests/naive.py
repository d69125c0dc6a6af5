"""The paper's formulas written out in NumPy float64, as plainly as they stand, and the size of what cancels in them."""

import numpy as np


def correlation(s, t, alpha):
    """Eq. 6 with unbiased standard deviations; no guard for dead columns."""
    n = len(s)
    s_hat = (s - s.mean(0)) / s.std(0, ddof=1)
    t_hat = (t - t.mean(0)) / t.std(0, ddof=1)
    v = np.einsum("ij,ij->j", s_hat, t_hat) / n
    return np.log2(np.sum(np.abs(v - 1) ** (2 * alpha)))


def potential(s, t):
    """‖G_st‖_F², the Hadamard product of both Gram matrices of normalised rows, divided by its trace."""
    s = s / np.linalg.norm(s, axis=1, keepdims=True)
    t = t / np.linalg.norm(t, axis=1, keepdims=True)
    g_st = (s @ s.T) * (t @ t.T)
    return np.linalg.norm(g_st / np.trace(g_st)) ** 2


def gram(s, t, log=False):
    """Eq. 9; the student's own potential is the joint one with a teacher to whom all samples are alike."""
    potentials = potential(s, np.ones((len(s), 1))), potential(s, t)
    return np.log2(potentials[0]) - np.log2(potentials[1]) if log else potentials[0] - potentials[1]


def polynomial_gram(s, t, c, p, log=False):
    """Eq. 9 with (cosine + c)^p in place of each cosine, for rows of which none is zero (section 4.2)."""
    s, t = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (s, t))
    g_s, g_t = (s @ s.T + c) ** p, (t @ t.T + c) ** p
    potentials = [np.linalg.norm(g / np.trace(g)) ** 2 for g in (g_s, g_s * g_t)]
    return np.log2(potentials[0]) - np.log2(potentials[1]) if log else potentials[0] - potentials[1]


def pkt(s, t, eps):
    """Mean over all pairs of p log((p + ε)/(q + ε)), the rows of (1 + cosine)/2 divided by their sums."""
    q, p = (similarity / similarity.sum(1, keepdims=True) for similarity in map(similarities, (s, t)))
    return np.mean(p * np.log((p + eps) / (q + eps)))


def similarities(z):
    """(1 + cosine)/2 of every two rows; the cosine of a zero row is 0."""
    norm = np.linalg.norm(z, axis=1, keepdims=True)
    unit = z / np.where(norm, norm, 1)
    return np.maximum(1 + unit @ unit.T, 0) / 2


def gradient(function, z, step=1e-6):
    """Central differences of a scalar function of z."""
    result = np.empty_like(z)
    for index in np.ndindex(*z.shape):
        shifted = [z.copy(), z.copy()]
        shifted[0][index] += step
        shifted[1][index] -= step
        result[index] = (function(shifted[0]) - function(shifted[1])) / (2 * step)
    return result


def distances(s, t):
    """e_j = |v_j − 1|, 1 in dead columns."""
    with np.errstate(all="ignore"):
        covariance = ((s - s.mean(0)) * (t - t.mean(0))).sum(0) / len(s)
        return np.abs(np.nan_to_num(covariance / s.std(0, ddof=1) / t.std(0, ddof=1)) - 1)


def correlation_size(s, t, alpha):
    """What the loss moves by, in roundings, when each e_j does by one rounding of 1: 2α Σ_j (share of j) / e_j."""
    e = distances(s, t)
    share = (e / e.max()) ** (2 * alpha)
    return 2 * alpha * (share / e).sum() / share.sum()


def correlation_gradient_size(s, t, alpha):
    """Norm of ∂L/∂s with every term taken absolutely: what rounding errors are measured by, however much cancels."""
    return np.linalg.norm(correlation_weights(s, t, alpha) * correlation_terms(s, t))


def correlation_weights(s, t, alpha):
    """|∂L/∂v_j|."""
    e = distances(s, t)
    share = (e / e.max()) ** (2 * alpha)
    return 2 * alpha / np.log(2) * share / e / share.sum()


def correlation_terms(s, t, off_s=0.0, off_t=0.0):
    """∂v_j/∂s_ij with both terms taken absolutely, and the products in v_j; the means are off by so many roundings."""
    n = len(s)
    with np.errstate(all="ignore"):
        sigma_s, sigma_t = s.std(0, ddof=1), t.std(0, ddof=1)
        s_hat = np.nan_to_num((np.abs(s - s.mean(0)) + off_s) / sigma_s, posinf=0)
        t_hat = np.nan_to_num((np.abs(t - t.mean(0)) + off_t) / sigma_t, posinf=0)
        v = (s_hat * t_hat).sum(0) / n
        return np.nan_to_num((t_hat / n + v * s_hat / (n - 1)) / sigma_s, posinf=0)


def gram_gradient_size(s, t, of_teacher=False, log=False):
    """Norm of ∂L/∂s (or ∂L/∂t) with every product taken absolutely, without the diagonal, which is projected out."""
    return np.linalg.norm(gram_gradient_terms(s, t, of_teacher, log))


def gram_gradient_terms(s, t, of_teacher=False, log=False, diagonal=False):
    """The same of each entry; with `diagonal`, of a formula that forms the diagonal too and loses its digits."""
    with np.errstate(all="ignore"):
        norm = np.linalg.norm(t if of_teacher else s, axis=1, keepdims=True)
        s_hat = np.nan_to_num(s / np.linalg.norm(s, axis=1, keepdims=True))
        t_hat = np.nan_to_num(t / np.linalg.norm(t, axis=1, keepdims=True))
    g_s, g_t = np.abs(s_hat) @ np.abs(s_hat).T, np.abs(t_hat) @ np.abs(t_hat).T
    alive_s, alive_t = (s != 0).any(1), (t != 0).any(1)
    c_s, c_st = (1 / max(alive.sum(), 1) ** 2 for alive in (alive_s, alive_s & alive_t))
    if log:
        exact_s, exact_t = s_hat @ s_hat.T, t_hat @ t_hat.T
        potential_s, potential_st = (exact_s**2).sum(), ((exact_s * exact_t) ** 2).sum()
        c_s, c_st = (1 / x if x else 0.0 for x in (potential_s, potential_st))
    w = c_st * g_s**2 * g_t if of_teacher else g_s * (c_s + c_st * g_t**2)
    if not diagonal:
        np.fill_diagonal(w, 0)
    z_hat = np.abs(t_hat if of_teacher else s_hat)
    g = 4 * w @ z_hat
    with np.errstate(all="ignore"):
        return np.nan_to_num((g + (g * z_hat).sum(1, keepdims=True) * z_hat) / norm, posinf=0)
