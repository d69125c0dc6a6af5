"""The global memory of a launch: copies of the argument arrays, kept apart so that an access beside one is noticed."""

import ctypes

import numpy as np

from .parsing import PTXError

# Where the emulated addresses of global memory begin, and the windows through which generic addresses reach the others.
GLOBAL, SHARED_WINDOW, LOCAL_WINDOW = 0x7F0000000000, 0x100000000, 0x200000000
# Module variables have fixed addresses this far behind the arguments.
FAR = 1 << 40
# The base-2 logarithm of an access width in bytes.
LOG2 = {1: 0, 2: 1, 4: 2, 8: 3, 16: 4, 32: 5}


def extent(array):
    """(first byte, end byte, start address) of a NumPy array or CPU tensor."""
    if isinstance(array, np.ndarray):
        low, high = np.lib.array_utils.byte_bounds(array)
        return low, high if array.size else low, array.ctypes.data
    if array.device.type != "cpu":
        raise PTXError(f"a tensor on {array.device} was given, where one on the CPU is expected")
    start = array.data_ptr()
    if not array.numel():
        return start, start, start
    last = sum((size - 1) * stride for size, stride in zip(array.shape, array.stride(), strict=True))
    return start, start + (last + 1) * array.element_size(), start


def placement(array, low):
    """Byte `low` of an array modulo 256, as if its allocation started at a multiple of 256, as it does on a GPU."""
    if isinstance(array, np.ndarray):
        while isinstance(array.base, np.ndarray):
            array = array.base
        base = extent(array)[0]
    else:
        base = array.untyped_storage().data_ptr()
    return low % 16 if base % 16 else (low - base) % 256


def raw(low, high):
    """The host's own bytes from one address to another."""
    return np.ctypeslib.as_array((ctypes.c_ubyte * (high - low)).from_address(low))


class Memory:
    """Copies of all arrays in one arena, at distances that no single access bridges.

    `start`, `end` and `names` describe the parts of the arena: arrays (those that overlap are one part), the kernel's
    parameters, and the module's variables.
    """

    def __init__(self, arrays, module, parameter_bytes):
        self.parts = self._merged(arrays)
        self.start, self.end, self.names = [], [], []
        position = 4096
        for low, high, name, members in self.parts:
            position = _up(position, 256) + placement(members[0], low)
            self._add(position, high - low, name)
            position += high - low + 512
        self.params = _up(position, 256)
        self._add(self.params, parameter_bytes, "kernel parameters")
        # What turns the fixed address of a module variable into a place in the arena.
        self.far = _up(self.params + parameter_bytes + 512, 256) - FAR
        self.variables, end = {}, self.params + parameter_bytes
        for name, address in module.addresses.items():
            self.variables[name] = place = address - GLOBAL + self.far
            end = place + module.variables[name].size
            self._add(place, module.variables[name].size, name)
        # Bytes that belong to nobody, and sums with them, are NaN in every floating-point type.
        self.bytes = np.full((end // 256 + 4) * 256, 0xFF, np.uint8)
        for (low, high, _, _), place in zip(self.parts, self.start, strict=False):
            if high > low:
                self.bytes[place : place + high - low] = raw(low, high)
        for name, place in self.variables.items():
            self.bytes[place : place + module.variables[name].size] = module.variables[name]
        self.views = {}

    @staticmethod
    def _merged(arrays):
        """[first byte, end byte, name, arrays] of every stretch of memory that the arrays cover."""
        parts = []
        for low, high, name, array in sorted(((*extent(a)[:2], name, a) for name, a in arrays), key=lambda p: p[:2]):
            if parts and low < parts[-1][1]:
                last = parts[-1]
                last[1], last[2] = max(last[1], high), f"{last[2]}+{name}"
                last[3].append(array)
            else:
                parts.append([low, high, name, [array]])
        return parts

    def _add(self, place, size, name):
        self.start.append(place)
        self.end.append(place + size)
        self.names.append(name)

    def address(self, array):
        """The emulated address of an array's first element."""
        low, _, start = extent(array)
        index = max(n for n, part in enumerate(self.parts) if part[0] <= low)
        return GLOBAL + self.start[index] + start - self.parts[index][0]

    def translated(self, host):
        """The emulated address that stands for an address of the host, or None where no array lies there."""
        for (low, high, _, _), place in zip(self.parts, self.start, strict=False):
            if low <= host < high:
                return GLOBAL + place + host - low
        return None

    def set_parameters(self, parameters):
        self.bytes[self.params : self.params + len(parameters)] = np.frombuffer(parameters, "u1")

    def copy_back(self, module):
        """What the kernel wrote goes to the arrays and to the module's variables."""
        for (low, high, name, members), place in zip(self.parts, self.start, strict=False):
            new = self.bytes[place : place + high - low]
            if high > low and not np.array_equal(new, old := raw(low, high)):
                if any(isinstance(a, np.ndarray) and not a.flags.writeable for a in members):
                    raise PTXError(f"the kernel wrote to the read-only array {name}")
                old[:] = new
        for name, place in self.variables.items():
            module.variables[name][:] = self.bytes[place : place + module.variables[name].size]


def _up(value, multiple):
    return -(-value // multiple) * multiple
