"""From operator arguments to launches: workspace, grids, configurations. Nothing here reads a value from the device."""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from itrd_kernels import schema
from itrd_kernels.backends import emulated
from itrd_kernels.backends.triton import configurations, kernels, tuning
from itrd_kernels.backends.triton.correlation import PARTIALS
from itrd_kernels.backends.triton.records import Columns, Gradient, Rows, Scalars, Side, Upstream
from itrd_kernels.backends.triton.workspace import Workspace, half_range

INTERPRETING = emulated.interpreting()

# Triton's interpreter computes wrongly with bfloat16; tests that mend the interpreter turn this off.
widen_bfloat16 = INTERPRETING


def launch(kernel, programs: int, *arguments, **constants) -> None:
    """The one place from which every kernel starts; tests step in here."""
    tuning.tuned(kernel)[(programs,)](*arguments, **constants)


def forward(
    z_e: Tensor,
    z_t: Tensor,
    z_s: Tensor | None,
    alpha: float,
    beta_corr: float,
    beta_mi: float,
    log: bool,
    want_e: bool,
    want_t: bool,
    want_s: bool,
    tf32: bool,
) -> tuple[Tensor, ...]:
    """The operator `forward` of schema.py."""
    z_e, z_t = readable(z_e), readable(z_t)
    student, want_student = schema.gram_student(z_e, None if z_s is None else readable(z_s), want_e, want_s)
    want_gram = (beta_mi != 0 and want_student, beta_mi != 0 and want_t)
    step = _Forward(z_e, z_t, student, beta_corr != 0, beta_mi != 0, z_s is None, log, want_gram, tf32)
    factors = alpha, beta_corr, beta_mi
    with on_device(z_t.device):
        step.statistics()
        if log and step.gram:
            # c_s and c_st hold the sums of all tiles: the tiles are formed once for them and once for W.
            step.gram_tiles(0, step.tiles, factors, sums=True, keep=False)
        for first, last in step.panels if any(want_gram) or not (log and step.gram) else ():
            step.gram_tiles(first, last, factors, sums=not (log and step.gram), keep=True)
            if any(want_gram):
                step.gram_gradients(first, last)
    moments = step.columns.moments if step.columns.moments is not None and (want_e or want_t) else step.new(0)
    dgrams = (step.new(0) if side.gradient is None else side.gradient for side in (step.student, step.teacher))
    return *step.scalars[:3], moments, *dgrams


