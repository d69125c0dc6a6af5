"""The losses as functions. Equation numbers are those of the paper (BMVC 2022)."""

from typing import NamedTuple

import torch
from torch import Tensor

from itrd_kernels import checks
from itrd_kernels.autocast import autocasts
from itrd_kernels.autograd import CorrelationFunction, GramFunction, ITRDFunction, PairFunction, TotalFunction
from itrd_kernels.dispatch import Settings, choose_backend
from itrd_kernels.formulas import itrd
from itrd_kernels.formulas.correlation import correlation
from itrd_kernels.formulas.mutual_information import mutual_information
from itrd_kernels.pair_losses.base import PairLoss, Parameters
from itrd_kernels.pair_losses.mutual_information import POLYNOMIAL, POLYNOMIAL_LOG
from itrd_kernels.pair_losses.pkt import PKT


class ITRDTerms(NamedTuple):
    """total = β_corr · correlation + β_mi · mutual_information; a term whose β is 0 is NaN."""

    total: Tensor
    correlation: Tensor
    mutual_information: Tensor


def correlation_loss(z_s: Tensor, z_t: Tensor, alpha: float = 1.5, *, backend: str = "auto") -> Tensor:
    """L_corr = log2 Σ_j |v_j − 1|^(2α) (Eq. 6), v the diagonal of the cross-correlation of z_s and z_t.

    Args:
        z_s: student features (n, d), n ≥ 2; float16, bfloat16, float32 or float64.
        z_t: teacher features (n, d), of z_s' dtype and device.
        alpha: α > 0.
        backend: "auto", "cpu", "triton", "cuda" or "reference".

    Returns:
        A scalar, float64 for float64 inputs, else float32.

    Raises:
        TypeError, ValueError, RuntimeError: naming the argument, what came and what is expected.
    """
    alpha = checks.alpha(alpha)
    checks.features("z_s", z_s)
    checks.features("z_t", z_t)
    z_s, z_t = _matching_pair("z_s", z_s, z_t, same_width=True)
    chosen = choose_backend(backend, z_t.device)
    if chosen == "reference":
        return correlation(z_s, z_t, alpha)
    z_s, z_t, _ = _savable(z_s, z_t)
    return CorrelationFunction.apply(z_s, z_t, Settings.of(chosen, z_s, z_t, None, alpha, 1.0, 0.0, False))


def mutual_information_loss(
    z_s: Tensor, z_t: Tensor, *, log: bool = False, kernel: tuple[float, int] | None = None, backend: str = "auto"
) -> Tensor:
    """L_mi = ‖G_s‖_F² − ‖G_s ∘ G_t‖_F² (Eq. 9 without logarithms), Gram matrices of normalised rows and trace one.

    Args:
        z_s: student features (n, d_s), n ≥ 2; float16, bfloat16, float32 or float64.
        z_t: teacher features (n, d_t), of z_s' dtype and device; d_t may differ from d_s.
        log: take log2 of both terms (Eq. 9 as printed).
        kernel: (c, p) puts (g + c)^p in place of each cosine g of rows that are not zero, before traces are made one
            (the polynomial kernel of section 4.2); c ≥ 0, p = 1, 2 or 3. None is the linear kernel, (0, 1).
        backend: "auto", "cpu", "triton", "cuda" or "reference".

    Returns:
        A scalar, float64 for float64 inputs, else float32.

    Raises:
        TypeError, ValueError, RuntimeError: naming the argument, what came and what is expected.
    """
    checks.flag("log", log)
    if kernel is not None:
        return _pair_loss(POLYNOMIAL_LOG if log else POLYNOMIAL, z_s, z_t, checks.polynomial_kernel(kernel), backend)
    checks.features("z_s", z_s)
    checks.features("z_t", z_t)
    z_s, z_t = _matching_pair("z_s", z_s, z_t, same_width=False)
    chosen = choose_backend(backend, z_t.device)
    if chosen == "reference":
        return mutual_information(z_s, z_t, log)
    z_s, z_t, _ = _savable(z_s, z_t)
    return GramFunction.apply(z_s, z_t, Settings.of(chosen, z_s, z_t, None, 1.0, 0.0, 1.0, log))


def pkt_loss(z_s: Tensor, z_t: Tensor, *, eps: float = 1e-7, backend: str = "auto") -> Tensor:
    """Probabilistic knowledge transfer, (1/n²) Σ_ij p_ij log((p_ij + ε)/(q_ij + ε)) (Passalis & Tefas, ECCV 2018).

    p and q are (1 + cosine)/2 of every two rows of teacher and student, divided by their sums over each row. It is
    computed without what each row's normaliser takes away again, so that nearly equal students keep their digits.

    Args:
        z_s: student features (n, d_s), n ≥ 2; float16, bfloat16, float32 or float64. A zero row has the cosine 0 with
            every row, and gets no gradient.
        z_t: teacher features (n, d_t), of z_s' dtype and device; d_t may differ from d_s.
        eps: ε > 0.
        backend: "auto", "cpu", "triton", "cuda" or "reference".

    Returns:
        A scalar, float64 for float64 inputs, else float32.

    Raises:
        TypeError, ValueError, RuntimeError: naming the argument, what came and what is expected.
    """
    return _pair_loss(PKT, z_s, z_t, (checks.positive("eps", eps),), backend)


