"""What is compared on a GPU, each as one training step of both terms; and the inputs, made on the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.gpu.plan import FUSED
from itrd_kernels import FusedITRDLoss

Run = Callable[[], object]
# (kind, n, d)
Cell = tuple[str, int, int]

# torch.compile's modes, as contenders; `reduce-overhead` captures graphs of its own.
COMPILED = {
    "compiled": None,
    "compiled max-autotune": "max-autotune-no-cudagraphs",
    "compiled reduce-overhead": "reduce-overhead",
}

# {kind: (dtype, whether float32 products may use tf32)}
KINDS = {
    "float64": (torch.float64, False),
    "float32": (torch.float32, False),
    "tf32": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
    "float16": (torch.float16, False),
}

# The cells of the grid: every n and d in bfloat16 and float32, eight of them in the other two.
SIZES, WIDTHS = (64, 256, 1024, 4096, 16384), (128, 512, 2048, 4096)
OTHER_KINDS = ((64, 128), (64, 512), (256, 512), (256, 2048), (1024, 512), (1024, 2048), (4096, 512), (4096, 2048))
COMPILED_CELLS = tuple(
    (kind, n, d)
    for kind in ("bfloat16", "float32")
    for n, d in ((64, 128), (64, 512), (256, 512), (1024, 512), (4096, 512), (4096, 2048))
)
MODES_CELLS = (("bfloat16", 64, 128), ("bfloat16", 256, 512), ("bfloat16", 4096, 512), ("float32", 256, 512))
# Autotuning takes most of a minute a cell, in which eight cells of other contenders are measured.
AUTOTUNED_CELLS = MODES_CELLS[:1]
REHEARSED_CELLS = (("float32", 16, 32), ("tf32", 40, 24))
FIRST_CELLS = tuple((kind, n, d) for kind in ("bfloat16", "float32") for n, d in ((64, 128), (1024, 512), (4096, 2048)))


def all_cells() -> list[Cell]:
    """The grid of times, the cheapest cells first."""
    cells = [(kind, n, d) for kind in ("bfloat16", "float32") for n in SIZES for d in WIDTHS]
    cells += [(kind, n, d) for kind in ("float16", "tf32") for n, d in OTHER_KINDS]
    return sorted(cells, key=lambda cell: (cell[1] ** 2 * cell[2] * (1 + 9 * (cell[0] == "float32")), cell))


@contextmanager
def precision(kind: str) -> Iterator[None]:
    """float32 products in tf32 for that kind, and in float32 for all others."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = KINDS[kind][1]
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def features(n: int, d: int, dtype: torch.dtype, device: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Student features, which require a gradient, and teacher features, both (n, d), correlated."""
    generator = torch.Generator(device).manual_seed(seed)
    common, s, t = (torch.randn(n, d, generator=generator, device=device) for _ in range(3))
    return (0.7 * common + s).to(dtype).requires_grad_(), (0.7 * common + t).to(dtype)


def loss(name: str, d: int, *, rehearse: bool = False) -> peers.Loss:
    """A contender's loss for features of width d. One that is compiled is a fresh function: `reset` before the cell."""
    if name in FUSED:
        return FusedITRDLoss(d, d, peers.BETA_CORR, peers.BETA_MI, peers.ALPHA, embed=nn.Identity(), backend=name)
    if name == "plain":
        return peers.plain(d)
    # A rehearsal traces the formula, and leaves out what takes a compiler half a minute.
    options = {"backend": "aot_eager"} if rehearse else {"mode": COMPILED[name]}
    return torch.compile(peers.plain(d), dynamic=False, **options)


def reset() -> None:
    """Forget what was compiled: past eight shapes Dynamo would give up, and run the plain formula in its place."""
    torch.compiler.reset()


@contextmanager
def counted(row: dict) -> Iterator[None]:
    """Into the row: whether what is compiled within it is one graph, as Dynamo counts them."""
    counters = torch._dynamo.utils.counters
    counters.clear()
    yield
    graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    row |= {"graphs": graphs, "graph_breaks": breaks, "fell_back": graphs != 1 or breaks > 0}
    if counters["inductor"]["cudagraph_skips"]:
        row["cudagraph_skips"] = counters["inductor"]["cudagraph_skips"]


def step(function: peers.Loss, z_s: Tensor, z_t: Tensor) -> Run:
    """Forward, and backward to the student."""
    return lambda: torch.autograd.grad(function(z_s, z_t), z_s)


def names(backends: list[str], cell: Cell) -> list[str]:
    """The contenders of a cell: both fused backends, the paper's formula in the same dtype, and that compiled."""
    found = [*backends, "plain"]
    if cell in COMPILED_CELLS or cell == REHEARSED_CELLS[0]:
        found.append("compiled")
    if cell in MODES_CELLS:
        found.append("compiled reduce-overhead")
    if cell in AUTOTUNED_CELLS:
        found.append("compiled max-autotune")
    return found
