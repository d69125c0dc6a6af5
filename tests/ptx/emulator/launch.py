"""One launch of a kernel: its parameters, the order of its blocks, and what was found while it ran."""

import struct
import time

import numpy as np

from .memory import Memory
from .order import GlobalOrder
from .parsing import SIZES, PTXError
from .profiling import Profile
from .team import Team

# How many threads run together in lockstep where the launch does not say how many blocks shall.
THREADS_TOGETHER = 2048


class PTXRace(PTXError):
    """Accesses that nothing orders, to shared memory within a block or to global memory of several."""


class Stats:
    """What a launch did: thread instructions, seconds, findings as {kind: {PTX line: [count, text]}}, and a
    profiling.Profile where one was asked for."""

    def __init__(self):
        self.instructions, self.seconds, self.found, self.profile = 0, 0.0, {}, None

    def add(self, kind, line, text, count=1):
        self.found.setdefault(kind, {}).setdefault(line, [0, text])[0] += count

    @property
    def rate(self):
        """Thread instructions per second."""
        return self.instructions / max(self.seconds, 1e-9)

    def __str__(self):
        lines = [f"{self.instructions} thread instructions, {self.seconds:.3f} s, {self.rate / 1e6:.1f} M/s"]
        for kind, places in self.found.items():
            lines += [f"  {kind} at line {line}: {count}x {text}" for line, (count, text) in places.items()]
        return "\n".join(lines)


def triple(size):
    """(x, y, z) of a grid or block given as one to three numbers."""
    size = (size,) if isinstance(size, int) else tuple(int(v) for v in size)
    return size + (1,) * (3 - len(size))


def is_array(argument):
    return isinstance(argument, np.ndarray) or hasattr(argument, "data_ptr")


class Launch:
    """A kernel with all that `Module.launch` was given; `run` executes it."""

    def __init__(
        self, module, kernel, grid, block, args, shared_bytes, buffers, order_seed, schedule, batch, races,
        global_races, max_instructions, profile,
    ):  # fmt: skip
        self.module, self.kernel, self.grid, self.block, self.races = module, kernel, grid, block, races
        flat = kernel.flat
        self.threads = block[0] * block[1] * block[2]
        args = self._checked(list(args))
        arrays = [(f"argument {n}", a) for n, a in enumerate(args) if is_array(a)]
        arrays += [(f"buffer {n}", a) for n, a in enumerate(buffers)]
        # The arrays must outlive the launch, whose results are copied back to their addresses.
        self.keep = args
        self.memory = Memory(arrays, module, flat.param_bytes)
        parameters = bytearray(flat.param_bytes)
        for argument, (offset, parameter) in zip(args, flat.param_off.values(), strict=True):
            parameters[offset : offset + parameter.size] = self._packed(argument, parameter)
        self.params = bytes(parameters)
        self.memory.set_parameters(self.params)
        self.shared = -(-(flat.static_shared + shared_bytes) // 32) * 32
        self.shared_end = max(flat.static_shared, flat.shared) + shared_bytes
        self.dynamic_shared = shared_bytes
        self.rng = np.random.default_rng(order_seed) if order_seed is not None else None
        self.schedule, self.limit = schedule, max_instructions or 1 << 62
        self.padded = -(-self.threads // 32) * 32
        self.batch = batch or (max(1, THREADS_TOGETHER // self.padded) if schedule == "lockstep" else 1)
        self.stats = Stats()
        self.order = GlobalOrder(self) if global_races else None
        if profile:
            self.stats.profile = Profile(self)

    def _checked(self, args):
        """The arguments, with null pointers for those that Triton appends as scratch memory."""
        function = self.kernel.flat.fn
        if not 0 < self.threads <= 1024:
            raise PTXError(f"a block has {self.threads} threads, where 1 to 1024 are expected")
        if function.reqntid and triple(function.reqntid) != self.block:
            raise PTXError(f"{function.name} requires blocks of {function.reqntid}, got {self.block}")
        if len(args) > len(function.params):
            raise PTXError(f"{function.name} has {len(function.params)} parameters, got {len(args)} arguments")
        for parameter in function.params[len(args) :]:
            if SIZES[parameter.type] != 8:
                raise PTXError(f"missing argument for parameter {parameter.name} (.{parameter.type})")
        return args + [None] * (len(function.params) - len(args))

    def _packed(self, argument, parameter):
        """The bytes of one parameter."""
        if argument is None:
            return bytes(parameter.size)
        if isinstance(argument, bytes):
            if len(argument) != parameter.size:
                raise PTXError(f"parameter {parameter.name} has {parameter.size} bytes, got {len(argument)}")
            return self._translated(argument)
        if is_array(argument):
            if parameter.size != 8:
                raise PTXError(f"array given for the {parameter.size}-byte parameter {parameter.name}")
            return struct.pack("<Q", self.memory.address(argument))
        if parameter.type[0] == "f" or isinstance(argument, (float, np.floating)):
            if parameter.type[0] in "us":
                raise PTXError(f"float given for parameter {parameter.name} (.{parameter.type})")
            return struct.pack({2: "<e", 4: "<f", 8: "<d"}[parameter.size], argument)
        return (int(argument) & ((1 << 8 * parameter.size) - 1)).to_bytes(parameter.size, "little")

    def _translated(self, structure):
        """A structure passed by value, in which aligned words that point into arrays give way to emulated addresses."""
        words = bytearray(structure)
        for at in range(0, len(words) - 7, 8):
            address = self.memory.translated(int.from_bytes(words[at : at + 8], "little"))
            if address is not None:
                words[at : at + 8] = address.to_bytes(8, "little")
        return bytes(words)

    def run(self):
        count = self.grid[0] * self.grid[1] * self.grid[2]
        order = self.rng.permutation(count) if self.rng is not None else np.arange(count)
        started = time.perf_counter()
        with np.errstate(all="ignore"):
            try:
                for first in range(0, count, self.batch):
                    Team(self, order[first : first + self.batch]).run()
            finally:
                self.stats.seconds = time.perf_counter() - started
                self.memory.copy_back(self.module)
        if self.stats.profile:
            self.stats.profile.finish()
        if self.races == "raise" and any("race" in kind for kind in self.stats.found):
            raise PTXRace(f"{self.kernel.flat.fn.name}: {self.stats}")
        return self.stats
