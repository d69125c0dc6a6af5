"""Finds accesses of different thread blocks to global memory that nothing orders."""

import numpy as np

from .memory import GLOBAL, LOG2

# Stands for several blocks in a shadow; blocks are numbered from 1 there, and 0 is nobody.
SEVERAL = -1

# What a shadow says of an access, and which kinds of access do not contradict it.
HARMLESS = {"written": (), "updated atomically": ("atomic",), "read": ("read",)}


class GlobalOrder:
    """Detects unordered accesses of different blocks to global memory, of which at least one is a plain write.

    A block is ordered after another if it read an atomic variable that the other updated before, both with
    acquire/release semantics (or in a kernel with fences).
    """

    def __init__(self, launch):
        self.count = launch.grid[0] * launch.grid[1] * launch.grid[2]
        # One unit of the shadows is the narrowest access of the kernel.
        self.unit = LOG2[launch.kernel.global_width]
        units = (launch.memory.bytes.size >> self.unit) + 32
        self.shadows = {name: np.zeros(units, np.int32) for name in HARMLESS}
        # By block: which blocks it comes after, with one entry more for SEVERAL.
        self.after = {}
        # By address of an atomic variable: which blocks had updated it, or come before those that had.
        self.released = {}

    def _row(self, block):
        if block not in self.after:
            self.after[block] = np.zeros(self.count + 2, bool)
            self.after[block][block] = True
        return self.after[block]

    def _ordered(self, mine, other):
        """For each pair: does block `mine` come after the last access noted as `other`?"""
        ordered = (other == 0) | (other == mine)
        open_pairs = (~ordered).nonzero()[0]
        for block in np.unique(mine[open_pairs]):
            of_block = open_pairs[mine[open_pairs] == block]
            ordered[of_block] = self._row(block)[other[of_block]]
        return ordered

    def check(self, group, i, a, width, kind, lanes):
        """Lanes (None: all) of a group carry out instruction i at byte addresses a: a "read", "write" or "atomic"."""
        units = np.arange(max(1, width >> self.unit))
        at = ((a >> self.unit)[:, None] + units).ravel()
        mine = np.repeat((group.block if lanes is None else group.block[lanes]) + 1, units.size).astype(np.int32)
        own = {"read": "read", "write": "written", "atomic": "updated atomically"}[kind]
        for name, shadow in self.shadows.items():
            last = shadow[at]
            ordered = self._ordered(mine, last)
            if not ordered.all() and kind not in HARMLESS[name]:
                q = int(ordered.argmin())
                by = "several blocks" if last[q] == SEVERAL else f"block {last[q] - 1}"
                group.launch.stats.add(
                    "global race between blocks",
                    group.line(i),
                    f"block {mine[q] - 1}: {kind} of {group.where(GLOBAL + a[q // units.size])} {name} by {by}: "
                    f"{group.text(i)}",
                    int((~ordered).sum()),
                )
            if name == own:
                shadow[at] = np.where(ordered, mine, SEVERAL)
                # Several blocks of this very access may have met.
                shadow[at[shadow[at] != mine]] = SEVERAL

    def synchronise(self, group, a, lanes):
        """Atomics that acquire and release, at byte addresses a: who updates comes after those who did before."""
        blocks = (group.block if lanes is None else group.block[lanes]) + 1
        for address, block in dict.fromkeys(zip(a.tolist(), blocks.tolist(), strict=True)):
            row = self._row(block)
            released = self.released.setdefault(address, np.zeros(self.count + 2, bool))
            row |= released
            row[SEVERAL] = row[1:SEVERAL].all()
            released |= row
