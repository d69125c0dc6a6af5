"""Opt-in tuning: with ITRD_TUNE=1 Triton times a few configurations on first use of a shape, and keeps the best.

What the tables of configurations.py fix for the layout of the workspace (BLOCK, ROWS) stays; warps, stages and the
depth of a step are tried. Different machines may choose differently, and so differ in the last bits of a result.
"""

import functools
import os

import triton

TUNING = os.environ.get("ITRD_TUNE") == "1"


@functools.cache
def tuned(kernel):
    """The kernel itself, or its tuned form."""
    if not TUNING:
        return kernel
    return _FORMS.get(kernel.fn.__name__, lambda kernel: kernel)(kernel)


def _autotune(kernel, depths, key, **restore):
    configs = [
        triton.Config({"DEPTH": depth}, num_warps=warps, num_stages=stages)
        for depth in depths
        for warps in (4, 8)
        for stages in (2, 3, 4)
    ]
    return _Free(triton.autotune(configs, key=key, cache_results=True, **restore)(kernel))


class _Free:
    """Drops the table's choice of what is tuned."""

    def __init__(self, tuner) -> None:
        self.tuner = tuner

    def __getitem__(self, grid):
        def launch(*arguments, DEPTH, num_warps, num_stages, **constants):
            return self.tuner[grid](*arguments, **constants)

        return launch


_FORMS = {
    # A trial takes tickets, which the next one must not find.
    "potential_kernel": lambda kernel: _autotune(
        kernel, (16, 32, 64), ["d_t", "d_s", "BLOCK", "KEEP_S", "KEEP_T"], reset_to_zero=["ticket"]
    ),
    "product_kernel": lambda kernel: _autotune(
        kernel,
        (16, 32),
        ["d_t", "d_s", "BLOCK", "KEEP_S", "KEEP_T"],
        restore_value=["out_s", "out_t", "carried_s", "carried_t"],
    ),
}
