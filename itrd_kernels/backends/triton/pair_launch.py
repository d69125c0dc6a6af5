"""The launches of the operator `gram`, as launch.py does those of `forward` and `backward`."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from itrd_kernels import schema
from itrd_kernels.backends.triton import configurations, launch, pair_kernels
from itrd_kernels.backends.triton.losses import LOSSES, PairLoss
from itrd_kernels.backends.triton.records import PairRows, Side
from itrd_kernels.backends.triton.workspace import Workspace, half_range


def gram(
    z_s: Tensor,
    z_t: Tensor,
    other_s: Tensor | None,
    other_t: Tensor | None,
    offset: int,
    keep: Tensor | None,
    other_keep: Tensor | None,
    loss: str,
    parameters: Sequence[float],
    coefficients: Tensor | None,
    statistics: Tensor | None,
    other_statistics: Tensor | None,
    want_s: bool,
    want_t: bool,
    tf32: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator `gram` of schema.py: `pair_statistics`, and per panel of W `pair_tiles` and `pair_gradients`.

    A loss whose V can leave the range of float16 takes such features in float32. Their products run in TF32, which
    holds them exactly.
    """
    found = LOSSES.get(loss)
    schema.check_gram(
        loss, found and found.traits, z_s, z_t, other_s, other_t, offset, keep, other_keep, parameters, coefficients,
        statistics, other_statistics,
    )  # fmt: skip
    assert found is not None
    outputs = schema.fake_gram(
        z_s, z_t, other_s, other_t, offset, keep, other_keep, loss, parameters, coefficients, statistics,
        other_statistics, want_s, want_t, tf32,
    )  # fmt: skip
    own = _RowsOf(z_s, z_t, keep, statistics)
    other = None if other_s is None or other_t is None else _RowsOf(other_s, other_t, other_keep, other_statistics)
    if len((other or own).z_t) == 0:
        for output in outputs:
            output.zero_()
        return outputs
    widened = z_t.dtype == torch.float16 and not found.fits_float16
    own, other = own.prepared(widened), other and other.prepared(widened)
    with launch.on_device(z_t.device):
        _Sweep(own, other, offset, found, parameters, coefficients, outputs, tf32 or widened).run()
    return outputs


class _RowsOf(NamedTuple):
    """Own rows or column rows: features (n, d_s) and (n, d_t), which of them count, their statistics (2, n)."""

    z_s: Tensor
    z_t: Tensor
    keep: Tensor | None
    statistics: Tensor | None

    def prepared(self, widened: bool) -> "_RowsOf":
        """With unit stride along a row, and one after another what there is one of for each row."""
        z_s, z_t = ((z.float() if widened else z) for z in self[:2])
        keep, statistics = (None if x is None else x.contiguous() for x in self[2:])
        return _RowsOf(launch.readable(z_s), launch.readable(z_t), keep, statistics)


