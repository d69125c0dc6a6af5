"""Executes PTX on the CPU, vectorised with NumPy over the threads of thread blocks.

    from emulator import Module
    Module(text).launch("kernel", grid=(4, 1, 1), block=(128, 1, 1), args=[x, y, 1000, 0.5], shared_bytes=0)

README.md in the folder above says what is supported and which errors are caught.
"""

from .launch import PTXRace, Stats
from .module import Module
from .parsing import PTXError

__all__ = ["Module", "PTXError", "PTXRace", "Stats"]
