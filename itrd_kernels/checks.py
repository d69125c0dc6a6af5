"""Argument checks: every message names the argument, what came, what is expected and, if there is one, the remedy."""

import math
import numbers
import sys

import torch
from torch import Tensor, nn

from itrd_kernels.autocast import autocasts
from itrd_kernels.backends import NAMES

BACKENDS = ("auto", *NAMES)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def positive(name: str, value: float) -> float:
    if not _is_number(value):
        raise TypeError(f"{name} must be a number, got {_describe(value)}")
    if not (value > 0 and _is_finite(value)):
        raise ValueError(f"{name} must be finite and > 0, got {value}")
    return float(value)


def alpha(value: float) -> float:
    return positive("alpha", value)


def weight(name: str, value: float) -> float:
    if not _is_number(value):
        raise TypeError(f"{name} must be a number, got {_describe(value)}")
    if not (value >= 0 and _is_finite(value)):
        raise ValueError(f"{name} must be finite and ≥ 0, got {value}")
    return float(value)


def dimension(name: str, value: int) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {_describe(value)}")
    if value < 1:
        raise ValueError(f"{name} must be ≥ 1, got {value}")
    return int(value)


def polynomial_kernel(value: tuple[float, int]) -> tuple[float, float]:
    """(c, p) of the kernel (g + c)^p as the operator takes it."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"kernel must be a pair (c, p) or None, got {_describe(value)}")
    c, p = weight("c of kernel", value[0]), dimension("p of kernel", value[1])
    if p > 3:
        raise ValueError(f"p of kernel must be 1, 2 or 3, got {p}")
    return c, float(p)


def flag(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {_describe(value)}")
    return value


def backend_name(value: str) -> str:
    if value not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, got {value!r}")
    return value


def embedding(value: nn.Module, student_dim: int, teacher_dim: int) -> nn.Module:
    if not isinstance(value, nn.Module):
        raise TypeError(f"embed must be a torch.nn.Module or None, got {_describe(value)}")
    if type(value) is nn.Linear and (value.in_features, value.out_features) != (student_dim, teacher_dim):
        raise ValueError(
            f"embed must map student_dim = {student_dim} to teacher_dim = {teacher_dim} features, "
            f"got {value.in_features} to {value.out_features}"
        )
    return value


def embedding_matches(embed: nn.Module, z_s: Tensor) -> None:
    """Refuse a dtype or device that the default embedding would reject with a message about matrices."""
    # Subclasses, hooks and replaced methods may cast, unpack or fetch the weight, of which its storage says nothing.
    if type(embed) is not nn.Linear or embed._forward_pre_hooks:
        return
    if embed.weight.dtype == z_s.dtype and embed.weight.device == z_s.device:
        return
    if nn.modules.module._global_forward_pre_hooks or "forward" in vars(embed):
        return
    # Autocast brings the two together, but for float64, which it leaves alone.
    casts = autocasts(z_s.device.type) and torch.float64 not in (embed.weight.dtype, z_s.dtype)
    if embed.weight.dtype != z_s.dtype and not casts:
        raise TypeError(
            f"z_s is {z_s.dtype} but the criterion's embedding is {embed.weight.dtype}: "
            f"call criterion.to({z_s.dtype}), or run under torch.autocast"
        )
    if embed.weight.device != z_s.device:
        raise RuntimeError(
            f"z_s is on {z_s.device} but the criterion's embedding is on {embed.weight.device}: "
            f"call criterion.to({str(z_s.device)!r})"
        )


def features(name: str, z: Tensor, width: int | None = None, width_name: str = "") -> None:
    """z must be a dense real floating-point tensor (n ≥ 2, d ≥ 1), of width d = `width` if one is given."""
    if not isinstance(z, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {_describe(z)}")
    # Plain tensors, by far the most common, skip the look at rarer kinds.
    if type(z) is not Tensor and type(z).__name__ == "DTensor":
        raise TypeError(f"{name} is a DTensor; pass {name}.to_local() for the loss of the local rows")
    if z.is_nested:
        raise TypeError(f"{name} must be a dense tensor, got a nested one: pad or concatenate its parts")
    if z.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got layout {z.layout}: call {name}.to_dense()")
    if z.dtype not in DTYPES:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {z.dtype}")
    shape = z.shape
    if len(shape) != 2:
        raise ValueError(f"{name} must have shape (n, d), got {_shape(z)}: flatten or pool the features first")
    n, d = shape
    if n < 2:
        raise ValueError(f"{name} must hold n ≥ 2 samples, got shape {_shape(z)}: use drop_last=True in the loader")
    if d < 1:
        raise ValueError(f"{name} must hold d ≥ 1 features, got shape {_shape(z)}")
    if width is not None and d != width:
        raise ValueError(f"{name} must have {width_name} = {width} features, got shape {_shape(z)}")


def same_batch(name: str, z: Tensor, z_t: Tensor, *, same_width: bool) -> None:
    """z and z_t must agree in n and device, and with `same_width` in d."""
    (n, d), (n_t, d_t) = z.shape, z_t.shape
    if n != n_t:
        raise ValueError(f"{name} and z_t must hold the same n samples, got shapes {_shape(z)} and {_shape(z_t)}")
    if same_width and d != d_t:
        raise ValueError(
            f"{name} and z_t must have the same width d, got shapes {_shape(z)} and {_shape(z_t)}: "
            f"embed the student's features first, as FusedITRDLoss does"
        )
    if z.device != z_t.device:
        raise RuntimeError(f"{name} and z_t must be on one device, got {z.device} and {z_t.device}")


def same_dtype(*named: tuple[str, Tensor]) -> None:
    if len({z.dtype for _, z in named}) > 1:
        got = ", ".join(f"{name} {z.dtype}" for name, z in named)
        raise TypeError(f"the inputs must have one dtype, got {got}: cast one, or run under torch.autocast")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, numbers.Real))


def _is_finite(value: float) -> bool:
    # math.isfinite would break the graphs in which torch.compile makes a symbol of the number.
    return -math.inf < value < math.inf and not (isinstance(value, int) and value > sys.float_info.max)


def _shape(z: Tensor) -> tuple[int, ...]:
    return tuple(z.shape)


def _describe(value: object) -> str:
    return f"{value!r} of type {type(value).__name__}"
