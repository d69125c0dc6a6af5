"""Benchmarks of the fused loss against its peers and against the limits of the machine: `make bench`."""

import os

CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

# Before torch starts its threads: each keeps a core of its own. Left alone, two of them were found to share one for
# seconds, and everything to take twice as long.
os.environ.setdefault("OMP_PROC_BIND", "true")