class _Forward(Workspace):
    """The workspace of a step and its three launches."""

    def __init__(
        self, z_e: Tensor, z_t: Tensor, z_s: Tensor, correlation: bool, gram: bool, shared: bool, log: bool,
        want_gram: tuple[bool, bool], tf32: bool,
    ) -> None:  # fmt: skip
        super().__init__(z_t, tf32)
        self.correlation, self.gram, self.shared, self.log = correlation, gram, shared, log
        self.n, d_t, d_s = *z_t.shape, z_s.shape[1]
        self.configuration = configurations.choose(self.n, z_t.dtype, self.precision, self.arch)
        block = self.configuration.gram_tiles.block
        self.tiles = triton.cdiv(self.n, block) if gram else 0
        self.padded = self.tiles * block
        copied = configurations.transposed(z_t.dtype, self.precision, self.arch, want_gram) if gram else (False, False)
        self.blocks = triton.cdiv(self.padded if any(copied) else self.n, self.configuration.statistics.rows)
        self.merges = triton.cdiv(d_t, configurations.MERGE_COLUMNS) if correlation else 0
        self.panels = configurations.panels(self.n, self.tiles, block, z_t.dtype, sum(want_gram), min(d_s, d_t))

        self.scalars = Scalars(self.new(), self.new(), self.new(), self.new(1, dtype=torch.int32))
        self.columns = Columns(
            z_e if correlation else None,
            z_e.stride(0),
            self.new(self.blocks, PARTIALS, d_t) if correlation else None,
            self.new(len(schema.MOMENT_ROWS), d_t) if correlation else None,
        )
        self.rows = Rows(
            self.new(4, self.blocks) if gram else None,
            self.new(2, tile_count(0, self.tiles, self.tiles)) if gram else None,
            self.new(2) if gram and log else None,
        )
        self.student, self.teacher = (
            self.side(z, copy, want) for z, copy, want in zip((z_s, z_t), copied, want_gram, strict=True)
        )

    def side(self, z: Tensor, copied: bool, wanted: bool) -> Side:
        width, block = z.shape[1], self.configuration.gram_tiles.block
        storage = max(tile_count(*panel, self.tiles) for panel in self.panels)
        return Side(
            z,
            width,
            z.stride(0),
            self.new(width, self.padded) if copied else None,
            self.new(2, self.n) if self.gram else None,
            half_range(width, z.dtype),
            self.new(storage, block, block, dtype=z.dtype) if wanted else None,
            self.new(storage, 2, block) if wanted else None,
            self.new(self.n) if wanted and len(self.panels) > 1 else None,
            self.new(self.n, width) if wanted else None,
        )

    def statistics(self) -> None:
        rows, columns, warps = self.configuration.statistics
        # Features that the correlation term reads need not be read again for their norms.
        read = not self.gram or (self.shared and self.correlation)
        launch(
            kernels.statistics, self.blocks,
            self.columns, self.student._replace(z=None) if read else self.student, self.teacher, self.rows,
            self.scalars.ticket, self.n, self.padded, self.blocks,
            CORRELATION=self.correlation, GRAM=self.gram, ROWS=rows, COLUMNS=columns,
            PRECISION=self.precision, ACC=self.accumulator, num_warps=warps, **self.limits,
        )  # fmt: skip

    def gram_tiles(self, first: int, last: int, factors: tuple[float, float, float], sums: bool, keep: bool) -> None:
        # The columns' moments are merged beside the first tiles.
        merges = self.merges if sums and first == 0 else 0
        summed = [(0, self.tiles)] if self.log else self.panels
        participants = self.merges + sum(tile_programs(*panel, self.tiles) for panel in summed)
        block, depth, warps, stages = self.configuration.gram_tiles
        sides = self.student, self.teacher
        launch(
            kernels.gram_tiles, merges + tile_programs(first, last, self.tiles),
            self.columns, *(sides if keep else (side._replace(weights=None) for side in sides)), self.rows,
            self.scalars, self.n, self.padded, self.blocks, first, last, self.tiles, merges, participants, *factors,
            CORRELATION=self.correlation and sums, GRAM=self.gram, LOG=self.log, SUMS=sums,
            ROWS=self.configuration.statistics.rows, BLOCKS=configurations.MERGE_BLOCKS,
            COLUMNS=configurations.MERGE_COLUMNS, BLOCK=block, DEPTH=depth, PRECISION=self.precision,
            ACC=self.accumulator, num_warps=warps, num_stages=stages, **self.limits,
        )  # fmt: skip

    def gram_gradients(self, first: int, last: int) -> None:
        columns, depth, warps, stages = self.configuration.gram_gradients
        sides = self.student, self.teacher
        column_blocks = sum(triton.cdiv(side.width, columns) for side in sides if side.weights is not None)
        launch(
            kernels.gram_gradients, column_blocks * (self.tiles - first),
            *sides, self.rows, self.n, self.padded, self.blocks, first, last, self.tiles,
            LOG=self.log, PANELS=len(self.panels) > 1, BLOCK=self.configuration.gram_tiles.block, COLUMNS=columns,
            DEPTH=depth, PRECISION=self.precision, ACC=self.accumulator, num_warps=warps, num_stages=stages,
            **self.limits,
        )  # fmt: skip


