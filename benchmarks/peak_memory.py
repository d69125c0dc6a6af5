"""`python -m benchmarks.peak_memory NAME n d`: bytes that one step of a loss takes at most beside its inputs."""

import sys
from pathlib import Path

from benchmarks import peers
from benchmarks.timing import features, step


def main(name: str, n: int, d: int) -> None:
    loss = peers.PEERS[name](d)
    # Libraries, threads and their stacks come into memory before the measurement.
    step(loss, *features(64, d))()
    run = step(loss, *features(n, d))
    before = reset_peak()
    run()
    print(peak() - before)


if sys.platform == "linux":

    def reset_peak() -> int:
        """Forget the peak so far; returns the bytes resident now."""
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
        return _status("VmRSS")

    def peak() -> int:
        return _status("VmHWM")

    def _status(field: str) -> int:
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 2**10
        raise RuntimeError(f"/proc/self/status has no {field}")

else:
    import resource

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def reset_peak() -> int:
        # The inputs are the largest allocation so far, so the peak is what is resident now.
        return peak()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
