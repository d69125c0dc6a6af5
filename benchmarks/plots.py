"""Three plots of a run: ratio over the grid, time against n with the machine's limits, memory against n."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks import machine
from benchmarks.targets import copy_floor, fma_floor, memory_allowed, ratio

# Okabe and Ito's palette, which colour-blind readers tell apart; each series has a marker of its own as well.
STYLES = {
    "fused": {"color": "#0072B2", "marker": "o", "label": "fused (this project)"},
    "plain": {"color": "#D55E00", "marker": "s", "label": "plain PyTorch"},
    "compiled": {"color": "#009E73", "marker": "^", "label": "torch.compile"},
    "onednn": {"color": "#CC79A7", "marker": "D", "label": "plain with oneDNN's products"},
}
LIMIT = {"color": "#555555", "linewidth": 1.2}


def draw(records: dict, directory: Path) -> Iterator[Path]:
    """Write the plots for which something was measured; returns their paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for section, name, plot in (
        ("grid", "ratio.png", _ratio),
        ("scaling", "time.png", _time),
        ("memory", "memory.png", _memory),
    ):
        if records.get(section):
            figure, axes = pyplot.subplots(figsize=(8, 4.8), layout="constrained")
            plot(axes, records)
            axes.grid(alpha=0.25, which="major")
            axes.legend(frameon=False, fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
            figure.savefig(directory / name, dpi=150)
            pyplot.close(figure)
            yield directory / name


def _ratio(axes, records: dict) -> None:
    grid = records["grid"]
    for offset, peer in ((-0.15, "plain"), (0, "compiled"), (0.15, "onednn")):
        found = [(i + offset, ratio(peer)(r)) for i, r in enumerate(grid) if peer in r["seconds"]]
        if found:
            axes.plot(*zip(*found, strict=True), linestyle="none", markersize=8, **STYLES[peer])
    axes.axhline(1, **LIMIT)
    axes.set_yscale("log")
    ticks = [1, 2, 5, 10, 20, 50, 100]
    axes.set_yticks(ticks, [f"{tick}×" for tick in ticks])
    axes.set_ylim(min(0.8, axes.get_ylim()[0]), max(axes.get_ylim()[1], 30))
    axes.minorticks_off()
    axes.set_xticks(range(len(grid)), [f"{r['n']} × {r['d']}" for r in grid], rotation=35, ha="right")
    axes.set(xlabel="batch n × features d", ylabel="time ÷ time of the fused loss (higher: fused is faster)")
    axes.set_title(_title("Forward + backward, float32"), fontsize=10)


def _time(axes, records: dict) -> None:
    rows = sorted(records["scaling"], key=lambda r: r["n"])
    sizes = [r["n"] for r in rows]
    for name in ("plain", "fused"):
        axes.plot(sizes, [r["seconds"][name] * 1e3 for r in rows], **STYLES[name])
    bandwidth = records["capabilities"]["copy_bandwidth"]
    floors = [fma_floor(r) * 1e3 for r in rows]
    axes.plot(sizes, floors, linestyle="--", label="limit: 4n²d ÷ FMA rate", **LIMIT)
    copies = [copy_floor({**r, "copy_bandwidth": bandwidth}) * 1e3 for r in rows]
    axes.plot(sizes, copies, linestyle=":", label="limit beyond the caches: 20nd bytes ÷ copy bandwidth", **LIMIT)
    _sizes(axes, sizes)
    axes.set(ylabel="time of forward + backward [ms]")
    axes.set_title(_title(f"Time against n, d = {rows[0]['d']}, float32"), fontsize=10)


def _memory(axes, records: dict) -> None:
    for name in ("plain", "fused"):
        rows = sorted((r for r in records["memory"] if r["name"] == name), key=lambda r: r["n"])
        axes.plot([r["n"] for r in rows], [r["bytes"] / 2**20 for r in rows], **STYLES[name])
    sizes = sorted({r["n"] for r in records["memory"]})
    d = records["memory"][0]["d"]
    allowed = [memory_allowed({"n": n, "d": d}) / 2**20 for n in sizes]
    axes.plot(sizes, allowed, linestyle="--", label="target: 2nd · 4 bytes + 64 MiB", **LIMIT)
    axes.plot(sizes, [4 * n**2 / 2**20 for n in sizes], linestyle=":", label="one n × n array", **LIMIT)
    _sizes(axes, sizes)
    axes.set(ylabel="peak memory beside the inputs [MiB]")
    axes.set_title(_title(f"Memory of forward + backward against n, d = {d}, float32"), fontsize=10)


def _sizes(axes, sizes: list[int]) -> None:
    axes.set(xscale="log", yscale="log", xlabel="batch n [samples]")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.xaxis.minorticks_off()


def _title(what: str) -> str:
    return f"{what} · {machine.processor_name()}"
