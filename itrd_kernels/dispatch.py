"""Which backend runs, and the calls of its operators, with the record of settings that they take."""

import functools
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from itrd_kernels import backends, checks, schema
from itrd_kernels.formulas.gram import gram as gram_formula
from itrd_kernels.graphs import constant_in_graphs


class Settings(NamedTuple):
    """What travels beside the tensors from functional to operator."""

    backend: str
    alpha: float
    beta_corr: float
    beta_mi: float
    log: bool
    want_e: bool
    want_t: bool
    want_s: bool
    tf32: bool

    @classmethod
    def of(
        cls,
        backend: str,
        z_e: Tensor,
        z_t: Tensor,
        z_s: Tensor | None,
        alpha: float,
        beta_corr: float,
        beta_mi: float,
        log: bool,
    ) -> "Settings":
        """Read the gradients that are wanted, which a Function cannot, and the precision of float32 products."""
        grad = torch.is_grad_enabled()
        return cls(
            backend,
            alpha,
            beta_corr,
            beta_mi,
            log,
            grad and z_e.requires_grad,
            grad and z_t.requires_grad,
            grad and z_s is not None and z_s.requires_grad,
            backend != "cpu" and tf32_is_allowed(),
        )


@constant_in_graphs
def tf32_is_allowed() -> bool:
    """Whether float32 products may run in TF32, set by either of PyTorch's interfaces.

    The older one must not be read once the newer one was used. torch.compile cannot trace this reading, so it takes the
    result for a constant; a change of the setting compiles anew.
    """
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def choose_backend(name: str, device: torch.device) -> str:
    """The backend that will run; "auto" takes the fastest that can, any other name is taken at its word or refused."""
    checks.backend_name(name)
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        # torch.func and forward-mode derivatives transform the formula itself, which only the reference offers.
        return "reference"
    if name == "auto":
        fastest = backends.fastest(device.type)
        if fastest == "reference":
            warn_of_formulas(device.type)
        return fastest
    reason = backends.why_not(name, device.type)
    if reason is not None:
        raise RuntimeError(f"backend={name!r} cannot run on {device}: {reason}")
    return name


@functools.cache
def _warn_of_formulas(device_type: str) -> None:
    fused = backends.meant_for(device_type)
    reasons = "; ".join(f"{name}: {backends.why_not(name, device_type)}" for name in fused)
    why = f"no fused backend can run ({reasons})" if fused else "no fused backend takes such tensors"
    warnings.warn(
        f"itrd_kernels runs plain PyTorch formulas on {device_type} tensors, slower and with n × n arrays in memory, "
        f"since {why}. backend='reference' asks for them without this warning",
        stacklevel=2,
    )


@constant_in_graphs
def warn_of_formulas(device_type: str) -> None:
    """Say once for a device type that "auto" runs the formulas there; tracing says it too."""
    # Meta tensors hold nothing that could be computed fast or slowly.
    if device_type != "meta":
        _warn_of_formulas(device_type)


def forward(z_e: Tensor, z_t: Tensor, z_s: Tensor | None, settings: Settings) -> tuple[Tensor, ...]:
    """(total, correlation, mutual_information, moments (8, d_t), ∂L_mi/∂z_s or z_e (n, d_s), ∂L_mi/∂z_t (n, d_t)).

    Gradients that are not wanted, and the moments without a correlation term, come back empty.
    """
    return _OPERATORS[settings.backend].forward.default(z_e, z_t, z_s, *settings[1:])


