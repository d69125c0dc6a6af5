"""Opt-in tuning: with ITRD_TUNE=1 Triton times a few configurations on first use of a shape, and keeps the best.

What the tables of configurations.py fix for the layout of the workspace (BLOCK, ROWS) stays; warps, stages and the
depth of a step are tried. Different machines may choose differently, and so differ in the last bits of a result.
"""

import functools
import os

import triton

TUNING = os.environ.get("ITRD_TUNE") == "1"

SHAPE = ("d_t", "d_s", "BLOCK", "KEEP_S", "KEEP_T", "PRECISION")


@functools.cache
def tuned(kernel):
    """The kernel itself, or its tuned form."""
    if not TUNING:
        return kernel
    return _FORMS.get(kernel.fn.__name__, lambda kernel: kernel)(kernel)


def _autotune(kernel, depths, updated):
    """`updated` are the arguments that a launch reads and overwrites: a trial must leave them as it found them."""
    configs = [
        triton.Config({"DEPTH": depth}, num_warps=warps, num_stages=stages)
        for depth in depths
        for warps in (4, 8)
        for stages in (2, 3, 4)
    ]
    copies = {}

    # Triton's own `restore_value` fails on arguments that are None before Triton 3.8.
    def keep(arguments, reset_only=False):
        if not reset_only:
            copies.update({name: arguments[name].clone() for name in updated if arguments[name] is not None})

    def restore(arguments, exception):
        for name, value in copies.items():
            arguments[name].copy_(value)
        copies.clear()

    return _Free(
        triton.autotune(configs, key=list(SHAPE), pre_hook=keep, post_hook=restore, cache_results=True)(kernel)
    )


class _Free:
    """Drops the table's choice of what is tuned."""

    def __init__(self, tuner) -> None:
        self.tuner = tuner

    def __getitem__(self, grid):
        def launch(*arguments, DEPTH, num_warps, num_stages, **constants):
            return self.tuner[grid](*arguments, **constants)

        return launch


_FORMS = {
    # Programs take tickets, also those of a panel before this one.
    "potential_kernel": lambda kernel: _autotune(kernel, (16, 32, 64), ("ticket",)),
    "product_kernel": lambda kernel: _autotune(kernel, (16, 32), ("out_s", "out_t", "carried_s", "carried_t")),
}
