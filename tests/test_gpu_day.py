"""benchmarks/gpu_day.py without a GPU: a rehearsal on the CPU, what it does with faults, and its report."""

import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_day
from benchmarks.gpu import libraries, plan, process, report, results
from benchmarks.gpu.driver import Driver
from benchmarks.gpu.libraries import PACKAGE, Library
from benchmarks.gpu.sections import counters, parity, sanitizer, tests

ROOT = Path(__file__).parent.parent
HERE = ["--commit", "0123abc"]


def run(*arguments, **options):
    command = [sys.executable, str(ROOT / "benchmarks/gpu_day.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def rehearse(tmp_path, *arguments):
    done = run("--rehearse", "--out", tmp_path / "out", "--scratch", tmp_path / "scratch", *HERE, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "out/results.json").read_text()
    assert not [folder for folder in (str(tmp_path), str(ROOT), sys.prefix) if folder in text]
    return json.loads(text)


def test_part_of_a_rehearsal(tmp_path):
    """A section that passes, one that crashes, one that hangs, one without the library; then the report of it."""
    found = rehearse(tmp_path, "--section", "parity", "behaviour", "memory", "counters")
    assert [call["commit"] for call in found["calls"]] == ["0123abc"] * 3
    right, fast, deep = (found["sections"][stage] for stage in ("right", "fast", "deep"))

    assert right["parity"]["status"] == "passed", right["parity"]
    assert {row["backend"] for row in right["parity"]["rows"]} == {"triton", "cuda"}
    assert {row["kind"] for row in right["parity"]["rows"]} == {"float64", "float32", "tf32", "bfloat16", "float16"}

    crashed = right["behaviour"]
    assert crashed["status"] == "failed"
    assert [attempt["exit_status"] for attempt in crashed["attempts"]] == [-6, 0]
    assert crashed["attempts"][0]["died_in"] == "triton: beside a busy stream"
    assert "made to crash" in crashed["attempts"][0]["tail"][-1]
    assert sum(row.get("ok", False) for row in crashed["rows"]) == 13

    hung = fast["memory"]
    assert (hung["status"], hung["attempts"][0]["timed_out"]) == ("failed", True)
    assert hung["attempts"][1]["exit_status"] == 0
    assert {row["contender"] for row in hung["rows"] if "contender" in row} == {"triton", "cuda", "plain"}

    assert deep["counters"]["status"] == "passed"
    assert {row["backend"] for row in deep["counters"]["rows"]} == {"triton"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.json"]

    assert_report(tmp_path)


def assert_report(tmp_path, *plots):
    done = run("--report", tmp_path / "out", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    drawn = plots if importlib.util.find_spec("matplotlib") else ()
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"results.json", "report.md", *(f"{name}.png" for name in drawn)}
    page = (tmp_path / "report/report.md").read_text()
    assert "A rehearsal on the CPU" in page
    assert "| right | behaviour | failed |" in page
    for name in drawn:
        picture = importlib.import_module("matplotlib.pyplot").imread(tmp_path / "report" / f"{name}.png")
        assert (picture[..., :3].max(-1) - picture[..., :3].min(-1) > 0.3).sum() > 100


@pytest.mark.slow
def test_whole_rehearsal(tmp_path):
    found = rehearse(tmp_path)
    for stage, content in plan.STAGES.items():
        records = found["sections"][stage]
        assert list(records) == [section.name for section in content.sections]
        failed = {name for name, record in records.items() if record["status"] != "passed"}
        assert failed == {name for name, fault in plan.REHEARSED_FAULTS[stage].items() if fault != "missing"}
    compiled = [row for row in results.rows(found, "times") if row["contender"] == "compiled"]
    assert [(row["graphs"], row["fell_back"]) for row in compiled] == [(1, False)]
    assert_report(tmp_path, "ratio", "time", "host", "training")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{tmp}", "--rehearse", "--section", "parity", "speed"], "unknown section speed; expected some of"),
        (["--out", "{tmp}/file/out", "--rehearse"], "cannot be written"),
        (["--rehearse"], "--out DIR is needed"),
        (["--out", "{tmp}", "--rehearse", "--minutes", "-1"], "--minutes must be > 0, got -1"),
        (["--out", "{tmp}", "--stage", "wrong"], "invalid choice: 'wrong'"),
        (
            ["--out", "{tmp}", "--rehearse", "--stage", "right", "--section", "times"],
            "stage right has no times; it has",
        ),
        (["--report", "{tmp}/none", "--out", "{tmp}"], "cannot be read"),
        (["--report", "{tmp}/junk", "--out", "{tmp}"], "is not JSON"),
        (["--report", "{tmp}/other", "--out", "{tmp}"], "holds no results of gpu_day.py"),
        (["--out", "{tmp}/other", "--rehearse"], "holds no results of gpu_day.py"),
        (["--report", "{tmp}/day", "{tmp}/rehearsal", "--out", "{tmp}"], "cannot be merged"),
        (["--out", "{tmp}/day", "--rehearse"], "cannot be merged"),
        (["--report", "{tmp}/day", "{tmp}/other-day", "--out", "{tmp}"], "results of H100 and H200 cannot be merged"),
    ],
)
def test_bad_input(tmp_path, arguments, message, capsys):
    (tmp_path / "file").write_text("")
    on = lambda device: results.empty(rehearsal=False) | {"calls": [{"started": "1", "device": device}]}  # noqa: E731
    contents = {"day": on("H100"), "other-day": on("H200"), "rehearsal": results.empty(rehearsal=True), "other": []}
    texts = {name: json.dumps(content) for name, content in contents.items()} | {"junk": "{"}
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(text)
    status = status_of([argument.format(tmp=tmp_path) for argument in arguments])
    error = capsys.readouterr().err.strip()
    assert status == 2
    assert message in error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1


def status_of(arguments):
    try:
        return gpu_day.main(arguments)
    except SystemExit as end:
        return end.code


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu(tmp_path, capsys):
    assert gpu_day.main(["--out", str(tmp_path)]) == 2
    assert "sees no GPU here; --rehearse runs on the CPU" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["missing", "of other sources", "without a hash"])
