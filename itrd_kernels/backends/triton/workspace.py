"""What every operator's launches have in common: types, precision, and where memory comes from."""

import math

import torch
import triton.language as tl
from torch import Tensor

from itrd_kernels.backends.triton import configurations


class Workspace:
    """Uninitialised memory on the device of `like`, and what its features' dtype and architecture decide."""

    def __init__(self, like: Tensor, tf32: bool) -> None:
        self.like = like
        self.arch = configurations.architecture(like.device)
        self.precision = configurations.precision(like.dtype, tf32, self.arch)
        self.limits = configurations.limits(self.arch)
        self.wide = torch.promote_types(like.dtype, torch.float32)

    def new(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return self.like.new_empty(shape, dtype=dtype or self.wide)

    @property
    def accumulator(self):
        return tl.float64 if self.wide == torch.float64 else tl.float32


def half_range(width: int, dtype: torch.dtype) -> float:
    """K of gram.py: about ‖z‖² of rows with entries of order one."""
    return 4.0 ** round(math.log(width, 4)) if dtype == torch.float16 else 1.0
