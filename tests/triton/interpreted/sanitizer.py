"""Triton's interpreter with a sanitizer: out of bounds, races between programs, any program order, true bfloat16.

Shadow memory notes who wrote and who read every element. A program may touch what another one wrote only if that one
has released it (an atomic after the write) and this one has acquired it (an atomic on the same address later).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

NOBODY, MANY = -1, -2


class SanitizerError(AssertionError):
    """A kernel touched memory that it must not, or without order."""


class Buffer(NamedTuple):
    start: int
    stop: int
    item: int
    writer: np.ndarray
    written_at: np.ndarray
    reader: np.ndarray

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Buffer":
        item = tensor.element_size()
        reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
        length = reach if tensor.numel() else 0
        shadow = (np.full(length, NOBODY), np.zeros(length, int), np.full(length, NOBODY))
        return cls(tensor.data_ptr(), tensor.data_ptr() + length * item, item, *shadow)


class Launch:
    """The shadow of one launch: its buffers, and what every program has released and acquired."""

    def __init__(self, tensors: list[torch.Tensor], programs: int, seed: int) -> None:
        unique = {(t.data_ptr(), t.numel()): t for t in tensors}.values()
        self.buffers = [Buffer.of(tensor) for tensor in unique]
        self.order = np.random.default_rng(seed).permutation(programs)
        self.releases = np.zeros(programs, int)
        self.acquired = np.zeros((programs, programs), int)
        self.released_at: dict[int, np.ndarray] = {}
        self.program = 0

    def touch(self, pointers, mask, store: bool) -> None:
        addresses = np.broadcast_to(pointers.data, mask.data.shape)[mask.data.astype(bool)].astype(np.int64)
        if not addresses.size:
            return
        inside = np.zeros(addresses.shape, bool)
        for buffer in self.buffers:
            here = (addresses >= buffer.start) & (addresses < buffer.stop)
            inside |= here
            if here.any():
                self._order(buffer, (addresses[here] - buffer.start) // buffer.item, store)
        if not inside.all():
            what = "store" if store else "load"
            raise SanitizerError(f"{what} of {(~inside).sum()} elements out of bounds in program {self.program}")

    def _order(self, buffer: Buffer, index: np.ndarray, store: bool) -> None:
        writer = buffer.writer[index]
        foreign = (writer != NOBODY) & (writer != self.program)
        unordered = foreign & (self.acquired[self.program][writer] <= buffer.written_at[index])
        if unordered.any():
            what = "stores" if store else "loads"
            raise SanitizerError(f"race: program {self.program} {what} what {set(writer[unordered])} wrote")
        reader = buffer.reader[index]
        if store:
            if ((reader != NOBODY) & (reader != self.program)).any():
                raise SanitizerError(f"race: program {self.program} stores what another program loads")
            buffer.writer[index] = self.program
            buffer.written_at[index] = self.releases[self.program]
        else:
            buffer.reader[index] = np.where((reader == NOBODY) | (reader == self.program), self.program, MANY)

    def synchronise(self, address: int, semantics: str) -> None:
        """An atomic on `address`."""
        seen = self.released_at.setdefault(address, np.zeros_like(self.releases))
        if "ACQUIRE" in semantics:
            self.acquired[self.program] = np.maximum(self.acquired[self.program], seen)
        if "RELEASE" in semantics:
            self.releases[self.program] += 1
            seen[self.program] = self.releases[self.program]


def _tensors(arguments: tuple) -> Iterator[torch.Tensor]:
    """The tensors among a launch's arguments, those in records too."""
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            yield argument
        elif isinstance(argument, tuple):
            yield from _tensors(argument)


@contextmanager
def sanitized(seed: int = 0) -> Iterator[None]:
    """Within it every interpreted kernel runs under the sanitizer, its programs in an order that `seed` chooses."""
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    saved = {name: getattr(builder, name) for name in _PATCHES}
    call, grid_index = executor.__call__, builder.set_grid_idx
    launches: list[Launch] = []

    def sanitized_call(self, *arguments, **constants):
        (programs,) = self.grid
        tensors = list(_tensors(arguments))
        launches.append(Launch(tensors, programs, seed))
        try:
            return call(self, *arguments, **constants)
        except interpreter.InterpreterError as error:
            # The first cause, not its wrappings, one for each call on the way, says what went wrong.
            while error.__cause__ is not None:
                error = error.__cause__
            raise error from None
        finally:
            launches.pop()

    def permuted(self, x, y, z):
        launches[-1].program = int(launches[-1].order[x])
        grid_index(self, launches[-1].program, y, z)

    for name, make in _PATCHES.items():
        setattr(builder, name, make(saved[name], launches))
    executor.__call__, builder.set_grid_idx = sanitized_call, permuted
    try:
        yield
    finally:
        executor.__call__, builder.set_grid_idx = call, grid_index
        for name, original in saved.items():
            setattr(builder, name, original)


def _load(original, launches):
    def load(self, pointers, mask, *rest):
        launches[-1].touch(pointers, mask, store=False)
        return original(self, pointers, mask, *rest)

    return load


def _store(original, launches):
    def store(self, pointers, value, mask, *rest):
        launches[-1].touch(pointers, mask, store=True)
        return original(self, pointers, value, mask, *rest)

    return store


def _atomic(original, launches):
    def atomic(self, operation, pointer, value, mask, semantics, scope):
        launches[-1].synchronise(int(pointer.data.item()), str(semantics))
        return original(self, operation, pointer, value, mask, semantics, scope)

    return atomic


def _dot(original, launches):
    return lambda self, a, b, *rest: original(self, _widen(a), _widen(b), *rest)


def _cast(original, launches):
    def cast(self, source, target):
        kinds = source.dtype.scalar, target.scalar
        if kinds == (tl.bfloat16, tl.float32):
            return _widen(source)
        if kinds == (tl.float32, tl.bfloat16):
            rounded = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.bfloat16).view(torch.uint16)
            return interpreter.TensorHandle(rounded.numpy().reshape(source.data.shape), tl.bfloat16)
        return original(self, source, target)

    return cast


def _widen(handle):
    """The interpreter keeps bfloat16 as uint16 and computes with those integers."""
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


_PATCHES = {
    "create_masked_load": _load,
    "create_masked_store": _store,
    "create_atomic_rmw": _atomic,
    "create_dot": _dot,
    "cast_impl": _cast,
}
