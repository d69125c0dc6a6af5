"""The benchmarks themselves: a quick run end to end, the verdicts on the targets, each peer being what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot

from benchmarks import peers, report, targets
from benchmarks.timing import features, step

ROOT = Path(__file__).parent.parent


def test_quick_run(tmp_path):
    """Tables, JSON and plots of `pytest benchmarks/ --quick`."""
    # What this pytest was told is not for the one inside; one thread, since other tests run beside it.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "--quick", "--out", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for line in ("plain ÷ fused", "64 × 64", *(target.what for target in targets.TARGETS)):
        assert line in finished.stdout

    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["quick"]
    assert found["versions"]["torch"] == torch.__version__
    assert found["machine"]["processor"]
    (row,) = found["grid"]
    assert (row["n"], row["d"]) == (64, 64)
    assert row["seconds"].keys() == {"fused", "plain", "compiled", "onednn"} - row["left_out"].keys()
    assert all(seconds > 0 for seconds in row["seconds"].values())
    assert row["fma_rate"] > 1e9
    assert {row["name"] for row in found["memory"]} == {"fused", "plain"}
    assert len(found["targets"]) == len(targets.TARGETS)

    for name in ("ratio.png", "time.png", "memory.png"):
        picture = pyplot.imread(tmp_path / name)
        # More than a blank page: axes, labels and at least one series in colour.
        assert picture.shape[0] > 400
        assert (picture[..., :3].max(-1) - picture[..., :3].min(-1) > 0.3).sum() > 100


def grid(n, fused, plain=1.0):
    return {"n": n, "d": 512, "fma_rate": 1e11, "seconds": {"fused": fused, "plain": plain, "compiled": 1.0}}


@pytest.mark.parametrize(
    ("section", "rows", "what", "measured", "where", "met"),
    [
        ("grid", [grid(64, 1.0), grid(1024, 0.0215)], "time ÷ (4n²d", 1.0011, "1024 × 512", True),
        ("grid", [grid(1024, 0.0215), grid(2048, 0.172)], "time ÷ (4n²d", 2.0023, "2048 × 512", False),
        ("grid", [grid(128, 0.1)], "time ÷ (4n²d", None, "", None),
        ("memory", [{"name": "fused", "n": 32768, "d": 256, "bytes": 2**28}], "peak memory", 2.0, "32768 × 256", False),
        ("memory", [{"name": "plain", "n": 32768, "d": 256, "bytes": 2**28}], "peak memory", None, "", None),
        (
            "overhead",
            [{"n": 64, "d": 64, "fma_rate": 1e11, "seconds": {"fused": 1.2597152e-4, "null": 1e-4}}],
            "null operators",
            1.0,
            "64 × 64",
            True,
        ),
    ],
)
def test_targets_are_judged_by_the_worst_case(section, rows, what, measured, where, met):
    (verdict,) = [verdict for verdict in targets.judge({section: rows}) if what in verdict.what]
    assert (verdict.where, verdict.met) == (where, met)
    assert verdict.measured == (measured if measured is None else pytest.approx(measured, rel=1e-3))


def test_ratios_stand_beside_those_of_a_kernel_at_the_floor():
    """At 1024 × 512 the floor is 21.5 ms at 100 GFLOP/s; at n = 64 operators that do nothing are part of it."""
    small = grid(64, 0.001) | {"seconds": {"fused": 0.001, "plain": 0.002, "compiled": 0.001}}
    overhead = {"n": 64, "d": 512, "fma_rate": 1e11, "seconds": {"fused": 0.001, "null": 1e-4}}
    records = {"grid": [small, grid(1024, 0.043)], "overhead": [overhead]}
    _, _, of_64, of_1024 = report.readme_table({"here": records})
    # 0.002 s over the 83.9 µs of the operations and the 100 µs of operators that do nothing.
    assert of_64.split(" | ")[2] == "2.0 (10.9)"
    assert of_1024.split(" | ")[2:] == ["23.3 (46.6)", "23.3 (46.6)", "2.00 |"]


def test_readme_shows_the_committed_results():
    runs = {
        name: json.loads((ROOT / "benchmarks/results" / folder / "speed.json").read_text("utf-8"))
        for name, folder in report.COMMITTED.items()
    }
    text = (ROOT / "README.md").read_text("utf-8")
    assert "\n".join(report.readme_table(runs)) in text, "run python -m benchmarks.report"


@pytest.mark.parametrize(
    "name", ["plain", "onednn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("compiled", "keops"))]
)
def test_peers_compute_the_same_loss(name):
    reason = peers.why_not(name)
    if reason:
        pytest.skip(reason)
    n, d = 66, 40
    z_s, z_t = features(n, d)
    gradients = []
    for loss in (peers.fused(d), peers.PEERS[name](d)):
        step(loss, z_s, z_t)()
        gradients.append(z_s.grad)
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[0].norm()


@pytest.mark.skipif(peers.why_not("onednn") is not None, reason=str(peers.why_not("onednn")))
def test_onednn_peer_runs_onednn(capfd):
    z_s, z_t = features(64, 32)
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        step(peers.onednn(32), z_s, z_t)()
    executed = [line for line in capfd.readouterr().out.splitlines() if "primitive,exec" in line]
    # Two Gram matrices forward, two products with the gradient of one of them backward; all in float32.
    assert sum("inner_product" in line or "matmul" in line for line in executed) == 4
    assert not any("bf16" in line for line in executed)