def tile_count(first: int, last: int, tiles: int) -> int:
    """Tiles (i, j ≥ i) with first ≤ i < last."""
    return (last - first) * (2 * tiles - first - last + 1) // 2


def tile_programs(first: int, last: int, tiles: int) -> int:
    """Programs for those tiles: block rows are taken in pairs; an odd one in the middle leaves some without a tile."""
    return (2 * tiles - first - last + 1) * triton.cdiv(last - first, 2)


def backward(
    g_total: Tensor | None,
    g_correlation: Tensor | None,
    g_mutual_information: Tensor | None,
    z_e: Tensor,
    z_t: Tensor,
    z_s: Tensor | None,
    moments: Tensor,
    dgram_s: Tensor,
    dgram_t: Tensor,
    beta_corr: float,
    beta_mi: float,
    want_e: bool,
    want_t: bool,
    want_s: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator `backward` of schema.py: one launch."""
    if widen_bfloat16 and z_t.dtype == torch.bfloat16:
        wide_s = None if z_s is None else z_s.float()
        wide = backward(
            g_total, g_correlation, g_mutual_information, z_e.float(), z_t.float(), wide_s, moments, dgram_s, dgram_t,
            beta_corr, beta_mi, want_e, want_t, want_s,
        )  # fmt: skip
        return wide[0].bfloat16(), wide[1].bfloat16(), wide[2].bfloat16()
    grads = schema.fake_backward(
        g_total, g_correlation, g_mutual_information, z_e, z_t, z_s, moments, dgram_s, dgram_t,
        beta_corr, beta_mi, want_e, want_t, want_s,
    )  # fmt: skip
    grad_e, grad_t, grad_s = (_unless_empty(grad) for grad in grads)
    correlation = beta_corr != 0
    dgram_e, d_s = _unless_empty(dgram_s), 0
    if z_s is not None:
        dgram_e, d_s = None, z_s.shape[1]
        if not correlation and grad_e is not None:
            # Nothing depends on z_e, and its width need not be d_t.
            grad_e.zero_()
            grad_e = None
    elif not correlation:
        # The Gram term's student, whose width need not be d_t, is z_e.
        dgram_e, grad_e, grad_s, d_s = None, None, grad_e, z_e.shape[1]
    z_e, z_t = readable(z_e), readable(z_t)
    n, d_t = z_t.shape
    rows, columns = configurations.GRADIENT_ROWS, configurations.GRADIENT_COLUMNS
    column_blocks = triton.cdiv(d_t, columns) if grad_e is not None or grad_t is not None else 0
    column_blocks += triton.cdiv(d_s, columns) if grad_s is not None else 0
    if column_blocks == 0:
        return grads
    with on_device(z_t.device):
        launch(
            kernels.gradients, triton.cdiv(n, rows) * column_blocks,
            Upstream(g_total, g_correlation, g_mutual_information),
            Gradient(z_e if correlation else None, z_e.stride(0), dgram_e, grad_e),
            Gradient(z_t if correlation else None, z_t.stride(0), _unless_empty(dgram_t), grad_t),
            Gradient(None, 0, _unless_empty(dgram_s), grad_s),
            moments if correlation else None, n, d_t, d_s, beta_corr, beta_mi,
            CORRELATION=correlation, ROWS=rows, COLUMNS=columns,
            ACC=tl.float64 if z_t.dtype == torch.float64 else tl.float32,
            **configurations.limits(configurations.architecture(z_t.device)),
        )  # fmt: skip
    return grads


def _unless_empty(tensor: Tensor) -> Tensor | None:
    return tensor if tensor.numel() else None


def readable(z: Tensor) -> Tensor:
    """z with unit stride along a row, which bfloat16 under the interpreter leaves as float32."""
    if widen_bfloat16 and z.dtype == torch.bfloat16:
        z = z.float()
    return z if z.stride(1) == 1 else z.contiguous()


def on_device(device: torch.device):
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
