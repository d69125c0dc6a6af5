"""The backend of C++ for CPUs (csrc/cpu)."""

from itrd_kernels.backends import native
from itrd_kernels.backends.base import Backend

BACKEND = Backend("cpu", ("cpu",), lambda: native.unavailable("cpu"), forms_statistics=True)