def test_a_library_that_is_not_of_these_sources_is_refused(tmp_path, fault):
    built = PACKAGE / "_cuda_on_host.so"
    if not built.exists():
        pytest.skip("make cuda-on-host builds it")
    library = Library(tmp_path, rehearse=True, capability=None)
    assert library.refused(PACKAGE) is None
    shutil.copy(built, tmp_path / built.name)
    assert library.refused(tmp_path) is None
    content = built.read_bytes()
    mark = content.index(b"built from csrc ") + 16
    if fault == "missing":
        (tmp_path / built.name).unlink()
    else:
        other = b"0" * 64 if fault == "of other sources" else b"no hash".ljust(64)
        (tmp_path / built.name).write_bytes(content[:mark] + other + content[mark + 64 :])
    reason = library.refused(tmp_path)
    assert ("there is no" if fault == "missing" else "was built from other sources") in reason


def test_a_refused_library_cannot_be_imported(tmp_path, monkeypatch):
    """Not while another one is built, and not where that fails: the package's copy goes before the checkout."""
    checkout = tmp_path / "checkout/itrd_kernels"
    shutil.copytree(PACKAGE, checkout, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (checkout / "_cuda.abi3.so").write_text("built from csrc long ago")
    monkeypatch.setattr(libraries, "PACKAGE", checkout)
    monkeypatch.setattr(process, "start", lambda *_: subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"]))
    library = Library(tmp_path / "scratch", rehearse=False, capability="9.0")
    assert library.state == "missing"
    library.build({})
    for state in ("building", "missing"):
        assert (library.state, library.usable) == (state, False)
        (folder,) = library.import_path()
        assert (Path(folder) / "itrd_kernels/__init__.py").exists()
        assert not list(Path(folder).rglob("*.so"))
        library.wait(time.time() + 20)
    assert "gave nothing usable: there is no _cuda" in library.why


@pytest.mark.parametrize(
    "deaths", [["cuda: a", "triton: b"], ["cuda: a", "cuda: b", "x · cuda", "never"], ["cuda: a"] * 9]
)
def test_a_section_starts_again_without_what_it_died_in(tmp_path, monkeypatch, deaths):
    """And a backend in which case after case dies leaves the rest of the time to the other one."""
    driver = Driver(tmp_path, tmp_path, True, results.empty(rehearsal=True), {"device": "", "commit": None})
    driver.faults, told = {}, []

    def run(command, environment, log, *_):
        told.append(json.loads((log.parent / "spec.json").read_text()))
        died = len(told) <= len(deaths)
        (log.parent / "now").write_text(deaths[len(told) - 1] if died else "")
        return process.Attempt(-11 if died else 0, False, 1.0, ["an illegal access"], None)

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(driver.library, "state", "found")
    found = driver.run_section("right", plan.STAGES["right"].sections[2], time.time() + 100)
    assert found["status"] == "failed"
    if deaths == ["cuda: a"] * 9:
        # What is left out and dies all the same is not tried for ever.
        assert len(told) == 2
    elif len(deaths) == 2:
        assert [spec["skip"] for spec in told] == [[], deaths[:1], deaths]
        assert [row["case"] for row in found["rows"]] == deaths
        assert found["rows"][0]["failed"] == "ended with exit status -11 in cuda: a: an illegal access"
    else:
        assert [spec["backends"] for spec in told[2:4]] == [["triton", "cuda"], ["triton"]]
        assert "cuda was given up after 3 deaths" in found["why"]


def test_outcomes_of_tests_that_were_not_done():
    text = (
        "tests/test_gpu.py::test_parity[a] PASSED [ 1%]\n[gw1] [ 2%] FAILED tests/test_gpu.py::test_tf32[b]\n"
        "[gw0] [ 3%] PASSED tests/test_gpu.py::test_module[c]\n[gw0] [ 3%] SKIPPED tests/test_gpu.py::test_streams\n"
    )
    failed, summary = tests.so_far(text)
    assert failed["test"] == "tests/test_gpu.py::test_tf32[b]"
    assert summary["summary"] == "2 passed, 1 failed when the time was over"


def record(status, started, rows=()):
    record = {"status": status, "started": started, "seconds": 1.0, "why": "", "attempts": [], "rows": list(rows)}
    return record | {"device": "a GPU", "commit": None}


def test_the_later_result_counts_unless_it_was_skipped():
    def day(started, **sections):
        call = {"stage": "right", "started": started, "device": "a GPU", "commit": None, "command": ""}
        return results.empty(rehearsal=False) | {"calls": [call], "sections": {"right": sections}}

    first = day("1", parity=record("failed", "1"), tests=record("passed", "1"))
    second = day("2", parity=record("passed", "2"), tests=record("skipped", "2"))
    for order in ([first, second], [second, first]):
        merged = results.merge(order)
        assert merged["sections"]["right"]["parity"]["status"] == "passed"
        assert merged["sections"]["right"]["tests"]["started"] == "1"
        assert [call["started"] for call in merged["calls"]] == ["1", "2"]


@pytest.mark.parametrize(
    ("got", "verdict"),
    [
        ([1.0, 2.0], "within"),
        ([1.0, 2.0 + 1e-6], "within"),
        ([1.0, 2.0 + 3e-5], "allowance"),
        ([1.0, 2.1], "fault"),
        ([1.0, float("nan")], "fault"),
        ([1.0, float("inf")], "fault"),
    ],
)
def test_parity_can_fail(got, verdict):
    exact = torch.tensor([1.0, 2.0], dtype=torch.float64)
    judged = parity.judge(torch.tensor(got), exact.float(), exact, torch.float32, 0.0, None, 2e-5)
    assert judged.verdict == verdict
    if verdict == "fault":
        assert judged.worst.startswith("worst at [1]")
    else:
        assert judged.error <= judged.allowed + 2e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_parity_feels_a_gradient_that_is_a_fifth_too_small(dtype):
    """However small its entries are: those of the Gram term at n = 1024, d = 2048 are about 1e-7."""
    exact = 2e-7 * torch.randn(1024, 2048, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for factor, verdict in ((1.0, "within"), (0.8, "fault")):
        got = (factor * exact).to(dtype)
        assert parity.judge(got, exact.float(), exact, dtype, 0.0, None, 0.0).verdict == verdict


def test_a_number_in_the_place_of_nan_is_a_fault():
    exact = torch.tensor(float("nan"), dtype=torch.float64)
    for got, verdict in ((1.0, "fault"), (float("nan"), "within")):
        assert parity.judge(torch.tensor(got), exact, exact, torch.float32, 1.0, None, 0.0).verdict == verdict


def test_counters_are_read_from_what_ncu_prints():
    text = (
        "==PROF== Connected\nsteps done\n"
        '"ID","Process ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"\n'
        '"0","1","void itrd::gram_tiles<float>(int)","Occupancy","Achieved Occupancy","%","12.1"\n'
        '"0","1","void itrd::gram_tiles<float>(int)","Other","Something","","1"\n'
        '"1","1","gradients","GPU Speed Of Light Throughput","Duration","us","1,234.5"\n'
        '"1","1","gradients","GPU Speed Of Light Throughput","Memory Throughput","%","45.1"\n'
        '"1","1","gradients","Memory Workload Analysis","Memory Throughput","Gbyte/s","900"\n'
        '"1","1","gradients","Command line profiler metrics",'
        '"smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio","inst","3.5"\n'
    )
    first, second = counters.kernels(text)
    assert first == {"kernel": "void itrd::gram_tiles<float>(int)", "Achieved Occupancy": "12.1 %"}
    stalls = {"stalls": {"long_scoreboard": "3.5"}}
    assert second == {"kernel": "gradients", "Duration": "1,234.5 us", "Memory Throughput": "45.1 %"} | stalls
    assert counters.kernels("==ERROR== no permission\n") == []


def test_racecheck_alone_filters_kernels():
    filtered = [tool for tool in sanitizer.TOOLS if "--kernel-name" in sanitizer.options(tool)]
    assert filtered == ["racecheck"]
    assert "regex=" in sanitizer.OURS


def test_report_shows_what_is_bad(tmp_path):
    fault = {"case": "float32 2×1 student", "backend": "cuda", "kind": "float32", "n": 2, "d": 1, "variant": "student"}
    fault |= {"results": {"total": [0.5, 1e-6, "fault"]}, "failed": "total: worst at []", "seed": 7}
    slow = {"kind": "float32", "n": 64, "d": 128, "graph": [200.0, 220.0], "cold": [1.0, 1.0], "host": [1.0, 1.0]}
    rows = [slow | {"contender": "triton", "spread": 0.1}, slow | {"contender": "plain", "graph": [100.0, 110.0]}]
    found = results.empty(rehearsal=False) | {
        "calls": [{"stage": "right", "started": "2026", "device": "a GPU", "commit": None, "command": "…"}],
        "sections": {"right": {"parity": record("failed", "1", [fault]), "first_times": record("passed", "1", rows)}},
    }
    *_, page = report.write(found, tmp_path)
    text = page.read_text()
    assert "| CUDA C++ | float32 | 1 | 0 | 0 | 1 |" in text
    assert "- float32 2×1 student: total: worst at []" in text
    assert "plain ÷ Triton: geometric mean 0.50" in text
