"""Compiles what `launch.py` launches for GPUs that are not there, and reads registers, spills and shared memory."""

import inspect
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from itrd_kernels.backends.triton import configurations, launch, pair_launch

POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.bool: "*i1",
}
OPTIONS = ("num_warps", "num_stages", "maxnreg")


class Launch(NamedTuple):
    """A kernel with everything that its launch was given."""

    kernel: object
    programs: int
    arguments: tuple
    constants: dict

    @property
    def name(self) -> str:
        return self.kernel.fn.__name__


@contextmanager
def instead_of_launching(take, arch: str) -> Iterator[None]:
    """Within it the backend believes in a GPU of this architecture, and hands its launches to `take`."""
    launched, architecture, widen = launch.launch, configurations.architecture, launch.widen_bfloat16
    launch.launch = lambda kernel, programs, *arguments, **constants: take(
        Launch(kernel, programs, arguments, constants)
    )
    configurations.architecture = lambda device: arch
    launch.widen_bfloat16 = False
    try:
        yield
    finally:
        launch.launch, configurations.architecture, launch.widen_bfloat16 = launched, architecture, widen


def step(n, d_t, d_s, dtype, *, want=(True, True, True), log=False, beta_corr=2.0, beta_mi=1.0, tf32=False):
    """Forward and backward operator on uninitialised CPU tensors; for use inside `instead_of_launching`."""
    z_e, z_t = torch.empty(n, d_t, dtype=dtype), torch.empty(n, d_t, dtype=dtype)
    z_s = torch.empty(n, d_s, dtype=dtype) if d_s else None
    want = (want[0], want[1], want[2] and d_s > 0)
    _, _, _, *saved = launch.forward(z_e, z_t, z_s, 1.5, beta_corr, beta_mi, log, *want, tf32)
    g = torch.ones((), dtype=torch.promote_types(dtype, torch.float32))
    launch.backward(g, None, None, z_e, z_t, z_s, *saved, beta_corr, beta_mi, *want)


# Parameters of the losses that take some.
PARAMETERS = {"polynomial": (0.5, 3.0), "pkt": (1e-6, 1e-5)}


def sweep(n, d_t, d_s, dtype, loss, *, others=0, keep=False, want=(True, True), tf32=False):
    """The operator `gram` in the same way: a triangle, or a rectangle of n rows × `others`."""
    wide = torch.promote_types(dtype, torch.float32)
    rows = [
        (
            *(torch.empty(count, d, dtype=dtype) for d in (d_s, d_t)),
            torch.empty(count, dtype=torch.bool) if keep else None,
            torch.empty(2, count, dtype=wide) if loss == "pkt" else None,
        )
        for count in (n, others)
    ]
    own, other = rows if others else (rows[0], (None,) * 4)
    pair_launch.gram(
        *own[:2], *other[:2], 0, own[2], other[2], loss, PARAMETERS.get(loss, ()), None, own[3], other[3], *want, tf32
    )


def specialised(item: Launch) -> tuple[dict, dict, dict, list]:
    """Signature, constants and attributes as Triton's JIT would choose them, and the run-time arguments.

    Records are taken apart: what is said of their fields stands under the path (parameter, field).
    """
    bound = inspect.signature(item.kernel.fn).bind(
        *item.arguments, **{name: value for name, value in item.constants.items() if name not in OPTIONS}
    )
    bound.apply_defaults()
    signature, constants, attributes, values = {}, {}, {}, []

    def kind_of(value, path: tuple[int, ...], parameter):
        """A field's or a parameter's type, its constant and attribute noted on the way."""
        if isinstance(value, tuple) and not parameter.is_constexpr:
            return type(value)(*(kind_of(field, (*path, i), parameter) for i, field in enumerate(value)))
        unit = type(value) is int and value == 1 and not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or unit:
            constants[path] = value
            return "constexpr"
        values.append(value)
        if isinstance(value, torch.Tensor):
            kind, divisible = POINTERS[value.dtype], value.data_ptr() % 16 == 0
        else:
            kind = parameter.annotation_type or _scalar(value)
            divisible = type(value) is int and value % 16 == 0 and not parameter.do_not_specialize
        if divisible:
            attributes[path] = [["tt.divisibility", 16]]
        return kind

    for index, parameter in enumerate(item.kernel.params):
        signature[parameter.name] = kind_of(bound.arguments[parameter.name], (index,), parameter)
    return signature, constants, attributes, values


def _scalar(value: float) -> str:
    return "fp32" if isinstance(value, float) else "i32" if value < 2**31 else "i64"


def build(item: Launch, arch: str):
    """Triton's compiled kernel for "sm_80", "gfx942", …"""
    signature, constants, attributes, _ = specialised(item)
    source = ASTSource(item.kernel, signature, constexprs=constants, attrs=attributes)
    options = {name: item.constants[name] for name in OPTIONS if name in item.constants}
    return triton.compile(source, target=target(arch), options=options)


def target(arch: str) -> GPUTarget:
    if arch.startswith("sm_"):
        return GPUTarget("cuda", int(arch[3:]), 32)
    return GPUTarget("hip", arch, 64 if arch.startswith("gfx9") else 32)


class Resources(NamedTuple):
    registers: int
    spilled: int
    shared: int
    matrix: frozenset[str]


MATRIX = {
    "ptx": r"(mma\.sync|wgmma\.mma_async|tcgen05\.mma)\S*?\.(f32\.tf32|f16|bf16|tf32|f64|kind::\w+)",
    "amdgcn": r"v_(mfma|wmma)_\w+",
}


def resources(compiled) -> Resources:
    """Registers a thread, spilled bytes, shared bytes a program, matrix instructions."""
    if "ptx" in compiled.asm:
        usage = _cubin_usage(compiled.asm["cubin"])
        matrix = re.findall(r"(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)[\w.:]*", compiled.asm["ptx"])
        return Resources(usage["REG"], usage["LOCAL"] + usage["STACK"], compiled.metadata.shared, frozenset(matrix))
    text = compiled.asm["amdgcn"]
    field = lambda name: int(re.search(rf"\.{name}:\s*(\d+)", text)[1])  # noqa: E731
    # Scalar registers spill into lanes of vector registers, which costs no memory.
    return Resources(
        field("vgpr_count"),
        field("vgpr_spill_count"),
        compiled.metadata.shared,
        frozenset(re.findall(r"v_(?:mfma|wmma)\w*", text)),
    )


def _cubin_usage(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
