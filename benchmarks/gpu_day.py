"""Minutes of a GPU become evidence: python3 benchmarks/gpu_day.py --stage right --out DIR.

From a checkout, with any Python that has torch, Triton, NumPy and pytest: nothing is installed and nothing fetched.
Stages are `right` (is it correct?), `fast` (how fast?) and `deep` (sanitizer and counters), without --stage all three.
Whatever fails costs its own section alone; all of it is written to DIR/results.json, which later calls add to.
--report merges the results of several folders and writes tables and plots, on any machine. --rehearse runs it all on
the CPU, with small shapes and some faults on purpose.

Exit status: 0 when the day has run to its end, whatever it found; 2 for input that cannot be used.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# Sections run beside builds and compilers: no thread keeps a core to itself (see benchmarks/__init__.py).
os.environ["OMP_PROC_BIND"] = "false"

from benchmarks.gpu import plan, results  # noqa: E402
from benchmarks.gpu.driver import Driver, commit  # noqa: E402
from benchmarks.gpu.results import Unusable  # noqa: E402


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        """One line, without the usage that argparse puts before it."""
        self.exit(2, f"{self.prog}: {message}\n")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="gpu_day.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--stage", choices=plan.STAGES, help="one of the stages; all of them, if not given")
    parser.add_argument("--section", nargs="+", metavar="NAME", help=f"only these: {', '.join(plan.section_names())}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of results.json, or of the report")
    parser.add_argument("--minutes", type=float, metavar="M", help="for all of this call; each stage has its own limit")
    parser.add_argument("--commit", metavar="SHA", help="what is measured, where there is no git to ask")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="folder of caches, builds and logs")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, small, with faults on purpose")
    parser.add_argument("--report", nargs="+", type=Path, metavar="DIR", help="write tables and plots of these results")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    try:
        return report(options) if options.report else day(options)
    except Unusable as error:
        print(f"gpu_day.py: {error}", file=sys.stderr)
        return 2


def day(options: argparse.Namespace) -> int:
    unknown = sorted(set(options.section or ()) - set(plan.section_names()))
    if unknown:
        raise Unusable(f"unknown section {', '.join(unknown)}; expected some of {', '.join(plan.section_names())}")
    stages = [options.stage] if options.stage else list(plan.STAGES)
    of_stages = {section.name for stage in stages for section in plan.STAGES[stage].sections}
    if options.section and not of_stages & set(options.section):
        raise Unusable(
            f"stage {options.stage} has no {', '.join(options.section)}; it has {', '.join(sorted(of_stages))}"
        )
    if options.minutes is not None and not 0 < options.minutes < 24 * 60:
        raise Unusable(f"--minutes must be > 0, got {options.minutes:g}")
    out = writable(options.out, "--out")
    facts = {"command": shlex.join(["gpu_day.py", *sys.argv[1:]]), "commit": commit(options.commit)}
    facts |= device(options.rehearse)
    found = results.empty(options.rehearse)
    if (out / results.NAME).exists():
        # Not yet a call of this day, but enough to see whether the two belong together.
        today = found | {"calls": [{"started": "", **facts}]}
        found = results.merge([results.load(out), today])
        found["calls"] = [call for call in found["calls"] if call["started"]]
    default = Path(tempfile.gettempdir()) / f"itrd-gpu-day-{os.getuid() if hasattr(os, 'getuid') else 0}"
    scratch = writable(options.scratch or default / ("rehearsal" if options.rehearse else "day"), "--scratch")
    # Whoever ends the day ends its sections: they are killed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    driver = Driver(out, scratch, options.rehearse, found, facts)
    most = plan.REHEARSAL_SECONDS if options.rehearse else float("inf")
    until = time.time() + (options.minutes * 60 if options.minutes else most)
    try:
        for name in stages:
            driver.run_stage(name, min(plan.STAGES[name].seconds, until - time.time()), options.section)
    finally:
        driver.library.stop()
    print(f"written: {out / results.NAME}")
    return 0


def device(rehearse: bool) -> dict:
    """The GPU that is here, seen by a process that takes its context with it. Raises: Unusable, where there is none."""
    if rehearse:
        return {"device": "rehearsal on the CPU"}
    try:
        done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired as late:
        raise Unusable(f"torch has not found out within {late.timeout:.0f} s whether there is a GPU") from late
    if done.returncode:
        raise Unusable((done.stderr.strip().splitlines() or ["torch cannot be imported"])[-1])
    return json.loads(done.stdout)


LOOK = """
import json, sys, torch
if not torch.cuda.is_available():
    sys.exit(f"torch {torch.__version__} sees no GPU here; --rehearse runs on the CPU")
major, minor = torch.cuda.get_device_capability()
print(json.dumps({"device": torch.cuda.get_device_name(), "capability": f"{major}.{minor}"}))
"""


def report(options: argparse.Namespace) -> int:
    merged = results.merge([results.load(folder) for folder in options.report])
    from benchmarks.gpu import report as pages

    for path in pages.write(merged, writable(options.out, "--out")):
        print(f"written: {path}")
    return 0


def writable(folder: Path | None, option: str) -> Path:
    if folder is None:
        raise Unusable(f"{option} DIR is needed: where the results go")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Unusable(f"{option} {folder} cannot be written: {error.strerror}") from error
    return folder.resolve()


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # what an encoding lacks is shown as an escape
    sys.exit(main())
