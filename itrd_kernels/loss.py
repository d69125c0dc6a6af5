"""The loss as a module that owns the student's embedding."""

import torch
from torch import Tensor, nn

from itrd_kernels import checks, untrained
from itrd_kernels.functional import ITRDTerms, itrd_outputs


class FusedITRDLoss(nn.Module):
    """β_corr · L_corr(E(z_s), z_t) + β_mi · L_mi(z_s or E(z_s), z_t): Eq. 10 without the cross-entropy.

    The embedding E (`self.embed`) is trained with the student: give `criterion.parameters()` to the optimizer. One that
    stands still while a hundred gradients pile up in it is warned about (64 micro-batches a step are no reason to).
    L_mi reads z_s itself when student_dim == teacher_dim, else E(z_s) (section 5 of the paper).

    Args:
        student_dim: width d_s of the student's features.
        teacher_dim: width d_t of the teacher's features.
        beta_corr: weight of the correlation loss, ≥ 0; at 0 it is not computed, and where the widths are equal nothing
            uses the embedding then, whose gradients are zero.
        beta_mi: weight of the mutual-information loss, ≥ 0; at 0 it is not computed.
        alpha: α of Eq. 6, > 0. The paper: 1.01 within a family of architectures, 1.5 across.
        embed: module (n, student_dim) → (n, teacher_dim); None is `nn.Linear`, `nn.Identity()` is no embedding. One
            that gives another floating-point type than it takes brings all features to the widest type.
        log_mi: take Eq. 9 with its logarithms.
        backend: "auto", "cpu", "triton", "cuda" or "reference"; see `itrd_kernels.available_backends()`.

    Raises:
        ValueError, TypeError, RuntimeError: an argument is unusable; the message names it and the remedy.
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        beta_corr: float = 2.0,
        beta_mi: float = 1.0,
        alpha: float = 1.5,
        *,
        embed: nn.Module | None = None,
        log_mi: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.student_dim = checks.dimension("student_dim", student_dim)
        self.teacher_dim = checks.dimension("teacher_dim", teacher_dim)
        self.alpha = checks.alpha(alpha)
        self.beta_corr = checks.weight("beta_corr", beta_corr)
        self.beta_mi = checks.weight("beta_mi", beta_mi)
        self.log_mi = checks.flag("log_mi", log_mi)
        self.backend = checks.backend_name(backend)
        if embed is None:
            self.embed: nn.Module = nn.Linear(self.student_dim, self.teacher_dim)
        else:
            self.embed = checks.embedding(embed, self.student_dim, self.teacher_dim)
        self._lookout = untrained.Lookout()
        self._lookout.watch(self.embed)

    def __setstate__(self, state: dict) -> None:
        # Copies and unpickled modules have parameters of their own, without hooks.
        super().__setstate__(state)
        self._lookout = untrained.Lookout()
        self._lookout.watch(self.embed)

    def forward(self, z_s: Tensor, z_t: Tensor, *, return_terms: bool = False) -> Tensor | ITRDTerms:
        """The weighted sum of both terms, on request with the terms themselves, in one fused call.

        Args:
            z_s: student features (n, student_dim), n ≥ 2; float16, bfloat16, float32 or float64.
            z_t: teacher features (n, teacher_dim), of z_s' dtype and device; autocast brings both to the wider dtype.
            return_terms: give the terms too, for a log or to weigh them anew in each step.

        Returns:
            The total, a scalar (float64 for float64 inputs, else float32); with return_terms=True
            ITRDTerms(total, correlation, mutual_information), scalars of that dtype: the total weighted, its terms
            not. Each is differentiable; a term whose weight is 0 is not computed and is a NaN without a gradient.

        Raises:
            TypeError, ValueError, RuntimeError: naming the argument, what came and what is expected.
        """
        if checks.flag("return_terms", return_terms):
            return ITRDTerms(*self._outputs(z_s, z_t, self.beta_corr, self.beta_mi))
        return self._outputs(z_s, z_t, self.beta_corr, self.beta_mi, total_alone=True)[0]

    def terms(self, z_s: Tensor, z_t: Tensor) -> tuple[Tensor, Tensor]:
        """(correlation, mutual_information) without their weights and always both, even where a weight is 0.

        For both the total and its terms, `criterion(z_s, z_t, return_terms=True)` computes them once.
        """
        _, correlation, mutual_information = self._outputs(z_s, z_t, 1.0, 1.0)
        return correlation, mutual_information

    def extra_repr(self) -> str:
        return (
            f"student_dim={self.student_dim}, teacher_dim={self.teacher_dim}, beta_corr={self.beta_corr}, "
            f"beta_mi={self.beta_mi}, alpha={self.alpha}, log_mi={self.log_mi}, backend={self.backend!r}"
        )

    def _outputs(
        self, z_s: Tensor, z_t: Tensor, beta_corr: float, beta_mi: float, total_alone: bool = False
    ) -> tuple[Tensor, ...]:
        checks.features("z_s", z_s, width=self.student_dim, width_name="student_dim")
        checks.features("z_t", z_t, width=self.teacher_dim, width_name="teacher_dim")
        raw, embed = self.student_dim == self.teacher_dim, self.embed
        checks.embedding_matches(embed, z_s)
        weights = self.alpha, beta_corr, beta_mi, self.log_mi, self.backend, total_alone
        # Only the Gram term of raw features alone leaves the embedding out.
        if raw and beta_mi and not beta_corr:
            total, *terms = itrd_outputs(z_s, z_t, None, *weights)
            zero = _zero_of(embed, z_s)
            if total_alone:
                return (total + zero,)
            correlation, mutual_information = terms
            return total + zero, correlation, mutual_information + zero
        self._lookout(embed)
        z_e, z_raw = embed(z_s), z_s if raw else None
        checks.features("z_e", z_e)
        if z_e.dtype != z_s.dtype:
            # An embedding that casts brings a type of its own: all go to the widest, as in PyTorch's own losses.
            dtype = torch.promote_types(z_e.dtype, z_t.dtype)
            if z_raw is not None:
                dtype = torch.promote_types(dtype, z_s.dtype)
                z_raw = z_s.to(dtype)
            z_e, z_t = z_e.to(dtype), z_t.to(dtype)
        return itrd_outputs(z_e, z_t, z_raw, *weights)


def _zero_of(embed: nn.Module, z_s: Tensor) -> Tensor | float:
    """Zero, with zero gradients for an embedding that is not used: DistributedDataParallel waits for them."""
    if not torch.is_grad_enabled():
        return 0.0
    if untrained.has_no_shapes(embed):
        # Only a call gives them their shapes.
        with torch.no_grad():
            embed(z_s)
    # Only on this device: a weight that is fetched for a call lies elsewhere.
    parts = [untrained.local(p) for p in embed.parameters() if p.requires_grad and p.device == z_s.device]
    return sum((part.reshape(-1)[:0].sum(dtype=torch.float32) for part in parts), 0.0)
