"""A PTX module: its kernels, compiled to Python when they are first launched, and its variables."""

import re

import numpy as np

from .generation import Kernel
from .launch import Launch, triple
from .memory import FAR, GLOBAL
from .parsing import Flat, PTXError, parse_module


class Module:
    """`declarations` are what the text declares, `variables` the bytes of those outside shared memory, `addresses`
    where kernels see them."""

    def __init__(self, text):
        self.text = text
        self.funcs, self.declarations = parse_module(text)
        self.addresses, self.variables, self._kernels = {}, {}, {}
        address = GLOBAL + FAR
        for space, variable in self.declarations:
            if space != "shared":
                align = max(variable.align, 16)
                self.addresses[variable.name] = address = -(-address // align) * align
                self.variables[variable.name] = np.frombuffer(variable.init.ljust(variable.size, b"\0"), "u1").copy()
                address += variable.size + 64

    @property
    def entries(self):
        return [name for name, function in self.funcs.items() if function.entry]

    def kernel(self, name, profile=False):
        """The compiled kernel; name may be the mangled C++ name or the plain one if that is unique."""
        if name not in self.funcs:
            plain = re.compile(rf"_Z\w*?{len(name)}{name}(?![a-z0-9_])")
            found = [entry for entry in self.entries if plain.match(entry)]
            if len(found) != 1:
                raise PTXError(f"no kernel {name}; there are {self.entries}")
            name = found[0]
        key = name, bool(profile)
        if key not in self._kernels:
            self._kernels[key] = Kernel(Flat(self, self.funcs[name]), profile)
        return self._kernels[key]

    def launch(
        self, name, grid, block, args, shared_bytes=0, *, buffers=(), order_seed=None, schedule="lockstep", batch=None,
        races="raise", global_races=False, max_instructions=None, profile=False,
    ):  # fmt: skip
        """Run a kernel and return its Stats.

        args: NumPy arrays or CPU tensors (updated in place), ints, floats, None, and bytes for structures passed by
        value; pointers within structures must point into args or `buffers`, arrays that are no arguments themselves.
        order_seed shuffles the order of the blocks, and of the warps under schedule="warp", which runs one warp at a
        time between barriers. batch: how many blocks run together in lockstep (None: by size; 1: one by one).
        races: "raise", "report" (into the Stats) or None (shared memory is not checked); global_races adds those
        between blocks. max_instructions stops endless loops. profile: count sectors, bank conflicts, instructions, …
        into the Stats' profiling.Profile.
        """
        return Launch(
            self, self.kernel(name, profile), triple(grid), triple(block), args, shared_bytes, buffers, order_seed,
            schedule, batch, races, global_races, max_instructions, profile,
        ).run()  # fmt: skip
