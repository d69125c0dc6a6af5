"""The losses as pure functions of (student, teacher) tensors, each a scalar, numerically those of the CRD benchmark."""

import torch
import torch.nn.functional as F
from torch import Tensor


def kd(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """Hinton et al., 2015, of logits (n, classes): T² · KL(teacher ‖ student) of softmax(logits / T), mean over n."""
    # KL(p_t ‖ p_s) = (1/n) Σ_i Σ_c p_t (log p_t − log p_s)
    log_p_s = F.log_softmax(student_logits / temperature, dim=1)
    log_p_t = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(log_p_s, log_p_t, reduction="batchmean", log_target=True) * temperature**2


def fitnet(student: Tensor, teacher: Tensor) -> Tensor:
    """Romero et al., 2015: mean squared difference of two tensors of one shape."""
    return F.mse_loss(student, teacher)


def at(student: Tensor, teacher: Tensor) -> Tensor:
    """Zagoruyko and Komodakis, 2017, of maps (n, c, h, w): mean squared difference of normalised attention maps."""
    student, teacher = _same_size(student, teacher)
    return F.mse_loss(_attention(student), _attention(teacher))


def sp(student: Tensor, teacher: Tensor) -> Tensor:
    """Tung and Mori, 2019, of tensors (n, …): Σ (Ĝ_s − Ĝ_t)² / n², Ĝ the Gram matrix with rows of length one."""
    return _normalised_gram(student).sub(_normalised_gram(teacher)).square().mean()


def cc(student: Tensor, teacher: Tensor) -> Tensor:
    """Peng et al., 2019, of features (n, d): mean over i of Σ_j |Δ_ij| · |Δ_{i+1,j}|, Δ = student − teacher."""
    delta = (student - teacher).abs()
    return (delta[:-1] * delta[1:]).sum(1).mean()


def rkd(student: Tensor, teacher: Tensor, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    """Park et al., 2019, of features (n, …): Huber losses of all distances (mean 1) and of all cosines of angles."""
    student, teacher = student.flatten(1), teacher.flatten(1)
    distance = F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))
    angle = F.smooth_l1_loss(_angles(student), _angles(teacher))
    return distance_weight * distance + angle_weight * angle


def pkt(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """Passalis and Tefas, 2018, of features (n, d): mean of p_t log(p_t / p_s), p the rows of (1 + cosine) / 2."""
    p_s, p_t = _similarities(student, eps), _similarities(teacher, eps)
    return (p_t * ((p_t + eps) / (p_s + eps)).log()).mean()


def ft(student: Tensor, teacher: Tensor) -> Tensor:
    """Kim et al., 2018, of factors (n, c, h, w): mean absolute difference of normalised attention maps."""
    student, teacher = _same_size(student, teacher)
    return F.l1_loss(_attention(student), _attention(teacher))


def nst(student: Tensor, teacher: Tensor) -> Tensor:
    """Huang and Wang, 2017, of maps (n, c, h, w): squared MMD of the channels under the kernel (a · b)²."""
    student, teacher = _same_size(student, teacher)
    a_s, a_t = F.normalize(student.flatten(2), dim=2), F.normalize(teacher.flatten(2), dim=2)
    return _squared_kernel(a_t, a_t) + _squared_kernel(a_s, a_s) - 2 * _squared_kernel(a_s, a_t)


def _same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Pool the larger maps to the size of the smaller."""
    if student.shape[2] > teacher.shape[2]:
        return F.adaptive_avg_pool2d(student, teacher.shape[2:]), teacher
    if student.shape[2] < teacher.shape[2]:
        return student, F.adaptive_avg_pool2d(teacher, student.shape[2:])
    return student, teacher


def _attention(maps: Tensor) -> Tensor:
    # a = mean over channels of maps², of length one: (n, h·w)
    return F.normalize(maps.square().mean(1).flatten(1))


def _normalised_gram(z: Tensor) -> Tensor:
    z = z.flatten(1)
    return F.normalize(z @ z.T)


def _relative_distances(z: Tensor) -> Tensor:
    # ‖z_i − z_j‖ / mean over i ≠ j
    n = len(z)
    squared = z.square().sum(1)
    distances = (squared[:, None] + squared - 2 * z @ z.T).clamp(min=1e-12).sqrt()
    distances = distances.masked_fill(torch.eye(n, dtype=torch.bool, device=z.device), 0)
    return distances / (distances.sum() / (n * (n - 1)))


def _angles(z: Tensor) -> Tensor:
    # cos ∠(z_j, z_i, z_k) for all i, j, k
    directions = F.normalize(z - z[:, None], dim=2)
    return directions @ directions.transpose(1, 2)


def _similarities(z: Tensor, eps: float) -> Tensor:
    z = z / (torch.linalg.vector_norm(z, dim=1, keepdim=True) + eps)
    similarities = (z @ z.T + 1) / 2
    return similarities / similarities.sum(1, keepdim=True)


def _squared_kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.transpose(1, 2)).square().mean()
