"""The jobs of the section `compile`, and its workers: `python -m benchmarks.gpu.compiling SPEC NUMBER`.

A job takes the backend's own way to each launch, with the inputs of the sections, and compiles where it would launch.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu import contenders, problems
from benchmarks.gpu.contenders import KINDS
from benchmarks.gpu.day import Day, described, plain
from benchmarks.gpu.problems import Problem

# Hashes of the kernels that this process has compiled, or found in the cache.
_SEEN: set[str] = set()


class Job(NamedTuple):
    name: str
    run: Callable[[Day], Iterator[dict]]


def jobs(day: Day) -> list[Job]:
    """The longest first; a job of Triton is a variant of one kind, in every shape that it is asked for."""
    if day.rehearse:
        few = [Problem("bfloat16", 64, 32, "student"), Problem("float32", 40, 20, "logarithms")]
        return [_triton(f"triton {p.kind} {p.variant}", [p]) for p in few] + [_cell(("float32", 16, 8), "compiled")]
    if day.stage == "right":
        grid = problems.all_problems() + [Problem(*cell, "student") for cell in contenders.FIRST_CELLS]
        return [_module(backend) for backend in day.backends] + _by_variant(grid)
    grid = [Problem(*cell, "student") for cell in contenders.all_cells()]
    cells = [_cell(cell, "compiled") for cell in contenders.COMPILED_CELLS]
    cells += [_cell(cell, "compiled reduce-overhead") for cell in contenders.MODES_CELLS]
    return [_losses_of_training(), *cells, *_by_variant(grid)]


def tuned_jobs(day: Day) -> list[Job]:
    """Those that choose by timing candidates on the GPU: one at a time, after all others."""
    if day.rehearse or day.stage == "right":
        return []
    return [_cell(cell, "compiled max-autotune") for cell in contenders.AUTOTUNED_CELLS]


def _timed(name: str, cell: str, contender: str, compile_it: Callable[[Day], object]) -> Job:
    """A job of torch.compile's: one row, with its seconds."""

    def run(day: Day) -> Iterator[dict]:
        begin = time.time()
        compile_it(day)
        yield {"cell": cell, "contender": contender, "seconds": time.time() - begin}

    return Job(name, run)


def _module(backend: str) -> Job:
    """What the section `behaviour` compiles."""

    def compile_it(day: Day) -> None:
        from benchmarks.gpu.sections import behaviour

        behaviour.under_compile(day, backend, *behaviour.SHAPE)

    return _timed(f"module {backend}", "the module", backend, compile_it)


def _losses_of_training() -> Job:
    def compile_it(day: Day) -> None:
        from benchmarks.gpu.sections import training

        training.compile_losses(day)

    return _timed("losses of training", "the losses of training", "compiled", compile_it)


def _cell(cell: contenders.Cell, name: str) -> Job:
    kind, n, d = cell

    def compile_it(day: Day) -> None:
        contenders.reset()
        with contenders.precision(kind):
            loss = contenders.loss(name, d, rehearse=day.rehearse)
            contenders.step(loss, *contenders.features(n, d, KINDS[kind][0], day.device))()

    return _timed(f"{name} {kind} {n}×{d}", f"{kind} {n}×{d}", name, compile_it)


def _by_variant(grid: list[Problem]) -> list[Job]:
    groups: dict[str, list[Problem]] = {}
    for problem in grid:
        # Small and large n choose other tables.
        size = "small" if problem.n <= 512 else "large"
        groups.setdefault(f"triton {problem.kind} {problem.variant} {size}", []).append(problem)
    return [_triton(name, members) for name, members in groups.items()]


def _triton(name: str, members: list[Problem]) -> Job:
    def run(day: Day) -> Iterator[dict]:
        for problem in members:
            yield from _compile(day, problem)

    return Job(name, run)


def _compile(day: Day, problem: Problem) -> Iterator[dict]:
    """A row per kernel that this process has not seen; where another has compiled it, it takes no seconds."""
    from compiled import build, instead_of_launching

    from itrd_kernels.backends.triton import configurations

    arch = "sm_80" if day.rehearse else configurations.architecture(torch.device("cuda", 0))
    found = []

    def take(item) -> None:
        begin = time.time()
        if day.rehearse:
            compiled = build(item, arch)
        else:
            compiled = item.kernel.warmup(*item.arguments, grid=(item.programs,), **item.constants)
        if compiled.hash not in _SEEN:
            _SEEN.add(compiled.hash)
            row = {"kernel": item.name, "kind": problem.kind, "seconds": time.time() - begin}
            found.append(row | {"shared": compiled.metadata.shared, "shape": f"{problem.n}×{problem.d}"})

    with instead_of_launching(take, arch), torch.no_grad():
        _operators(problem, day.device)
    yield from found


def _operators(problem: Problem, device: str) -> None:
    """Forward and backward as autograd calls them."""
    from itrd_kernels.backends.triton import launch

    z_e, z_t, z_s = problem.inputs(device, 0)
    what = problem.what
    want = (*what.want[:2], what.want[2] and z_s is not None)
    tf32 = KINDS[problem.kind][1]
    *scalars, moments, dgram_s, dgram_t = launch.forward(z_e, z_t, z_s, what.alpha, *what.betas, what.log, *want, tf32)
    g = torch.ones_like(scalars[0])
    launch.backward(g, None, None, z_e, z_t, z_s, moments, dgram_s, dgram_t, *what.betas, *want)


def work(spec: Path, number: int) -> None:
    """Claim one job after another, until none or no time is left; rows go to a file of this worker's own."""
    content = json.loads(spec.read_text("utf-8"))
    day, folder = Day(content, spec.parent), Path(content["claims"])
    for index, job in enumerate(tuned_jobs(day) if content["tuned"] else jobs(day)):
        try:
            os.close(os.open(folder / f"claim-{content['tuned']}-{index}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        if day.left <= 0:
            return
        claimed = folder / f"claimed-{number}"
        claimed.write_text(job.name, "utf-8")
        begin, rows = time.time(), []
        try:
            rows = list(job.run(day))
        except Exception as error:
            rows.append({"failed": described(error)})
        rows.append({"job_seconds": time.time() - begin})
        with (folder / f"rows-{number}").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"job": job.name, **plain(row)}) + "\n" for row in rows)
        claimed.unlink()


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
