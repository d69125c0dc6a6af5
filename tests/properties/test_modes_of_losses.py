"""Every loss of losses.py on every backend: derivatives by differences, vmap, compile, repeated bits, zero rows."""

import pytest
import torch
from cases import features
from losses import LOSSES, Settings

from itrd_kernels import backends

BACKENDS = ("reference", *backends.WITH_OPERATORS)
# Settings under which each loss is tried here, one after the other.
SETTINGS: dict[str, list[Settings]] = {
    "correlation": [{"alpha": 1.5}],
    "mutual_information": [{"log": False}, {"log": True}],
    "polynomial": [{"kernel": (0.5, 3), "log": False}, {"kernel": (1.0, 2), "log": True}],
    "pkt": [{"eps": 1e-7}, {"eps": 1e-2}],
    "itrd": [{"alpha": 1.5, "betas": (2.0, 1.0), "log": False}],
}
CASES = [pytest.param(name, settings, id=f"{name}-{i}") for name in LOSSES for i, settings in enumerate(SETTINGS[name])]
# Losses of normalised rows.
OF_ROWS = [
    pytest.param(name, settings, id=f"{name}-{i}")
    for name, loss in LOSSES.items()
    if loss.slices == 1
    for i, settings in enumerate(SETTINGS[name])
]


def loss_of(name, backend, settings):
    return lambda *z: LOSSES[name].call(*z, backend=backend, **settings)


def inputs(name, n, dtype, wanted=True):
    """Student and teacher, of one width where the loss needs it."""
    d_t = 4 if LOSSES[name].same_width({"betas": (1, 1)}) else 3
    return [features(n, d, dtype, seed).requires_grad_(wanted) for seed, d in enumerate((4, d_t))]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_gradients_by_differences(backend, name, settings):
    # Differences over 1e-6 need a loss that is not curved more than that: PKT's cosines of −1 are kept apart.
    z = [x.detach().abs().requires_grad_() for x in inputs(name, 6, torch.float64)]
    assert torch.autograd.gradcheck(loss_of(name, backend, settings), z)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_second_derivatives_through_the_formula(backend, name, settings):
    z = [x.detach().abs().requires_grad_() for x in inputs(name, 5, torch.float64)]
    assert torch.autograd.gradgradcheck(loss_of(name, backend, settings), z)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_vmap_gives_each_batch_its_loss(backend, name, settings):
    function = loss_of(name, backend, settings)
    batches = [torch.stack([inputs(name, 7, torch.float64, False)[i] * (1 + k) + k for k in range(3)]) for i in (0, 1)]
    expected = torch.stack([function(s, t) for s, t in zip(*batches, strict=True)])
    torch.testing.assert_close(torch.func.vmap(function)(*batches), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_compile_gives_one_graph(backend, name, settings):
    torch._dynamo.reset()
    function = loss_of(name, backend, settings)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for n in (9, 12):
        results = []
        for call in (function, compiled):
            z = inputs(name, n, torch.float32)
            value = call(*z)
            results.append((value.detach(), *torch.autograd.grad(value, z)))
        for expected, actual in zip(*results, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_results_repeat_bit_for_bit(backend, name, settings):
    results = []
    for _ in range(2):
        z = inputs(name, 70, torch.float32)
        value = loss_of(name, backend, settings)(*z)
        results.append((value.detach(), *torch.autograd.grad(value, z)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(("name", "settings"), OF_ROWS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_zero_rows_get_no_gradient(backend, name, settings, dtype):
    z = inputs(name, 40, dtype, False)
    z[0][[3, 20]], z[1][[3, 5]] = 0, 0
    z = [x.requires_grad_() for x in z]
    value = loss_of(name, backend, settings)(*z)
    for x, grad in zip(z, torch.autograd.grad(value, z), strict=True):
        assert value.isfinite()
        assert grad.isfinite().all()
        assert not grad[(x == 0).all(1)].any()


@pytest.mark.parametrize("name", LOSSES)
def test_only_wanted_gradients_come(backend, name):
    settings = SETTINGS[name][0]
    for wanted in ((True, False), (False, True)):
        z = [x.detach().requires_grad_(want) for x, want in zip(inputs(name, 20, torch.float32), wanted, strict=True)]
        everything = inputs(name, 20, torch.float32)
        loss_of(name, backend, settings)(*z).backward()
        grads = torch.autograd.grad(loss_of(name, backend, settings)(*everything), everything)
        for x, grad, want in zip(z, grads, wanted, strict=True):
            assert (x.grad is not None) == want
            if want:
                torch.testing.assert_close(x.grad, grad, rtol=1e-5, atol=1e-7)
