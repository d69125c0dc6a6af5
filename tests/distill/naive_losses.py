"""The baselines' distances written out in NumPy float64, pair by pair."""

import numpy as np


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def kd(s, t, temperature):
    p_s, p_t = softmax(s / temperature), softmax(t / temperature)
    return temperature**2 * sum((p_t[i] * np.log(p_t[i] / p_s[i])).sum() for i in range(len(s))) / len(s)


def fitnet(s, t):
    return ((s - t) ** 2).mean()


def pool(maps, size):
    """Adaptive average pooling: cell i covers the rows from ⌊i·h/size⌋ to ⌈(i+1)·h/size⌉."""
    n, c, h, _ = maps.shape
    edges = [(i * h // size, -(-(i + 1) * h // size)) for i in range(size)]
    out = np.empty((n, c, size, size))
    for i, (top, bottom) in enumerate(edges):
        for j, (left, right) in enumerate(edges):
            out[:, :, i, j] = maps[:, :, top:bottom, left:right].mean((2, 3))
    return out


def same_size(s, t):
    size = min(s.shape[2], t.shape[2])
    return pool(s, size), pool(t, size)


def attention(maps):
    a = (maps**2).mean(1).reshape(len(maps), -1)
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def at(s, t):
    s, t = same_size(s, t)
    return ((attention(s) - attention(t)) ** 2).mean()


def ft(s, t):
    s, t = same_size(s, t)
    return np.abs(attention(s) - attention(t)).mean()


def sp(s, t):
    grams = []
    for z in (s, t):
        z = z.reshape(len(z), -1)
        gram = z @ z.T
        grams.append(gram / np.linalg.norm(gram, axis=1, keepdims=True))
    return ((grams[0] - grams[1]) ** 2).sum() / len(s) ** 2


def cc(s, t):
    delta = np.abs(s - t)
    return np.mean([sum(delta[i, j] * delta[i + 1, j] for j in range(s.shape[1])) for i in range(len(s) - 1)])


def huber(a, b):
    d = np.abs(a - b)
    return np.where(d < 1, d**2 / 2, d - 0.5).mean()


def rkd(s, t):
    distances, angles = [], []
    for z in (s, t):
        n = len(z)
        d = np.array([[np.linalg.norm(z[i] - z[j]) for j in range(n)] for i in range(n)])
        distances.append(d / d[d > 0].mean())
        cosines = np.zeros((n, n, n))
        for i in range(n):
            for j in range(n):
                for k in range(n):
                    if j != i and k != i:
                        a, b = z[j] - z[i], z[k] - z[i]
                        cosines[i, j, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        angles.append(cosines)
    return 25 * huber(*distances) + 50 * huber(*angles)


def pkt(s, t):
    p = []
    for z in (s, t):
        z = z / (np.linalg.norm(z, axis=1, keepdims=True) + 1e-7)
        similarity = (z @ z.T + 1) / 2
        p.append(similarity / similarity.sum(1, keepdims=True))
    return (p[1] * np.log((p[1] + 1e-7) / (p[0] + 1e-7))).mean()


def nst(s, t):
    s, t = same_size(s, t)
    s, t = (z.reshape(*z.shape[:2], -1) for z in (s, t))
    s, t = (z / np.linalg.norm(z, axis=2, keepdims=True) for z in (s, t))

    def kernel(a, b):
        channels = [(i, j) for i in range(a.shape[1]) for j in range(b.shape[1])]
        return np.mean([(a[n, i] @ b[n, j]) ** 2 for n in range(len(a)) for i, j in channels])

    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


def nce(anchors, bank, chosen, temperature, z=None):
    """Anchors (n, d) against bank rows chosen (n, 1 + K); Z from this batch unless given. Returns (loss, Z)."""
    scores = np.array(
        [[np.exp(a @ bank[k] / temperature) for k in row] for a, row in zip(anchors, chosen, strict=True)]
    )
    z = scores.mean() * len(bank) if z is None else z
    p, noise = scores / z, (chosen.shape[1] - 1) / len(bank)
    loss = -np.log(p[:, 0] / (p[:, 0] + noise + 1e-7)).sum() - np.log(noise / (p[:, 1:] + noise + 1e-7)).sum()
    return loss / len(anchors), z


def pyramid(s, t):
    total, weights = ((s - t) ** 2).mean(), 1.0
    for level, size in enumerate(size for size in (4, 2, 1) if size < s.shape[2]):
        weight = 0.5 ** (level + 1)
        total += weight * ((pool(s, size) - pool(t, size)) ** 2).mean()
        weights += weight
    return total / weights
