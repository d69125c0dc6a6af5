"""The results of a day as a page of Markdown and four plots; without matplotlib the plots are left out.

What is bad for this project is printed like what is good for it.
"""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu import results, tables

PAGE = "report.md"


def write(found: dict, folder: Path) -> Iterator[Path]:
    """results.json of all that was merged, the plots, and the page that shows them; returns their paths."""
    results.write_json(folder / results.NAME, found)
    yield folder / results.NAME
    try:
        from benchmarks.gpu import plots
    except ImportError as error:
        drawn, why = [], f"Plots are left out: {error}."
    else:
        drawn, why = list(plots.draw(found, folder)), ""
    yield from drawn
    parts = [part for part in sections(found, drawn, why) if part]
    (folder / PAGE).write_text("\n\n".join(parts) + "\n", "utf-8")
    yield folder / PAGE


def sections(found: dict, drawn: list[Path], why: str) -> Iterator[str]:
    yield f"# The fused losses on: {tables.title(found)}"
    if found["rehearsal"]:
        yield "**A rehearsal on the CPU: its figures have the right form and mean nothing.**"
    yield tables.calls(found)
    yield "## What ran\n\n" + tables.what_ran(found)
    for name, text in (
        ("Compiled", tables.compilation(found)),
        ("Right?", tables.parity(found)),
        ("Behaviour", tables.behaviour(found)),
        ("Tests", tables.tests(found)),
        ("What the GPU reaches", tables.ceilings(found)),
        ("Device time of a step", tables.device_times(found)),
        ("A cold step, and the host", tables.other_times(found)),
        ("Pair losses", tables.pair_losses(found)),
        ("Launches", tables.launches(found)),
        ("Memory", tables.memory(found)),
        ("Training", tables.training(found)),
        ("Sanitizer", tables.sanitizer(found)),
        ("Counters", tables.counters(found)),
    ):
        if text:
            yield f"## {name}\n\n{text}"
    yield "\n".join(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in drawn)
    yield why
