"""The operator `gram` on every backend: the triangle of all pairs, and rectangles of own × other rows, by loss."""

import pytest
import torch
from cases import DTYPES, assert_within_budget, features, pairwise

from itrd_kernels import dispatch
from itrd_kernels.pair_losses.pkt import UnitRows

# (n, d_s, d_t)
SHAPES = ((2, 1, 3), (33, 40, 7), (65, 24, 130), (150, 33, 64), (300, 16, 48))
LOSSES = ("mutual_information", "polynomial", "pkt")
PARAMETERS = {"mutual_information": (), "polynomial": (0.5, 3.0)}
# Rows of the batch that are own; None: the triangle.
OWN = (None, (0, 1), (0.3, 0.7), (0.5, 1.0), (0.4, 0.4))
MASKS = ("all", "some", "zero rows")


def batch(n, d_s, d_t, dtype, masks, extreme=False):
    """Student, teacher, and which rows count: those that do not hold NaN."""
    s, t = features(n, d_s, dtype, 1), features(n, d_t, dtype, 2)
    if extreme:
        s[::3] *= 2.0**70
        t[1::4] *= 2.0**-70
    if masks != "all":
        s[1::7] = 0
        t[1::5] = 0
    keep = torch.arange(n) % 4 != 1 if masks == "some" else None
    if keep is not None:
        s[~keep] = t[~keep] = torch.nan
    return s, t, keep


def call(backend, z, keep, loss, own, wide=None, want=(True, True), coefficients=None):
    """`gram` of those rows, the inputs and what goes with them in another dtype if `wide` is one."""
    s, t = (x if wide is None else x.to(wide) for x in z)
    n = len(s)
    accumulator = torch.promote_types(s.dtype, torch.float32)
    parameters, statistics = PARAMETERS.get(loss), None
    if loss == "pkt":
        kept = torch.ones(n, dtype=torch.bool, device=s.device) if keep is None else keep
        count = int(kept.sum())
        rows = [UnitRows.of(x.double().where(kept[:, None], 0.0)) for x in z]
        statistics = torch.stack([kept / (1 + x.along / count) for x in rows]).to(accumulator)
        parameters = (1 / count**3, count * 1e-7)
    options = {} if coefficients is None else {"coefficients": coefficients.to(s.device, accumulator)}
    if own is None:
        return dispatch.gram(
            backend, s, t, loss, parameters, keep=keep, statistics=statistics, want_s=want[0], want_t=want[1], **options
        )
    begin, end = (int(n * part) for part in own)
    part = slice(begin, end)
    return dispatch.gram(
        backend,
        s[part],
        t[part],
        loss,
        parameters,
        other=(s, t),
        offset=begin,
        keep=None if keep is None else keep[part],
        other_keep=keep,
        statistics=None if statistics is None else statistics[:, part],
        other_statistics=statistics,
        want_s=want[0],
        want_t=want[1],
        **options,
    )


def compare(backend, z, keep, loss, own, dtype, **options):
    actual = call(backend, z, keep, loss, own, **options)
    exact = call("reference", z, keep, loss, own, wide=torch.float64, **options)
    wide = torch.promote_types(dtype, torch.float32)
    plain = call("reference", z, keep, loss, own, wide=wide, **options)
    assert actual.sums.dtype == torch.float64
    assert torch.equal(actual.sums[2:], exact.sums[2:])
    size = float(exact.sums[0].abs()) + _potential(exact.sums, loss, options.get("coefficients"))
    assert_within_budget(actual.sums[:1], plain.sums[:1], exact.sums[:1], wide, size)
    assert_within_budget(actual.sums[1:2], plain.sums[1:2], exact.sums[1:2], wide)
    for name in ("dgram_s", "dgram_t", "row_sums"):
        a, p, e = (getattr(outputs, name) for outputs in (actual, plain, exact))
        assert (a.shape, a.dtype) == (e.shape, wide), name
        if a.numel():
            # Weights are kept in the features' dtype by some backends.
            assert_within_budget(a, p, e, dtype if name != "row_sums" else wide, size=_size(name, exact))
            assert not a[(e == 0).all(1)].any() or name == "row_sums" or a.shape[1] == 1


