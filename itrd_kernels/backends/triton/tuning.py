"""Opt-in tuning: with ITRD_TUNE=1 Triton times a few configurations on first use of a shape, and keeps the best.

What the tables of configurations.py fix for the layout of the workspace (BLOCK, ROWS) stays; warps, stages and the
depth of a step are tried. Different machines may choose differently, and so differ in the last bits of a result.
"""

import functools
import os

import triton
from torch import Tensor

from itrd_kernels.backends.triton.records import Scalars, Side

TUNING = os.environ.get("ITRD_TUNE") == "1"


@functools.cache
def tuned(kernel):
    """The kernel itself, or its tuned form."""
    if not TUNING or kernel.fn.__name__ not in _DEPTHS:
        return kernel
    return _Tuned(kernel, _DEPTHS[kernel.fn.__name__])


_DEPTHS = {"gram_tiles": (16, 32, 64), "gram_gradients": (16, 32)}


class _Tuned:
    """A kernel whose DEPTH, warps and stages Triton's tuner chooses, whatever the table says of them."""

    def __init__(self, kernel, depths: tuple[int, ...]) -> None:
        configs = [
            triton.Config({"DEPTH": depth}, num_warps=warps, num_stages=stages)
            for depth in depths
            for warps in (4, 8)
            for stages in (2, 3, 4)
        ]
        self.copies: list[tuple[Tensor, Tensor]] = []
        self.tuner = triton.autotune(
            configs, key=["BLOCK", "PRECISION", "TUNED_FOR"], pre_hook=self._keep, post_hook=self._restore,
            cache_results=True,
        )(kernel)  # fmt: skip

    def __getitem__(self, grid):
        def launch(*arguments, DEPTH, num_warps, num_stages, **constants):
            return self.tuner[grid](*arguments, TUNED_FOR=_shapes(arguments), **constants)

        return launch

    def _keep(self, arguments, reset_only=False):
        """Copies of what a launch reads and overwrites: a trial must leave it as it found it."""
        if not reset_only:
            self.copies = [(tensor, tensor.clone()) for tensor in _updated(arguments.values())]

    def _restore(self, arguments, exception):
        for tensor, copy in self.copies:
            tensor.copy_(copy)
        self.copies = []


def _shapes(arguments) -> str:
    """What a choice holds for: the sides' widths and dtype, and whose gradients are kept."""
    sides = [argument for argument in arguments if isinstance(argument, Side)]
    return " ".join(f"{side.width} {side.z.dtype} {side.weights is not None}" for side in sides)


def _updated(arguments) -> list[Tensor]:
    """Tickets, which programs take, also those of a panel before this one; sums that grow from panel to panel."""
    found = []
    for argument in arguments:
        if isinstance(argument, Scalars):
            found.append(argument.ticket)
        if isinstance(argument, Side):
            found += [argument.gradient, argument.partial_projection]
    return [tensor for tensor in found if tensor is not None]