def itrd_loss(
    z_e: Tensor,
    z_t: Tensor,
    z_s: Tensor | None = None,
    *,
    alpha: float = 1.5,
    beta_corr: float = 2.0,
    beta_mi: float = 1.0,
    log: bool = False,
    backend: str = "auto",
) -> ITRDTerms:
    """β_corr · L_corr(z_e, z_t) + β_mi · L_mi(z_s or z_e, z_t) (Eq. 10 without cross-entropy) in one fused call.

    Args:
        z_e: embedded student features (n, d_t).
        z_t: teacher features (n, d_t).
        z_s: raw student features (n, d_s) for L_mi; None takes z_e.
        alpha: α > 0 of Eq. 6.
        beta_corr, beta_mi: weights ≥ 0; a term whose weight is 0 is not computed and comes back as NaN.
        log: take L_mi with its logarithms.
        backend: "auto", "cpu", "triton", "cuda" or "reference".

    Returns:
        ITRDTerms(total, correlation, mutual_information), scalars, each differentiable where it is computed.

    Raises:
        TypeError, ValueError, RuntimeError: naming the argument, what came and what is expected.
    """
    checks.features("z_e", z_e)
    checks.features("z_t", z_t)
    if z_s is not None:
        checks.features("z_s", z_s)
    return ITRDTerms(*itrd_outputs(z_e, z_t, z_s, alpha, beta_corr, beta_mi, log, backend))


def itrd_outputs(
    z_e: Tensor,
    z_t: Tensor,
    z_s: Tensor | None,
    alpha: float,
    beta_corr: float,
    beta_mi: float,
    log: bool,
    backend: str,
    total_alone: bool = False,
) -> tuple[Tensor, ...]:
    """The terms of `itrd_loss`, or its total at least, of features that `checks.features` has let pass already."""
    alpha = checks.alpha(alpha)
    checks.flag("log", log)
    beta_corr, beta_mi = checks.weight("beta_corr", beta_corr), checks.weight("beta_mi", beta_mi)
    z_e, z_t, z_s = _matching_triple(z_e, z_t, z_s, same_width=beta_corr > 0)
    chosen = choose_backend(backend, z_t.device)
    if beta_corr == 0 and beta_mi == 0:
        return _nothing(z_e, z_t)
    if chosen == "reference":
        return itrd.terms(z_e, z_t, z_s, alpha, beta_corr, beta_mi, log)
    z_e, z_t, z_s = _savable(z_e, z_t, z_s)
    settings = Settings.of(chosen, z_e, z_t, z_s, alpha, beta_corr, beta_mi, log)
    if total_alone:
        return (TotalFunction.apply(z_e, z_t, z_s, settings),)
    return ITRDFunction.apply(z_e, z_t, z_s, settings)


def _pair_loss(loss: PairLoss, z_s: Tensor, z_t: Tensor, parameters: Parameters, backend: str) -> Tensor:
    checks.features("z_s", z_s)
    checks.features("z_t", z_t)
    z_s, z_t = _matching_pair("z_s", z_s, z_t, same_width=False)
    chosen = choose_backend(backend, z_t.device)
    if chosen == "reference":
        return loss.formula(z_s, z_t, *parameters)
    z_s, z_t, _ = _savable(z_s, z_t)
    settings = Settings.of(chosen, z_s, z_t, None, 1.0, 0.0, 1.0, False)
    return PairFunction.apply(z_s, z_t, settings, loss, parameters)


def _matching_pair(name: str, z_s: Tensor, z_t: Tensor, *, same_width: bool) -> tuple[Tensor, Tensor]:
    checks.same_batch(name, z_s, z_t, same_width=same_width)
    if z_s.dtype != z_t.dtype:
        if not autocasts(z_t.device.type):
            checks.same_dtype((name, z_s), ("z_t", z_t))
        # As PyTorch's own losses do under autocast: to the wider of the two types.
        dtype = torch.promote_types(z_s.dtype, z_t.dtype)
        return z_s.to(dtype), z_t.to(dtype)
    return z_s, z_t


def _matching_triple(
    z_e: Tensor, z_t: Tensor, z_s: Tensor | None, *, same_width: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    z_e, z_t = _matching_pair("z_e", z_e, z_t, same_width=same_width)
    # One tensor in both places (no embedding) gets one gradient, not two to be added.
    if z_s is None or z_s is z_e:
        return z_e, z_t, None
    z_s, wide_t = _matching_pair("z_s", z_s, z_t, same_width=False)
    return z_e.to(wide_t.dtype), wide_t, z_s


def _savable(z: Tensor, z_t: Tensor, z_s: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The inputs as autograd can save them: no inference tensors (a teacher's, usually), and no tensor twice."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        z = z.clone() if z.is_inference() else z
        z_t = z_t.clone() if z_t.is_inference() else z_t
        z_s = z_s.clone() if z_s is not None and z_s.is_inference() else z_s
    return z, z_t.view_as(z_t) if z_t is z or z_t is z_s else z_t, z_s


def _nothing(z_e: Tensor, z_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Zero, connected to the graph, with no term computed."""
    dtype = torch.promote_types(z_t.dtype, torch.float32)
    zero = z_e[:0].sum(dtype=dtype) + z_t[:0].sum(dtype=dtype)
    nan = torch.full_like(zero.detach(), torch.nan)
    return zero, nan, nan
