"""Wasserstein contrastive distillation (WCoRD; Chen et al., 2021), with memory banks of embeddings."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.losses.memory import MemoryBank, NegativeSampler
from itrd_distill.options import Count, Positive, Share, Weight


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
