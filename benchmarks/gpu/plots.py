"""Four plots of a day: ratios over the grid, time against n with the limits, the host's time, a training step."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks.gpu import figures, tables
from benchmarks.gpu.results import rows

# Okabe and Ito's palette, which colour-blind readers tell apart; each series has a marker of its own as well.
STYLES = {
    "triton": {"color": "#0072B2", "marker": "o", "label": "fused, Triton"},
    "cuda": {"color": "#56B4E9", "marker": "v", "label": "fused, CUDA C++"},
    "plain": {"color": "#D55E00", "marker": "s", "label": "plain PyTorch, same dtype"},
    "compiled": {"color": "#009E73", "marker": "^", "label": "torch.compile"},
    "compiled max-autotune": {"color": "#CC79A7", "marker": "D", "label": "torch.compile, max-autotune"},
    "compiled reduce-overhead": {"color": "#E69F00", "marker": "P", "label": "torch.compile, reduce-overhead"},
}
LIMIT = {"color": "#555555", "linewidth": 1.2}
KINDS = ("bfloat16", "float32")


def draw(found: dict, folder: Path) -> Iterator[Path]:
    """The plots for which something was measured; returns their paths."""
    for name, plot in (("ratio", _ratio), ("time", _time), ("host", _host), ("training", _training)):
        figure = plot(found)
        if figure is not None:
            for axes in figure.axes:
                axes.grid(alpha=0.25)
                axes.set_axisbelow(True)
                axes.spines[["top", "right"]].set_visible(False)
            figure.suptitle(f"{figure.get_suptitle()} · {tables.title(found)}", fontsize=11)
            figure.savefig(folder / f"{name}.png", dpi=130)
            pyplot.close(figure)
            yield folder / f"{name}.png"


def _panels(found: dict, figure_of: str, title: str, height: float = 4.2):
    """(the figure or None, [(kind, axes, its cells with their times)]): a panel a kind, one above the other."""
    cells = figures.times(found, figure_of)
    of_kinds = {kind: [item for item in cells.items() if item[0][0] == kind] for kind in KINDS}
    of_kinds = {kind: mine for kind, mine in of_kinds.items() if mine}
    if not of_kinds:
        return None, []
    size = (9, height * len(of_kinds))
    figure, axes = pyplot.subplots(len(of_kinds), 1, figsize=size, layout="constrained", squeeze=False)
    figure.suptitle(title)
    return figure, [(kind, panel, mine) for (kind, mine), panel in zip(of_kinds.items(), axes[:, 0], strict=True)]


def _draw(axes, points: list[tuple[float, float]], **style) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def _finish(axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _ratio(found: dict):
    figure, panels = _panels(found, "graph", "Device time of forward + backward")
    for kind, axes, mine in panels:
        for name, style in STYLES.items():
            points = []
            for place, (_, times) in enumerate(mine):
                auto = figures.automatic(times)
                if auto and auto != name and name in times:
                    points.append((place, times[name] / times[auto]))
            _draw(axes, points, linestyle="none", markersize=7, **style)
        axes.axhline(1, **LIMIT)
        _shapes(axes, [cell for cell, _ in mine])
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if low * 0.7 < t < high * 1.5]
        axes.set_yticks(ticks, [f"{tick:g}×" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylabel("time ÷ time of what auto takes")
        _finish(axes, f"{kind}: above the line, fused is faster")
    return figure


def _time(found: dict):
    """Against n at the width that most cells have."""
    figure, panels = _panels(found, "graph", "Device time against n")
    for kind, axes, mine in panels:
        widths = [cell[2] for cell, _ in mine]
        d = 512 if 512 in widths else max(set(widths), key=widths.count)
        mine = [(cell, times) for cell, times in mine if cell[2] == d]
        for name, style in STYLES.items():
            points = [(cell[1], times[name]) for cell, times in mine if name in times]
            _draw(axes, points, markersize=6, linewidth=1.2, **style)
        for limit, line, label in (
            (figures.product_floor, "--", "limit: 4n²d operations"),
            (figures.copy_floor, ":", "limit: the bytes that must move"),
        ):
            floors = [(cell[1], limit(found, cell)) for cell, _ in mine if limit(found, cell)]
            _draw(axes, floors, linestyle=line, label=label, **LIMIT)
        sizes = [cell[1] for cell, _ in mine]
        axes.set(xscale="log", yscale="log", xlabel="batch n [samples]", ylabel="device time [µs]")
        axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axes.xaxis.minorticks_off()
        axes.yaxis.set_major_formatter("{x:,g}")
        _finish(axes, f"{kind}, d = {d}")
    return figure


def _host(found: dict):
    figure, panels = _panels(found, "host", "What the host takes to issue a step", 3.8)
    for kind, axes, mine in panels:
        for name, style in STYLES.items():
            points = [(place, times[name]) for place, (_, times) in enumerate(mine) if name in times]
            _draw(axes, points, linestyle="none", markersize=6, **style)
        _shapes(axes, [cell for cell, _ in mine])
        axes.set_ylim(bottom=0)
        axes.set_ylabel("host time of a step [µs]")
        _finish(axes, kind)
    return figure


def _training(found: dict):
    """Bars of whole steps, the loss's own part dark."""
    known = [row for row in rows(found, "training") if "step_ms" in row]
    settings = list(dict.fromkeys(row["setting"] for row in known))
    if not settings:
        return None
    figure, axes = pyplot.subplots(
        1, len(settings), figsize=(5.2 * len(settings), 3.8), layout="constrained", squeeze=False
    )
    for setting, panel in zip(settings, axes[0], strict=True):
        mine = [row for row in known if row["setting"] == setting][::-1]
        labels = [
            tables.peer(row["contender"]) + (" (again)" if i == 0 and len(mine) > 1 else "")
            for i, row in enumerate(mine)
        ]
        panel.barh(range(len(mine)), [row["step_ms"] for row in mine], color="#BBBBBB", label="whole step")
        own = [row.get("loss_ms", 0) for row in mine]
        panel.barh(range(len(mine)), own, color="#0072B2", label="the loss, forward and backward")
        for place, row in enumerate(mine):
            text = f" {row['step_ms']:.1f}" + (f", loss {row['loss_ms']:.2f}" if "loss_ms" in row else "")
            panel.text(row["step_ms"], place, text, va="center", fontsize=8)
        panel.set_yticks(range(len(mine)), labels)
        panel.set_xlim(0, 1.35 * max(row["step_ms"] for row in mine))
        panel.set(xlabel="ms a step")
        panel.set_title(f"{setting}, batch {mine[0]['batch']}", fontsize=10)
        panel.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    figure.suptitle("A training step")
    return figure


def _shapes(axes, cells: list) -> None:
    axes.set_xticks(range(len(cells)), [f"{n} × {d}" for _, n, d in cells], rotation=45, ha="right", fontsize=8)
    axes.set_xlabel("batch n × features d")