def _potential(sums, loss, coefficients):
    # c_st Σ G_s² G_t², which the first sum of L_mi takes from another of about this size.
    trace = max(float(sums[3]), 1.0) * (1.5**6 if loss == "polynomial" else 1.0)
    return float(sums[1]) * (trace**-2 if coefficients is None else float(coefficients[1]))


def _size(name, exact):
    # Row sums of PKT are near 0 where student and teacher are alike: what cancels is of order one, per entry.
    if name == "row_sums":
        return exact.row_sums.numel() ** 0.5
    # Of rows of one element the projection leaves nothing, and what it takes may be as large as the other side's.
    sides = [
        x for x in (exact.dgram_s, exact.dgram_t) if x is getattr(exact, name) or getattr(exact, name).shape[1] == 1
    ]
    return 4 * max(side.norm().item() for side in sides)


@pairwise(dtype=DTYPES, shape=SHAPES, loss=LOSSES, own=OWN, masks=MASKS)
def test_every_schedule_agrees_with_the_formula(backend, dtype, shape, loss, own, masks):
    n, d_s, d_t = shape
    s, t, keep = batch(n, d_s, d_t, dtype, masks)
    compare(backend, (s, t), keep, loss, own, dtype)


@pytest.mark.parametrize("want", [(True, False), (False, True), (False, False)], ids=["student", "teacher", "none"])
@pytest.mark.parametrize("own", [None, (0.3, 0.8)], ids=["triangle", "rectangle"])
@pytest.mark.parametrize("loss", LOSSES)
def test_only_what_is_wanted_is_formed(backend, loss, own, want):
    s, t, keep = batch(70, 20, 12, torch.float64, "zero rows")
    outputs = call(backend, (s, t), keep, loss, own, want=want)
    everything = call(backend, (s, t), keep, loss, own)
    assert [outputs.dgram_s.numel() > 0, outputs.dgram_t.numel() > 0] == list(want)
    assert (outputs.row_sums.numel() > 0) == (loss == "pkt" and any(want))
    torch.testing.assert_close(outputs.sums, everything.sums, rtol=1e-13, atol=0)
    for name, wanted in zip(("dgram_s", "dgram_t"), want, strict=True):
        if wanted:
            torch.testing.assert_close(getattr(outputs, name), getattr(everything, name), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("own", [None, (0.3, 0.8)], ids=["triangle", "rectangle"])
@pytest.mark.parametrize("loss", ["mutual_information", "polynomial"])
def test_coefficients_from_outside_take_the_place_of_the_counts(backend, loss, own):
    s, t, keep = batch(70, 20, 12, torch.float64, "zero rows")
    compare(
        backend, (s, t), keep, loss, own, torch.float64, coefficients=torch.tensor([0.25, 0.5], dtype=torch.float64)
    )
    potentials = call(backend, (s, t), keep, loss, own, want=(False, False), coefficients=torch.tensor([1.0, 0.0]))
    exact = call("reference", (s, t), keep, loss, own, coefficients=torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(potentials.sums, exact.sums, rtol=1e-12, atol=0)


@pytest.mark.parametrize("own", [None, (0.3, 0.8)], ids=["triangle", "rectangle"])
@pytest.mark.parametrize("loss", LOSSES)
def test_rows_at_the_ends_of_the_range_are_brought_to_order_one(backend, loss, own):
    s, t, keep = batch(70, 20, 12, torch.float32, "zero rows", extreme=True)
    compare(backend, (s, t), keep, loss, own, torch.float32)


@pytest.mark.parametrize("loss", LOSSES)
def test_rectangles_of_all_rows_add_up_to_the_triangle(backend, loss):
    s, t, keep = batch(200, 40, 24, torch.float64, "some")
    whole = call(backend, (s, t), keep, loss, None)
    parts = [call(backend, (s, t), keep, loss, own) for own in ((0, 0.15), (0.15, 0.16), (0.16, 1))]
    torch.testing.assert_close(sum(part.sums[:2] for part in parts), whole.sums[:2], rtol=1e-12, atol=0)
    for name in ("dgram_s", "dgram_t"):
        joined = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(joined, getattr(whole, name), rtol=1e-11, atol=1e-16)
    if loss == "pkt":
        torch.testing.assert_close(torch.cat([p.row_sums for p in parts], 1), whole.row_sums, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("own", [None, (0.3, 0.8)], ids=["triangle", "rectangle"])
def test_padding_with_zero_rows_changes_nothing(backend, own):
    s, t, _ = batch(70, 20, 12, torch.float64, "all")
    padded = torch.cat([s, s.new_zeros(13, 20)]), torch.cat([t, t.new_zeros(13, 12)])
    count = 70
    own = own and tuple(part * count / 83 + 1e-9 for part in own)
    keep = torch.arange(83) < count
    for loss in LOSSES:
        plain = call(backend, (s, t), None, loss, own and (own[0] * 83 / count, own[1] * 83 / count))
        more = call(backend, padded, keep if loss == "pkt" else None, loss, own)
        torch.testing.assert_close(more.sums, plain.sums, rtol=1e-13, atol=0)
        rows = len(plain.dgram_s)
        torch.testing.assert_close(more.dgram_s[:rows], plain.dgram_s, rtol=1e-12, atol=1e-16)
        assert not more.dgram_s[rows:].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_results_repeat_bit_for_bit(backend, loss):
    s, t, keep = batch(150, 40, 24, torch.float32, "some")
    for own in (None, (0.3, 0.8)):
        first, second = (call(backend, (s, t), keep, loss, own) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("own", [None, (0.3, 0.8)], ids=["triangle", "rectangle"])
@pytest.mark.parametrize("loss", LOSSES)
def test_opcheck(backend, loss, own):
    s, t, keep = batch(20, 5, 7, torch.float32, "some")
    n, begin = len(s), 6
    statistics = torch.rand(2, n) + 0.5 if loss == "pkt" else None
    parameters = {"mutual_information": (), "polynomial": (0.5, 2.0), "pkt": (1e-3, 1e-6)}[loss]
    rows = slice(begin, 15) if own else slice(None)
    torch.library.opcheck(
        getattr(torch.ops, f"itrd_{backend}").gram.default,
        (
            s[rows], t[rows], s if own else None, t if own else None, begin if own else 0, keep[rows],
            keep if own else None, loss, parameters, None, None if statistics is None else statistics[:, rows],
            statistics if own else None, True, True, False,
        ),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )  # fmt: skip


def test_what_does_not_fit_is_refused(backend):
    s, t, _ = batch(20, 5, 7, torch.float32, "all")
    with pytest.raises(RuntimeError, match="loss"):
        dispatch.gram(backend, s, t, "nothing", ())
    with pytest.raises(RuntimeError, match="parameters"):
        dispatch.gram(backend, s, t, "polynomial", (1.0,))
    with pytest.raises(RuntimeError, match="other"):
        dispatch.gram(backend, s, t, "mutual_information", (), other=(s[:, :4], t))
    with pytest.raises(RuntimeError, match="statistics"):
        dispatch.gram(backend, s[3:], t[3:], "pkt", (1.0, 1e-6), other=(s, t), offset=3)
    if not dispatch.forms_statistics(backend):
        with pytest.raises(RuntimeError, match="statistics"):
            dispatch.gram(backend, s, t, "pkt", (1.0, 1e-6))
    with pytest.raises(RuntimeError, match="statistics"):
        dispatch.gram(backend, s, t, "pkt", (1.0, 1e-6), statistics=torch.ones(2, 19))
    with pytest.raises(RuntimeError, match="offset"):
        dispatch.gram(backend, s[3:], t[3:], "mutual_information", (), other=(s, t), offset=4)
    with pytest.raises(RuntimeError, match="keep"):
        dispatch.gram(backend, s, t, "mutual_information", (), keep=torch.ones(20))
