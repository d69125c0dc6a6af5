"""Information theoretic representation distillation, on the penultimate features, by the fused kernels."""

from typing import Annotated

from itrd_distill.data.images import Batch
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.options import Positive, Weight, one_of
from itrd_kernels import FusedITRDLoss
from itrd_kernels.checks import BACKENDS


class ITRDLoss(DistillationLoss):
    """β_corr · L_corr + β_mi · L_mi (Eq. 10); holds the criterion with its linear embedding, which is trained.

    Args:
        context: gives the widths of student and teacher.
        beta_corr, beta_mi: weights ≥ 0; a term of weight 0 is left out.
        alpha: 1.01 within a family of architectures, 1.5 across (the paper).
        backend: of `itrd_kernels`.
    """

    reads_maps = False

    def __init__(
        self,
        context: Context,
        beta_corr: Weight = 2.0,
        beta_mi: Weight = 1.0,
        alpha: Positive = 1.5,
        backend: Annotated[str, one_of(*BACKENDS)] = "auto",
    ) -> None:
        super().__init__()
        self.criterion = FusedITRDLoss(*context.widths, beta_corr, beta_mi, alpha, backend=backend)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Terms:
        found = self.criterion(student.features.penultimate, teacher.features.penultimate, return_terms=True)
        weights = {"correlation": self.criterion.beta_corr, "mutual_information": self.criterion.beta_mi}
        # A term of weight 0 is not computed, and there is nothing of it to log.
        return Terms(found.total, {name: getattr(found, name).detach() for name, weight in weights.items() if weight})
