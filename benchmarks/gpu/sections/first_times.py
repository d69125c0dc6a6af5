"""Six cells of the grid of times, for a first look while the day asks whether all is right."""

from collections.abc import Iterator

from benchmarks.gpu import contenders
from benchmarks.gpu.day import Case, Day
from benchmarks.gpu.sections import times


def cases(day: Day) -> Iterator[Case]:
    return times.cells(day, contenders.FIRST_CELLS, compiled=False)
