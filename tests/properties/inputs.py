"""Hard inputs as records that hypothesis draws and shrinks: what is special about them stands in the record, and the
bulk of their numbers comes from its seed. `Case(...)` as it is printed can be pasted into a test, or an interpreter."""

from dataclasses import dataclass, field, fields
from typing import Any, cast

import torch
from hypothesis import strategies as st
from losses import LOSSES, Loss, Settings
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Powers of ten that features are scaled by, as far as the type holds them.
EXPONENTS = {torch.float16: (-6, 4)}
ALL_EXPONENTS = (-30, 30)

VALUES = {
    "normal": lambda z: z,
    "relu": lambda z: z.relu(),
    "heavy tails": lambda z: z**5,
    "whole numbers": lambda z: (2 * z).round().clamp(-4, 4),
    "alike": torch.ones_like,
}
RELATIONS = ("unrelated", "related", "near", "opposite", "equal")


class Record:
    """Shows what differs from the defaults, as what makes it again."""

    def __repr__(self) -> str:
        said = {f.name: getattr(self, f.name) for f in fields(cast(Any, self)) if getattr(self, f.name) != f.default}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in said.items())})"

    def _repr_pretty_(self, printer, cycle) -> None:
        """What hypothesis prints."""
        printer.text(repr(self))


