"""Operators: their schemas and fake kernels, the record of settings they take, and the choice of backend.

Every backend owns a namespace (`itrd_cpu`, `itrd_triton`, `itrd_cuda`) with the same two operators. The C++ backends
define the same schemas in csrc/operators.h.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from itrd_kernels import backends, checks
from itrd_kernels.graphs import constant_in_graphs

FORWARD_SCHEMA = (
    "forward(Tensor z_e, Tensor z_t, Tensor? z_s, float alpha, float beta_corr, float beta_mi, bool log, "
    "bool want_e, bool want_t, bool want_s, bool tf32) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
BACKWARD_SCHEMA = (
    "backward(Tensor? g_total, Tensor? g_correlation, Tensor? g_mutual_information, "
    "Tensor z_e, Tensor z_t, Tensor? z_s, Tensor moments, Tensor dgram_s, Tensor dgram_t, "
    "float beta_corr, float beta_mi, bool want_e, bool want_t, bool want_s) -> (Tensor, Tensor, Tensor)"
)

# Rows of `moments` (MOMENTS, d): μ_s and its rounding error, 1/σ_s, the same of z_t, v, ∂L_corr/∂v.
MOMENTS = 8


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
            backends.warn_of_formulas(device.type)
        return fastest
    reason = backends.why_not(name, device.type)
    if reason is not None:
        raise RuntimeError(f"backend={name!r} cannot run on {device}: {reason}")
    return name


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


def fake_forward(
    z_e, z_t, z_s, alpha, beta_corr, beta_mi, log, want_e, want_t, want_s, tf32
):  # fmt: skip
    wide = torch.float64 if z_t.dtype == torch.float64 else torch.float32
    new = lambda *shape: z_t.new_empty(shape, dtype=wide)  # noqa: E731
    gram_input, want_gram_s = (z_e, want_e) if z_s is None else (z_s, want_s)
    return (
        new(),
        new(),
        new(),
        new(MOMENTS, z_t.shape[1]) if beta_corr and (want_e or want_t) else new(0),
        new(*gram_input.shape) if beta_mi and want_gram_s else new(0),
        new(*z_t.shape) if beta_mi and want_t else new(0),
    )


def fake_backward(
    g_total, g_correlation, g_mutual_information, z_e, z_t, z_s, moments, dgram_s, dgram_t,
    beta_corr, beta_mi, want_e, want_t, want_s,
):  # fmt: skip
    like = lambda z, want: z_t.new_empty(z.shape if want else 0)  # noqa: E731
    return like(z_e, want_e), like(z_t, want_t), like(z_s, want_s) if z_s is not None else z_t.new_empty(0)


# Definitions made from Python end with the object that made them.
_LIBRARIES: list[torch.library.Library] = []


def _register() -> dict[str, torch._ops._OpNamespace]:
    operators = {}
    for name in backends.WITH_OPERATORS:
        namespace = f"itrd_{name}"
        if backends.has_operators(name):
            if name == "triton":
                _LIBRARIES.append(backends.triton.register(FORWARD_SCHEMA, BACKWARD_SCHEMA))
            torch.library.register_fake(f"{namespace}::forward", fake_forward)
            torch.library.register_fake(f"{namespace}::backward", fake_backward)
            operators[name] = getattr(torch.ops, namespace)
    return operators


_OPERATORS = _register()