class _Sweep(Workspace):
    """The workspace of a sweep and its launches."""

    def __init__(
        self, own: _RowsOf, other: _RowsOf | None, offset: int, loss: PairLoss, parameters: Sequence[float],
        coefficients: Tensor | None, outputs: tuple[Tensor, ...], tf32: bool,
    ) -> None:  # fmt: skip
        super().__init__(own.z_t, tf32)
        result, *dgrams, row_sums = outputs
        self.rectangle, self.offset, self.loss = other is not None, offset, loss
        self.parameters = (*parameters, 0.0, 0.0)[:2]
        columns = other or own
        self.n, self.m = len(own.z_t), len(columns.z_t)
        self.configuration = configurations.choose_pairs(
            math.isqrt(self.n * self.m), self.like.dtype, self.precision, self.arch, loss.pressure
        )
        self.block = self.configuration.gram_tiles.block
        # Block rows of own rows, and block columns.
        self.height, self.tiles = triton.cdiv(self.n, self.block), triton.cdiv(self.m, self.block)
        self.padded = max(self.height, self.tiles) * self.block
        want, self.row_sums = (dgrams[0].dim() == 2, dgrams[1].dim() == 2), row_sums.dim() == 2
        narrow = min(own.z_s.shape[1], own.z_t.shape[1])
        limit = self.block, self.like.dtype, sum(want), narrow, self.row_sums
        if self.rectangle:
            self.panels = configurations.strips(self.m, self.height, self.tiles, *limit)
        else:
            self.panels = configurations.panels(self.n, self.tiles, *limit)
        # A triangle's block rows are finished by a later panel than the one that begins them.
        self.carries = not self.rectangle and len(self.panels) > 1

        copied = configurations.transposed(self.like.dtype, self.precision, self.arch, want)
        # What the gradients read transposed is column rows alone.
        own_copied = copied if not self.rectangle or self.precision == "ieee" else (False, False)
        self.column_blocks = self.blocks_of(self.m, any(copied))
        self.own_blocks = self.blocks_of(self.n, any(own_copied)) if self.rectangle else 0
        self.student, self.teacher = (
            self.with_tiles(side, dgram) for side, dgram in zip(self.sides(own, own_copied), dgrams, strict=True)
        )
        self.others = self.sides(columns, copied) if self.rectangle else [self.student, self.teacher]
        self.rows = PairRows(
            self.new(4, self.column_blocks),
            self.new(2, self.tiles_of(0, self.height)),
            None if coefficients is None else coefficients.contiguous(),
            row_sums if self.row_sums else None,
            result,
            self.new(1, dtype=torch.int32),
        )

    def tiles_of(self, first: int, last: int) -> int:
        """Tiles of the block rows first ≤ i < last."""
        return (last - first) * self.tiles if self.rectangle else launch.tile_count(first, last, self.tiles)

    def programs_of(self, first: int, last: int) -> int:
        """Programs for those tiles; one at least, which writes the sums where there are no own rows."""
        return max(1, self.tiles_of(first, last)) if self.rectangle else launch.tile_programs(first, last, self.tiles)

    def blocks_of(self, n: int, copied: bool) -> int:
        """Programs of `pair_statistics` for n rows; a transposed copy is zero up to the end of its last tile."""
        return triton.cdiv(triton.cdiv(n, self.block) * self.block if copied else n, self.configuration.statistics.rows)

    def sides(self, rows: _RowsOf, copied: tuple[bool, bool]) -> list[Side]:
        """Student and teacher of own or column rows, without what belongs to gradients."""
        return [
            Side(
                z,
                z.shape[1],
                z.stride(0),
                self.new(z.shape[1], self.padded) if copy else None,
                self.new(2, len(z)),
                half_range(z.shape[1], z.dtype),
                None,
                None,
                None,
                None,
                rows.keep,
                None if rows.statistics is None else rows.statistics[index],
            )
            for index, (z, copy) in enumerate(zip(rows[:2], copied, strict=True))
        ]

    def with_tiles(self, side: Side, dgram: Tensor) -> Side:
        """Own rows with the tiles of a panel, where their gradient is wanted, and what tiles leave of row sums."""
        storage = max(self.tiles_of(*panel) for panel in self.panels)
        shares = storage, 2, self.block
        if dgram.dim() == 2:
            side = side._replace(
                weights=self.new(storage, self.block, self.block, dtype=self.like.dtype),
                projections=self.new(*shares),
                partial_projection=self.new(self.n) if self.carries else None,
                gradient=dgram,
            )
        return side._replace(row_shares=self.new(*shares)) if self.row_sums else side

    def run(self) -> None:
        self.statistics()
        for first, last in self.panels:
            self.pair_tiles(first, last)
            if self.n and (self.student.weights is not None or self.teacher.weights is not None):
                self.pair_gradients(first, last)

    @property
    def records(self) -> tuple[Side, ...]:
        return self.student, self.teacher, *self.others

    def statistics(self) -> None:
        rows, columns, warps = self.configuration.statistics
        launch.launch(
            pair_kernels.pair_statistics, self.column_blocks + self.own_blocks,
            *self.records, self.rows, self.n, self.m, self.padded, self.column_blocks,
            RECTANGLE=self.rectangle, ROWS=rows, COLUMNS=columns, PRECISION=self.precision, ACC=self.accumulator,
            num_warps=warps, **self.limits,
        )  # fmt: skip

    def pair_tiles(self, first: int, last: int) -> None:
        block, depth, warps, stages = self.configuration.gram_tiles
        participants = sum(self.programs_of(*panel) for panel in self.panels)
        launch.launch(
            pair_kernels.pair_tiles, self.programs_of(first, last),
            *self.records, self.rows, self.n, self.m, self.offset, self.padded, self.column_blocks, first, last,
            self.tiles, participants, *self.parameters,
            LOSS=self.loss.entries, COEFFICIENTS=self.loss.coefficients, FACTORED=self.loss.factored,
            ONE_SIDED=self.loss.traits.one_sided, RECTANGLE=self.rectangle, BLOCK=block, DEPTH=depth,
            PRECISION=self.precision, ACC=self.accumulator, num_warps=warps, num_stages=stages, **self.limits,
        )  # fmt: skip

    def pair_gradients(self, first: int, last: int) -> None:
        columns, depth, warps, stages = self.configuration.gram_gradients
        sides = self.student, self.teacher
        programs = sum(triton.cdiv(side.width, columns) for side in sides if side.weights is not None) + self.row_sums
        launch.launch(
            pair_kernels.pair_gradients, programs * ((last if self.rectangle else self.tiles) - first),
            *self.records, self.rows, self.n, self.m, self.padded, self.column_blocks, first, last, self.tiles,
            *self.parameters,
            COEFFICIENTS=self.loss.coefficients, FACTORED=self.loss.factored, RECTANGLE=self.rectangle,
            PANELS=self.carries, BLOCK=self.block, COLUMNS=columns, DEPTH=depth, PRECISION=self.precision,
            ACC=self.accumulator, num_warps=warps, num_stages=stages, **self.limits,
        )  # fmt: skip
