"""Which backend runs, and the calls of its operators, with the record of settings that they take."""

import functools
import warnings
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from itrd_kernels import backends, checks, schema
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
            backend != "cpu" and _tf32_is_allowed(),
        )


@constant_in_graphs
def _tf32_is_allowed() -> bool:
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


def _register() -> dict[str, torch._ops._OpNamespace]:
    operators = {}
    for name, backend in backends.WITH_OPERATORS.items():
        if backends.has_operators(name):
            backend.register()
            namespace = schema.namespace(name)
            torch.library.register_fake(f"{namespace}::forward", schema.fake_forward)
            torch.library.register_fake(f"{namespace}::backward", schema.fake_backward)
            operators[name] = getattr(torch.ops, namespace)
    return operators


_OPERATORS = _register()