@dataclass(frozen=True, repr=False)
class Features(Record):
    """One input of a loss (n, d): random `values`, changed by the rest in the order given here.

    Args:
        shift: the means of columns in their standard deviations, of either sign.
        scale, row_scales, column_scales: the power of ten of all, and the largest by which rows and columns differ.
        outliers: (row, column, power of ten by which the entry is larger).
        copies, zero_rows, dead_columns: rows that are the first one again, rows that are zero, columns that are alike.
        layout: how it lies in memory; see LAYOUTS.
    """

    d: int
    values: str = "normal"
    shift: float = 0.0
    scale: int = 0
    row_scales: int = 0
    column_scales: int = 0
    outliers: tuple[tuple[int, int, int], ...] = ()
    copies: tuple[int, ...] = ()
    zero_rows: tuple[int, ...] = ()
    dead_columns: tuple[int, ...] = ()
    layout: str = "contiguous"

    def of(self, z: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        """The features from normal numbers (n, d) in float64."""
        n, d = z.shape

        def powers(most: int, *shape: int) -> Tensor:
            return torch.randint(-most, most + 1, shape, generator=generator)

        z = VALUES[self.values](z) + self.shift * torch.randn(d, generator=generator, dtype=z.dtype).sign()
        exponents = self.scale + powers(self.row_scales, n, 1) + powers(self.column_scales, 1, d)
        for row, column, power in self.outliers:
            exponents[row, column % d] += power
        z = z * 10.0 ** exponents.clamp(*EXPONENTS.get(dtype, ALL_EXPONENTS))
        most = torch.finfo(dtype).max
        z[list(self.copies)] = z[0].clone()
        z[list(self.zero_rows)] = 0
        for column in self.dead_columns:
            z[:, column % d] = z[0, column % d].clone()
        return LAYOUTS[self.layout](z.clamp(-most, most).to(dtype))


def _inside(z: Tensor, rows: int = 1, columns: int = 1) -> Tensor:
    """Every so many rows and columns of a larger tensor that is NaN elsewhere."""
    n, d = z.shape
    large = torch.full((rows * n + 3, columns * d + 5), torch.nan, dtype=z.dtype)
    view = large[2 : 2 + rows * n : rows, 3 : 3 + columns * d : columns]
    return view.copy_(z)


def _negated(z: Tensor) -> Tensor:
    """A view with PyTorch's negative bit, for the types that have complex numbers."""
    if z.dtype == torch.bfloat16:
        return z
    return torch.complex(torch.zeros_like(z), -z).conj().imag


LAYOUTS = {
    "contiguous": lambda z: z,
    "transposed": lambda z: z.T.contiguous().T,
    "slice": _inside,
    "steps": lambda z: _inside(z, 2, 3),
    "rows in steps": lambda z: _inside(z, 3),
    "transposed steps": lambda z: _inside(z.T, 2).T,
    "flipped": lambda z: z.flip(0, 1),
    "one row": lambda z: z[:1].expand(z.shape),
    "one column": lambda z: z[:, :1].expand(z.shape),
    "overlapping": lambda z: z.contiguous().as_strided(z.shape, (max(1, z.shape[1] // 2), 1)),
    "negated": _negated,
}


@dataclass(frozen=True, repr=False)
class Case(Record):
    """Everything that a run of a loss depends on, but the backend.

    Args:
        inputs: the student's, the teacher's and perhaps the student's raw features.
        relation: of the teacher to the student, where they are of one width.
        want: whose gradients are wanted; what is more than the inputs counts for nothing.
        upstream: the factor of the gradients.
        threads: PyTorch's, of kernels on CPUs.
    """

    loss: str
    n: int
    inputs: tuple[Features, ...]
    dtype: torch.dtype = torch.float32
    relation: str = "unrelated"
    settings: Settings = field(default_factory=dict)
    want: tuple[bool, ...] = (True, True, True)
    upstream: float = 1.0
    threads: int = 1
    seed: int = 0

    def tensors(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        normal = [torch.randn(self.n, z.d, generator=generator, dtype=torch.float64) for z in self.inputs]
        if normal[0].shape == normal[1].shape:
            student, own = normal[:2]
            normal[1] = {
                "unrelated": own,
                "related": student + own,
                "near": student + 1e-3 * own,
                "opposite": -student,
                "equal": student,
            }[self.relation]
        return [z.of(x, self.dtype, generator) for z, x in zip(self.inputs, normal, strict=True)]


def _or(default, strategy):
    """Every other time the default, so that a case has a few things special about it and not all."""
    return st.just(default) | strategy


def sizes(smallest: int, largest: int):
    edges = [size for size in (2, 3, 16, 17, 32, 33, 64, 65, 128, 129, 208, 256, 257) if smallest <= size <= largest]
    return st.integers(smallest, 9) | st.integers(smallest, largest) | st.sampled_from(edges)


@st.composite
def features(draw, n: int, d: int, exact: bool) -> Features:
    """Of one input; with `exact`, such as a few bits hold and go on holding when invariances.py changes them."""
    rows = st.lists(st.integers(0, n - 1), max_size=3, unique=True).map(tuple)
    columns = st.lists(st.integers(0, d - 1), max_size=3, unique=True).map(tuple)
    special = {"zero_rows": _or((), rows), "copies": _or((), rows), "dead_columns": _or((), columns)}
    if not exact:
        powers = _or(0, st.integers(0, 30))
        special |= {
            "values": _or("normal", st.sampled_from(list(VALUES))),
            "shift": _or(0.0, st.sampled_from([1.0, 30.0, 1e3, 1e4])),
            "scale": _or(0, st.integers(*ALL_EXPONENTS)),
            "row_scales": powers,
            "column_scales": powers,
            "outliers": _or(
                (), st.lists(st.tuples(*[st.integers(0, k - 1) for k in (n, d, 26)]), max_size=2).map(tuple)
            ),
            "layout": _or("contiguous", st.sampled_from(list(LAYOUTS))),
        }
    else:
        special["values"] = st.just("whole numbers")
    return Features(d, **{name: draw(strategy) for name, strategy in special.items()})


@st.composite
def cases(draw, name: str, largest: int, exact: bool = False) -> Case:
    """Cases of a loss with at most so many rows and columns."""
    loss: Loss = LOSSES[name]
    settings = {key: draw(strategy) for key, strategy in loss.settings.items()}
    n = draw(sizes(2, largest))
    widths = [draw(sizes(1, largest))]
    widths.append(widths[0] if loss.same_width(settings) else draw(sizes(1, largest)))
    if loss.raw and draw(st.booleans()):
        widths.append(draw(sizes(1, largest)))
    return Case(
        loss=name,
        n=n,
        inputs=tuple(draw(features(n, d, exact)) for d in widths),
        dtype=draw(st.sampled_from(DTYPES)),
        relation=draw(st.sampled_from(RELATIONS)),
        settings=settings,
        want=tuple(not draw(st.booleans()) for _ in widths),
        upstream=draw(st.sampled_from([1.0, -2.5, 2.0**16, 2.0**-10])),
        threads=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 2**16)),
    )
