"""Contrastive distillation: CRD (Tian et al., 2020) and WCoRD (Chen et al., 2021), with memory banks of embeddings."""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.options import Count, Positive, Share, Weight


class NegativeSampler(nn.Module):
    """Draws training images of other classes, uniformly and with replacement."""

    def __init__(self, train_labels: Tensor) -> None:
        super().__init__()
        counts = torch.bincount(train_labels)
        if int((counts > 0).sum()) < 2:
            raise ValueError("contrastive losses need training images of at least two classes")
        # Images sorted by class: those of other classes are all but one run of them.
        self.register_buffer("order", torch.argsort(train_labels, stable=True), persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)

    def forward(self, labels: Tensor, negatives: int) -> Tensor:
        """Indices (n, negatives) of images whose labels differ from labels (n,)."""
        own, start = self.counts[labels, None], self.starts[labels, None]
        drawn = torch.rand(len(labels), negatives, device=labels.device, dtype=torch.float64)
        place = (drawn * (len(self.order) - own)).long()
        return self.order[place + own * (place >= start)]


class MemoryBank(nn.Module):
    """An embedding of length one for every training image, following the newest by momentum.

    Its type is that of the training, such as bfloat16; the embeddings that it is compared with are float32.
    """

    def __init__(self, size: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        bound = (3 / width) ** 0.5
        self.register_buffer("bank", torch.empty(size, width).uniform_(-bound, bound))

    def scores(self, anchor: Tensor, chosen: Tensor) -> Tensor:
        """Products (n, k) of anchors (n, d) with the remembered embeddings at chosen (n, k)."""
        # All N products and a choice among them: far less memory than gathering n·k rows of d.
        return (anchor @ self.bank.T.to(anchor.dtype)).gather(1, chosen)

    @torch.no_grad()
    def update(self, index: Tensor, newest: Tensor) -> None:
        if dist.is_available() and dist.is_initialized():
            index, newest = _of_all_processes(index), _of_all_processes(newest)
        followed = F.normalize(self.momentum * self.bank[index] + (1 - self.momentum) * newest)
        # Into a new tensor: the backward pass still needs the old one.
        self.bank = self.bank.index_copy(0, index, followed.to(self.bank.dtype))


class CRDLoss(DistillationLoss):
    """weight · (NCE of the student against remembered teachers + NCE of the teacher against remembered students).

    Args:
        context: gives widths and training labels.
        weight: of the sum.
        width: of the two linear embeddings, which are trained.
        negatives: K, images of other classes beside each positive.
        temperature: τ of exp(a · b / τ).
        momentum: of the memory banks.
    """

    reads_maps = False

    def __init__(
        self,
        context: Context,
        weight: Weight = 0.8,
        width: Count = 128,
        negatives: Count = 16384,
        temperature: Positive = 0.07,
        momentum: Share = 0.5,
    ) -> None:
        super().__init__()
        student, teacher = context.widths
        self.weight, self.negatives, self.temperature = weight, negatives, temperature
        self.size = len(context.train_labels)
        self.embed_s, self.embed_t = nn.Linear(student, width), nn.Linear(teacher, width)
        self.sampler = NegativeSampler(context.train_labels)
        self.bank_s, self.bank_t = (MemoryBank(self.size, width, momentum) for _ in range(2))
        # Normalisation constants of the two directions, set by the first batch.
        self.register_buffer("z_s", torch.tensor(-1.0))
        self.register_buffer("z_t", torch.tensor(-1.0))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        e_s = F.normalize(self.embed_s(student.features.penultimate)).float()
        e_t = F.normalize(self.embed_t(teacher.features.penultimate)).float()
        # The positive stands first.
        chosen = torch.cat([batch.index[:, None], self.sampler(batch.labels, self.negatives)], 1)
        # exp(a · b / τ)
        toward_t = torch.exp(self.bank_t.scores(e_s, chosen) / self.temperature)
        toward_s = torch.exp(self.bank_s.scores(e_t, chosen) / self.temperature)
        self.z_s, self.z_t = self.normaliser(self.z_s, toward_t), self.normaliser(self.z_t, toward_s)
        loss = nce(toward_t / self.z_s, self.size) + nce(toward_s / self.z_t, self.size)
        self.bank_s.update(batch.index, e_s)
        self.bank_t.update(batch.index, e_t)
        return Terms.of("crd", self.weight, loss)

    def normaliser(self, z: Tensor, exponentials: Tensor) -> Tensor:
        # Z = N · mean of the first batch's exponentials
        return torch.where(z < 0, exponentials.detach().mean() * self.size, z)


def nce(p: Tensor, size: int) -> Tensor:
    """Noise-contrastive loss of normalised scores p (n, 1 + K), positives first, among `size` images."""
    # −(1/n) Σ_i [ log p₊ / (p₊ + K/N) + Σ_K log (K/N) / (p₋ + K/N) ]
    noise, eps = (p.shape[1] - 1) / size, 1e-7
    positive = (p[:, 0] / (p[:, 0] + noise + eps)).log().sum()
    negative = (noise / (p[:, 1:] + noise + eps)).log().sum()
    return -(positive + negative) / len(p)


class WCoRDLoss(DistillationLoss):
    """global_weight · global + local_weight · local: the Wasserstein distance in its dual and in its primal form.

    Global: E[e_s · e_t over pairs of one image] − E[over pairs of different classes], maximised, with embeddings that
    spectral normalisation keeps 1-Lipschitz; negatives come from memory banks as in CRD. Local: the entropic transport
    cost between the batch's student and teacher embeddings under 1 − cosine.

    Args:
        context: gives widths and training labels.
        global_weight, local_weight: of the two parts.
        width: of the embeddings.
        negatives: images of other classes for each image.
        momentum: of the memory banks.
        regularisation, iterations: entropic smoothing and iterations of Sinkhorn's algorithm.
    """

    reads_maps = False

    def __init__(
        self,
        context: Context,
        global_weight: Weight = 0.8,
        local_weight: Weight = 0.05,
        width: Count = 128,
        negatives: Count = 16384,
        momentum: Share = 0.5,
        regularisation: Positive = 0.1,
        iterations: Count = 20,
    ) -> None:
        super().__init__()
        student, teacher = context.widths
        self.global_weight, self.local_weight = global_weight, local_weight
        self.negatives, self.regularisation, self.iterations = negatives, regularisation, iterations
        self.embed_s = spectral_norm(nn.Linear(student, width))
        self.embed_t = spectral_norm(nn.Linear(teacher, width))
        self.sampler = NegativeSampler(context.train_labels)
        self.bank_s, self.bank_t = (MemoryBank(len(context.train_labels), width, momentum) for _ in range(2))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        e_s = F.normalize(self.embed_s(student.features.penultimate)).float()
        e_t = F.normalize(self.embed_t(teacher.features.penultimate)).float()
        chosen = self.sampler(batch.labels, self.negatives)
        # −(E₊[g] − E₋[g]), with either side as the anchor
        positive = (e_s * e_t).sum(1).mean()
        negative = self.bank_t.scores(e_s, chosen).mean() + self.bank_s.scores(e_t, chosen).mean()
        dual = negative - 2 * positive
        primal = transport_cost(1 - e_s @ e_t.T, self.regularisation, self.iterations)
        self.bank_s.update(batch.index, e_s)
        self.bank_t.update(batch.index, e_t)
        total = self.global_weight * dual + self.local_weight * primal
        return Terms(total, {"wcord_global": dual.detach(), "wcord_local": primal.detach()})


def _of_all_processes(own: Tensor) -> Tensor:
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.contiguous())
    return torch.cat(parts)


def transport_cost(cost: Tensor, regularisation: float, iterations: int) -> Tensor:
    """Σ π_ij cost_ij (n, n), π the entropic optimal plan between uniform marginals by Sinkhorn's algorithm.

    The plan is held fixed: by the envelope theorem the gradient of the regularised cost is the plan.
    """
    n = len(cost)
    with torch.no_grad():
        # log π = u_i + v_j − cost_ij / ε, rows and columns in turn brought to the sum 1/n
        kernel, log_mass = -cost / regularisation, -math.log(n)
        u, v = kernel.new_zeros(n), kernel.new_zeros(n)
        for _ in range(iterations):
            u = log_mass - torch.logsumexp(kernel + v, 1)
            v = log_mass - torch.logsumexp(kernel + u[:, None], 0)
        plan = torch.exp(kernel + u[:, None] + v)
    return (plan * cost).sum()
