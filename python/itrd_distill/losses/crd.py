"""Contrastive representation distillation (CRD; Tian et al., 2020), with memory banks of embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.losses.memory import MemoryBank, NegativeSampler
from itrd_distill.options import Count, Positive, Share, Weight


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
    z_s: Tensor
    z_t: Tensor

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
