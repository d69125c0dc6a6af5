"""Options, fixtures and the closing report of the benchmarks.

Each test records its medians; when the session ends they become a table of ratios, a table of targets, a JSON file and
three plots.
"""

import os
from pathlib import Path

import pytest
import torch

import itrd_kernels
from benchmarks import CORES, machine, plots, report
from benchmarks.timing import FULL, QUICK, Budget

RECORDS = pytest.StashKey[dict]()


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="few shapes, few rounds: to try the benchmarks themselves")
    parser.addoption("--out", type=Path, default=Path("runs/bench"), help="directory of speed.json and the plots")


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: part of a run with --quick")
    config.addinivalue_line("markers", "last: runs after all others, since it changes the process for good")
    config.stash[RECORDS] = {}
    if not config.option.benchmark_columns:
        config.option.benchmark_columns = ["median", "iqr", "rounds"]


def pytest_collection_modifyitems(config, items):
    if config.option.quick:
        config.hook.pytest_deselected(items=[item for item in items if "quick" not in item.keywords])
        items[:] = [item for item in items if "quick" in item.keywords]
    items.sort(key=lambda item: "last" in item.keywords)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    records = config.stash[RECORDS]
    if not records:
        return
    facts = {"quick": config.option.quick, "command": "pytest " + " ".join(config.invocation_params.args)}
    out = report.write_json(records, facts, config.option.out)
    written = [out, *plots.draw(records, config.option.out)]
    terminalreporter.section("fused loss against its peers and the machine")
    for line in report.tables(records):
        terminalreporter.write_line(line)
    terminalreporter.write_line("written: " + ", ".join(map(str, written)))


@pytest.fixture
def quick(request) -> bool:
    return request.config.option.quick


@pytest.fixture
def budget(quick, benchmark) -> Budget:
    if benchmark.disabled:
        pytest.skip("timing is disabled (pytest-xdist, or --benchmark-disable)")
    return QUICK if quick else FULL


@pytest.fixture
def to_all_cores():
    """To be called in a child process, which would be kept to the core of this one's main thread."""
    return lambda: os.sched_setaffinity(0, CORES) if CORES else None


@pytest.fixture
def record(request):
    """record(section, **values) adds one row to a section of the report."""

    def add(section: str, **values) -> None:
        request.config.stash[RECORDS].setdefault(section, []).append(values)

    return add


@pytest.fixture(scope="session")
def fma_rate(request, tmp_path_factory):
    """A function that measures the FMA rate (operations per second) of a number of threads; all by default."""
    try:
        rate = machine.build_fma_rate(tmp_path_factory.mktemp("fma_rate"))
    except RuntimeError as error:
        pytest.skip(f"the FMA rate cannot be measured: {error}")
    return lambda threads=None: rate(threads or torch.get_num_threads())


@pytest.fixture(scope="session", autouse=True)
def capabilities(request, fma_rate):
    """What the machine can do, recorded once; nothing is measured where the CPU backend is missing."""
    reason = itrd_kernels.available_backends()["cpu"]
    if reason is not None:
        pytest.skip(f"the cpu backend cannot run: {reason}")
    size = 32 * 2**20 if request.config.option.quick else 2 * machine.last_level_cache()
    size = min(size, machine.available_memory() // 8)
    source, target = torch.ones(size // 4), torch.zeros(size // 4)
    request.config.stash[RECORDS]["capabilities"] = {
        "fma_rate_one_thread": max(fma_rate(1) for _ in range(5)),
        "fma_rate_all_threads": max(fma_rate() for _ in range(5)),
        "copy_bandwidth": max(machine.copy_once(source, target) for _ in range(5)),
    }
