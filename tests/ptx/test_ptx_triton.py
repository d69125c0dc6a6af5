"""What Triton compiles of small kernels, executed, and bugs planted in it."""

import re

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here: pip install 'itrd-kernels[triton]'")

import triton.language as tl
from compiled import Launch
from emulator import Module, PTXError, PTXRace
from sample_kernels import colstat, fused, gram, softmax, ticket, vadd
from triton_on_emulator import build, interpret, run

F64, NAN = torch.float64, float("nan")
ONE_BY_ONE = {"batch": 1, "order_seed": 2}
BY_WARP = {"schedule": "warp", "order_seed": 5}


def randn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("n", [1000, 1024, 1])
def test_vector_sum(n):
    x, y, o = randn(n), randn(n, seed=1), torch.full((n,), NAN)
    run(vadd, (-(-n // 256),), x, y, o, n, B=256, MASK=True, num_warps=2)
    assert torch.equal(o, x + y)


def test_missing_mask_is_caught():
    x, y, o = randn(1000), randn(1000), torch.zeros(1000)
    message = r"vadd, line \d+, block \(3,0,0\) thread .*out-of-bounds global access of 16 bytes: argument 0"
    with pytest.raises(PTXError, match=message):
        run(vadd, (4,), x, y, o, 1000, B=256, MASK=False, num_warps=2)


def test_arguments_may_overlap():
    """Blocks that run one after the other load what the one before has stored."""
    x = randn(1001)
    expected = x.clone()
    run(vadd, (4,), x, x[1:], x, 1000, how={"batch": 1}, B=256, MASK=True, num_warps=2)
    for begin in range(0, 1000, 256):
        end = min(begin + 256, 1000)
        expected[begin:end] = expected[begin:end] + expected[begin + 1 : end + 1]
    assert torch.equal(x, expected)


def test_wrong_arguments_are_refused():
    y, o = randn(64), np.zeros(64, "f4")
    o.flags.writeable = False
    constants = {"B": 64, "MASK": True, "num_warps": 1}
    module, name, _, values = build(Launch(vadd, 1, (y, y, torch.zeros(64), 64), constants))
    with pytest.raises(PTXError, match="read-only array argument 2"):
        module.launch(name, 1, 32, [values[0], values[1], o, 64])
    for bad in ([y, y, o], [y, y, o, 1.5], [y, y, o, 64, None, None, None], [y, y, o, y]):
        with pytest.raises(PTXError):
            module.launch(name, 1, 32, bad)
    with pytest.raises(PTXError, match="requires blocks of"):
        module.launch(name, 1, 64, values)
    with pytest.raises(PTXError, match="out-of-bounds global access.*address 0x"):
        module.launch(name, 1, 32, [None, *values[1:]])


@pytest.mark.parametrize("d", [300, 512, 7])
def test_softmax(d):
    x, o = randn(37, 512)[:, :d] * 3, torch.full((37, d), NAN)
    run(softmax, (37,), x, o, d, x.stride(0), B=512)
    assert (o - torch.softmax(x.double(), 1)).abs().max() < 3e-7


@pytest.mark.parametrize(("n", "d"), [(517, 100), (64, 128), (3, 5)])
def test_column_statistics(n, d):
    x = randn(n, d)
    sums, squares = torch.zeros(d, dtype=F64), torch.zeros(d, dtype=F64)
    how = {"order_seed": 4, "global_races": True}
    stats = run(colstat, (-(-d // 64), 3), x, sums, squares, n, d, how=how, BR=32, BC=64)
    assert not stats.found
    assert (sums - x.double().sum(0)).abs().max() < 5e-5
    assert (squares - (x.double() ** 2).sum(0)).abs().max() < 5e-5


KINDS = {
    "float32": (torch.float32, "ieee", tl.float32, 2e-6),
    "tf32": (torch.float32, "tf32", tl.float32, 2e-3),
    "tf32x3": (torch.float32, "tf32x3", tl.float32, 2e-6),
    "bfloat16": (torch.bfloat16, "ieee", tl.float32, 2e-6),
    "float16": (torch.float16, "ieee", tl.float32, 2e-6),
    "float64": (F64, "ieee", tl.float64, 1e-14),
}


def gram_call(kind, n, d, stages):
    """(features, a Gram matrix to be filled, tolerance, constants)"""
    dtype, precision, accumulator, tolerance = KINDS[kind]
    g = torch.full((d, d), NAN, dtype=torch.promote_types(dtype, torch.float32))
    constants = {"BM": 64, "BK": 32, "PREC": precision, "ACC": accumulator, "STAGES": stages}
    return randn(n, d, dtype=dtype), g, tolerance, constants | {"num_stages": stages, "num_warps": 4}


@pytest.mark.parametrize(
    ("n", "d", "stages"),
    [
        (150, 100, 3),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((150, 100, 1), (144, 96, 1), (144, 96, 3))),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_gram(kind, n, d, stages):
    x, g, tolerance, constants = gram_call(kind, n, d, stages)
    stats = run(gram, (2, 2), x, g, n, d, **constants)
    exact = x.double().T @ x.double()
    assert not stats.found
    assert (g - exact).abs().max() / exact.abs().max() < tolerance
    if kind == "tf32":
        # The matrix units drop the low 13 bits of their operands.
        seen = (x.view(torch.int32) & -8192).view(torch.float32).double()
        assert (g - seen.T @ seen).abs().max() / exact.abs().max() < 2e-6


# Triton's interpreter multiplies the raw bits of bfloat16.
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "float16", "float64"])
def test_schedules_and_interpreter_agree(kind):
    x, g, tolerance, constants = gram_call(kind, 133, 77, 3)
    run(gram, (2, 2), x, g, 133, 77, **constants)
    for how in (BY_WARP, ONE_BY_ONE):
        other = torch.full_like(g, NAN)
        run(gram, (2, 2), x, other, 133, 77, how=how, **constants)
        assert (g - other).abs().max() <= tolerance * g.abs().max()
    other = torch.full_like(g, NAN)
    interpret(gram, (2, 2), x, other, 133, 77, **constants)
    assert (g - other).abs().max() <= tolerance * g.abs().max()


def ticket_call():
    return randn(10000), torch.full((10,), NAN, dtype=F64), torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=F64)


@pytest.mark.parametrize("how", [{}, ONE_BY_ONE, BY_WARP], ids=["together", "one by one", "by warp"])
def test_last_block_finishes(how):
    x, partial, count, out = ticket_call()
    stats = run(ticket, (10,), x, partial, count, out, 10000, how={"global_races": True, **how}, B=1024, NP=64)
    exact = (x.double() ** 2).sum()
    assert abs(out - exact) / exact < 1e-14
    assert count.item() == 0
    assert not stats.found


def test_ticket_without_order_is_caught():
    def relaxed(ptx):
        return ptx.replace("atom.global.gpu.acq_rel", "atom.global.gpu.relaxed")

    with pytest.raises(PTXRace, match="read of argument 1 .* written by block"):
        run(ticket, (10,), *ticket_call(), 10000, edit=relaxed, how={"global_races": True}, B=1024, NP=64)


@pytest.mark.parametrize(("precision", "tolerance"), [("ieee", 1e-6), ("tf32", 1e-3)])
def test_fused(precision, tolerance):
    n, k = 100, 70
    x, y, out = randn(n, k) / 8, randn(n, k, seed=1) / 8, torch.zeros(1, dtype=F64)
    run(fused, (2, 2), x, y, out, n, k, BM=64, BK=32, PREC=precision, num_stages=3)
    g, h = x.double() @ x.double().T, y.double() @ y.double().T
    assert abs(out / (g**2 * (1 - h**2)).sum() - 1) < tolerance


def mutants(text, pattern, change):
    """The text with one occurrence of the pattern changed at a time."""
    for found in re.finditer(pattern, text):
        yield text[: found.start()] + change(found) + text[found.end() :]


@pytest.mark.slow
def test_planted_bugs():
    """Missing barriers, missing waits and exchanged fragment registers change the result or are reported."""
    x, g, _, constants = gram_call("bfloat16", 200, 96, 3)
    module, name, compiled, values = build(Launch(gram, 4, (x, g, 200, 96), constants))

    def go(text, **how):
        g.fill_(NAN)
        shared = compiled.metadata.shared
        stats = Module(text).launch(name, (2, 2), 128, values, shared, races="report", **how)
        return g.clone(), any("race" in kind for kind in stats.found)

    good, found = go(module.text)
    assert not found
    assert torch.equal(go(module.text, schedule="warp", order_seed=7)[0], good)

    without_a_barrier = list(mutants(module.text, r"bar\.sync\s+0;", lambda _: ";"))
    reported = sum(go(text)[1] for text in without_a_barrier)
    wrong = sum(not torch.equal(go(text, schedule="warp")[0], good) for text in without_a_barrier)
    # Two barriers are redundant in every Triton so far: those at the first use and after the loop.
    assert reported == wrong == len(without_a_barrier) - 2

    too_weak = re.sub(r"wait_group\s+2", "wait_group 4", module.text)
    assert too_weak != module.text
    assert go(too_weak)[0].isnan().any()

    fragment = r"(mma\S+ \{[^}]*\}, \{ )(%r\d+)(, )(%r\d+)"
    exchanged = list(mutants(module.text, fragment, lambda found: found[1] + found[4] + found[3] + found[2]))
    assert exchanged
    for text in exchanged[:4]:
        assert (go(text)[0] - good).abs().max() > 0.1
    assert not torch.equal(go(module.text.replace(".trans", ""))[0], good)


@pytest.mark.parametrize(
    "kind", ["bfloat16", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("tf32", "float32", "float64"))]
)
def test_profile_of_gram(kind):
    """The counters are those of the algorithm, do not depend on the order, and change no result."""
    n, d = 128, 192
    x, g, _, constants = gram_call(kind, n, d, 3)
    profiles = []
    for how in ({}, BY_WARP, {"batch": 2}):
        profiles.append(run(gram, (3, 3), x, g, n, d, how={**how, "profile": True}, **constants).profile)
        assert vars(profiles[0]) == vars(profiles[-1])
    profiled, p = g.clone(), profiles[0]
    assert run(gram, (3, 3), x, g.fill_(NAN), n, d, **constants).profile is None
    assert torch.equal(g, profiled)
    assert (p.total["mma_flops"] or p.flops["fp32"]) == 2 * n * d * d
    stored = d * d * g.element_size()
    assert p.total["load_sectors"] * 32 == p.total["requested"] - stored == 9 * n * 128 * x.element_size()
    assert p.total["coalescing"] == 1
    assert p.buffers["argument 0"]["reread"] == 6
    assert p.buffers["argument 0"]["unique_loaded"] == n * d * x.element_size()
    assert p.total["store_sectors"] * 32 == p.buffers["argument 1"]["unique_stored"] == stored


def test_nothing_is_counted_without_profile():
    x = randn(256)
    module, name, _, values = build(Launch(vadd, 1, (x, x, x, 256), {"B": 256, "MASK": True}))
    assert module.launch(name, 1, 128, values).profile is None
    assert "profile" not in module.kernel(name).source
    assert module.launch(name, 1, 128, values, profile=True).profile
    assert "G.profile" in module.kernel(name, True).source
