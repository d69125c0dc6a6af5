"""One step of each contender under PyTorch's profiler: kernels, microseconds each, how near to what the GPU reaches.

A row is a kernel of a contender in a cell. `of_copy` and `of_product` are the bytes and the operations that
docs/design counts for it, over its time and over what `ceilings` measured; empty for kernels it does not know.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import contenders, figures
from benchmarks.gpu.day import Case, Day, kept

CELLS = (("bfloat16", 64, 512), ("bfloat16", 1024, 512), ("bfloat16", 4096, 2048), ("float32", 1024, 512))


def cases(day: Day) -> Iterator[Case]:
    for cell in (("float32", 16, 8),) if day.rehearse else CELLS:
        yield Case("{} {}×{}".format(*cell), lambda cell=cell: profiled(day, cell))


def profiled(day: Day, cell: contenders.Cell) -> list[dict]:
    kind, n, d = cell
    contenders.reset()
    inputs = contenders.features(n, d, contenders.KINDS[kind][0], day.device)
    rows, cell_of = [], {"kind": kind, "n": n, "d": d}
    for name in (*day.backends, "plain", "compiled"):
        about = {**cell_of, "contender": name}
        rows.append(about)
        if not day.part(name):
            continue
        kernels: dict[str, list[float]] = {}
        with kept(about), contenders.precision(kind):
            step = contenders.step(contenders.loss(name, d, rehearse=day.rehearse), *inputs)
            with contenders.counted(about) if name in contenders.COMPILED else contextlib.nullcontext():
                for _ in range(3):
                    step()
            kernels = profile_once(step, on_cpu=day.rehearse)
            about |= {"launches": sum(map(len, kernels.values())), "device_us": sum(map(sum, kernels.values()))}
        for kernel, times in sorted(kernels.items(), key=lambda pair: -sum(pair[1])):
            seconds = sum(times) / len(times) / 1e6
            row = {**cell_of, "contender": name, "kernel": kernel[:120], "calls": len(times), "us": seconds * 1e6}
            row["share"] = sum(times) / about["device_us"]
            rows.append(row | _against_ceilings(day, kernel, seconds, kind, n, d))
    return rows


def profile_once(step, *, on_cpu: bool) -> dict[str, list[float]]:
    """{kernel: microseconds of each of its launches} of one step."""
    activities = [ProfilerActivity.CPU] if on_cpu else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities) as found:
        step()
        if not on_cpu:
            torch.cuda.synchronize()
    kernels = defaultdict(list)
    for event in found.events():
        if event.device_type.name == ("CPU" if on_cpu else "CUDA") and not event.is_user_annotation:
            kernels[event.name].append(float(event.time_range.elapsed_us()))
    return dict(kernels)


def _against_ceilings(day: Day, kernel: str, seconds: float, kind: str, n: int, d: int) -> dict:
    size = contenders.KINDS[kind][0].itemsize
    moved, operations = counts(kernel, n, d, size)
    copy, products = figures.reached(day.ceilings)
    found = {}
    if moved and copy:
        found["of_copy"] = moved / seconds / copy
    if operations and kind in products:
        found["of_product"] = operations / seconds / products[kind]
    return found


def counts(kernel: str, n: int, d: int, size: int) -> tuple[int, int]:
    """(bytes, operations) of one launch, the student's gradient wanted; 0 for what is not known."""
    name = kernel.lower()
    if "gram_gradients" in name or "gram_tiles" in name:
        return 0, 2 * n * n * d
    if "statistics" in name:
        return 2 * n * d * size, 0
    if "gradients" in name and ("itrd" in name or name == "gradients"):
        # z_s and z_t read, the Gram term's gradient read in float32, the student's written.
        return 3 * n * d * size + 4 * n * d, 0
    if any(word in name for word in ("gemm", "nvjet", "cutlass", "xmma")):
        return 0, 2 * n * n * d
    return 0, 0