def backward(
    upstream: tuple[Tensor | None, ...],
    z_e: Tensor,
    z_t: Tensor,
    z_s: Tensor | None,
    moments: Tensor,
    dgram_s: Tensor,
    dgram_t: Tensor,
    settings: Settings,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of z_e, z_t, z_s in their dtypes; those that are not wanted come back empty."""
    return _OPERATORS[settings.backend].backward.default(
        *upstream,
        z_e,
        z_t,
        z_s,
        moments,
        dgram_s,
        dgram_t,
        settings.beta_corr,
        settings.beta_mi,
        settings.want_e,
        settings.want_t,
        settings.want_s,
    )


def forms_statistics(backend: str) -> bool:
    """Whether `gram` of a backend takes the row statistics of a loss that has such from the rows, as base.py says."""
    return backends.WITH_OPERATORS[backend].forms_statistics


class GramOutputs(NamedTuple):
    """What the operator `gram` returns; "wide" is float64 for float64 features, else float32.

    Attributes:
        sums: float64 (4,): the loss's two sums over all pairs, diagonal included, and the counts m_s and m_st of the
            column rows that are not zero, on the student's side and on both.
        dgram_s, dgram_t: wide (n, d): gradients of the rows z, or empty where they are not wanted.
        row_sums: wide (2, n) of student and teacher, for losses that take statistics and where a gradient is wanted;
            else empty.
    """

    sums: Tensor
    dgram_s: Tensor
    dgram_t: Tensor
    row_sums: Tensor


def gram(
    backend: str,
    z_s: Tensor,
    z_t: Tensor,
    loss: str,
    parameters: Sequence[float],
    *,
    other: tuple[Tensor, Tensor] | None = None,
    offset: int = 0,
    keep: Tensor | None = None,
    other_keep: Tensor | None = None,
    coefficients: Tensor | None = None,
    statistics: Tensor | None = None,
    other_statistics: Tensor | None = None,
    want_s: bool = False,
    want_t: bool = False,
    tf32: bool = False,
) -> GramOutputs:
    """One sweep over pairs of rows: z's own rows × all of z's, or × the rows of `other`.

    Args:
        z_s, z_t: rows (n, d_s) and (n, d_t) of student and teacher, one dtype and device.
        loss, parameters: "mutual_information" (none), "polynomial" (c, p) or "pkt" (1/k³, kε); formulas/gram.py finds
            what each adds to the sums, and to W.
        other: the column rows (m, d_s) and (m, d_t); None: z's own, and every pair is formed once.
        offset: row i of z is row i + offset of `other`, from 0 to m − n; its cosine with itself is exactly 1.
        keep, other_keep: bool (n,) and (m,): False leaves a row out, whatever it holds, with a gradient of 0.
        coefficients: wide (2,), or None: from the counts of the column rows, or from the parameters.
        statistics, other_statistics: wide (2, n) and (2, m) of each row, 0 for rows that do not count, of losses that
            have such alone: "pkt", but for z's own pairs on a backend that `forms_statistics`.
        want_s, want_t: which gradients are wanted, those of the rows z under the sum over all pairs that hold them,
            i.e. ∂L/∂ẑ_i = 4 Σ_j W_ij ẑ_j.
        tf32: float32 products may run in TF32.
    """
    other_s, other_t = other or (None, None)
    call = gram_formula if backend == "reference" else _OPERATORS[backend].gram.default
    return GramOutputs(
        *call(
            z_s, z_t, other_s, other_t, offset, keep, other_keep, loss, parameters, coefficients, statistics,
            other_statistics, want_s, want_t, tf32,
        )
    )  # fmt: skip


class Sweep:
    """`gram` for all pairs of these rows, with the gradients that the settings want; what PairLoss.evaluate calls."""

    def __init__(self, z_s: Tensor, z_t: Tensor, settings: Settings) -> None:
        self.z_s, self.z_t, self.settings = z_s, z_t, settings
        self.forms_statistics = forms_statistics(settings.backend)

    def __call__(
        self,
        loss: str,
        parameters: Sequence[float],
        coefficients: Tensor | None = None,
        statistics: Tensor | None = None,
        gradients: bool = True,
    ) -> GramOutputs:
        settings = self.settings
        return gram(
            settings.backend, self.z_s, self.z_t, loss, parameters, coefficients=coefficients, statistics=statistics,
            want_s=gradients and settings.want_e, want_t=gradients and settings.want_t, tf32=settings.tf32,
        )  # fmt: skip


def _register() -> dict[str, torch._ops._OpNamespace]:
    operators = {}
    for name, backend in backends.WITH_OPERATORS.items():
        if backends.has_operators(name):
            backend.register()
            namespace = schema.namespace(name)
            torch.library.register_fake(f"{namespace}::forward", schema.fake_forward)
            torch.library.register_fake(f"{namespace}::backward", schema.fake_backward)
            torch.library.register_fake(f"{namespace}::gram", schema.fake_gram)
            operators[name] = getattr(torch.ops, namespace)
    return operators


_OPERATORS = _register()
