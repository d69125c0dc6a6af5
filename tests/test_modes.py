"""torch.compile, torch.library.opcheck, export, threads, and imports without what is optional."""

import pytest
import torch
from cases import features, run_python
from torch import nn

import itrd_kernels
from itrd_kernels import FusedITRDLoss, backends, dispatch, itrd_loss, schema
from itrd_kernels.backends import native
from itrd_kernels.backends.base import Backend


@pytest.mark.parametrize(("d_s", "d_t"), [(6, 6), (6, 8)])
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", ["auto", "reference"])
def test_compile_gives_one_graph(d_s, d_t, compiler, name):
    torch._dynamo.reset()
    criterion = FusedITRDLoss(d_s, d_t, backend=name)
    compiled = torch.compile(criterion, fullgraph=True, backend=compiler)
    for n in (20, 20, 13):
        z_s, z_t = features(n, d_s, torch.float32, 1).requires_grad_(), features(n, d_t, torch.float32, 2)
        expected, actual = criterion(z_s, z_t), compiled(z_s, z_t)
        torch.testing.assert_close(actual, expected)
        (ours,) = torch.autograd.grad(actual, z_s)
        (plain,) = torch.autograd.grad(expected, z_s)
        torch.testing.assert_close(ours, plain)
    with torch.no_grad():
        torch.testing.assert_close(compiled(z_s, z_t), expected)


def test_compile_with_what_changes_between_steps():
    torch._dynamo.reset()
    criterion = FusedITRDLoss(6, 6)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager", dynamic=True)
    z_s, z_t = features(20, 6, torch.float32, 1).requires_grad_(), features(20, 6, torch.float32, 2)
    for step in range(4):
        criterion.beta_mi, criterion.alpha = 1.0 + step / 3, 1.1 + step / 7
        torch.testing.assert_close(compiled(z_s, z_t), criterion(z_s, z_t))


def test_compile_with_one_tensor_as_two_inputs():
    torch._dynamo.reset()
    z_s, z_t = features(20, 6, torch.float32, 1).requires_grad_(), features(20, 6, torch.float32, 2)
    unembedded = FusedITRDLoss(6, 6, embed=nn.Identity())
    for function, inputs in ((unembedded, (z_s, z_t)), (itrd_kernels.correlation_loss, (z_s, z_s))):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), function(*inputs))


def test_compiled_training_step():
    torch._dynamo.reset()
    student, criterion = nn.Linear(10, 6), FusedITRDLoss(6, 8)

    def step(x, z_t):
        return criterion(student(x).relu(), z_t)

    x, z_t = features(20, 10, torch.float32, 1), features(20, 8, torch.float32, 2)
    grads = []
    for function in (step, torch.compile(step, fullgraph=True)):
        parameters = [*student.parameters(), *criterion.parameters()]
        grads.append(torch.autograd.grad(function(x, z_t), parameters))
    for ours, expected in zip(*grads, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("d_s", [None, 5])
@pytest.mark.parametrize(
    ("betas", "want"),
    [
        ((2.0, 1.0), (True, True, True)),
        ((2.0, 1.0), (True, False, False)),
        ((2.0, 1.0), (False, False, False)),
        ((0.0, 1.0), (True, True, True)),
        ((1.0, 0.0), (True, True, True)),
    ],
)
def test_opcheck(backend, d_s, betas, want):
    # A term without weight comes back as NaN, which the check through AOTAutograd takes for a difference.
    utilities = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if all(betas):
        utilities.append("test_aot_dispatch_dynamic")
    z_e, z_t = features(9, 6, torch.float32, 1), features(9, 6, torch.float32, 2)
    z_s = None if d_s is None else features(9, d_s, torch.float32, 3)
    want_e, want_t, want_s = want[0], want[1], want[2] and z_s is not None
    operators = getattr(torch.ops, f"itrd_{backend}")
    forward_args = (z_e, z_t, z_s, 1.5, *betas, False, want_e, want_t, want_s, False)
    torch.library.opcheck(operators.forward.default, forward_args, test_utils=utilities)
    total, _, _, *saved = operators.forward(*forward_args)
    upstream = torch.ones_like(total), None, torch.ones_like(total)
    backward_args = (*upstream, z_e, z_t, z_s, *saved, *betas, want_e, want_t, want_s)
    torch.library.opcheck(operators.backward.default, backward_args)


def test_operators_refuse_what_they_did_not_save(backend):
    if backend == "triton":
        pytest.skip("its operators, called past autograd, trust what they are given; see the C++ ones")
    operators = getattr(torch.ops, f"itrd_{backend}")
    z = features(8, 4, torch.float32, 1)
    wanted = (True, False, False)
    total, _, _, moments, dgram_s, dgram_t = operators.forward(z, z, None, 1.5, 2.0, 1.0, False, *wanted, False)
    rest = (2.0, 1.0, *wanted)
    for bad in ((moments[:, :2], dgram_s), (moments, dgram_s[:3]), (moments, dgram_s[0]), (moments.double(), dgram_s)):
        with pytest.raises(RuntimeError, match="not the one that forward returned"):
            operators.backward(total, None, None, z, z, None, *bad, dgram_t, *rest)
    with pytest.raises(RuntimeError, match="upstream gradients"):
        operators.backward(total.double(), None, None, z, z, None, moments, dgram_s, dgram_t, *rest)
    with pytest.raises(RuntimeError, match=r"expected \(n, d\) inputs"):
        operators.backward(total, None, None, z, z[:5], None, moments, dgram_s, dgram_t, *rest)


def test_schemas_are_those_of_python(backend):
    operators = getattr(torch.ops, f"itrd_{backend}")
    for overload, expected in (
        (operators.forward, schema.FORWARD),
        (operators.backward, schema.BACKWARD),
        (operators.gram, schema.GRAM),
    ):
        assert str(overload.default._schema) == str(torch._C.parse_schema(f"itrd_{backend}::{expected}"))


def test_export():
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.criterion = FusedITRDLoss(6, 8)

        def forward(self, z_s, z_t):
            return self.criterion(z_s, z_t)

    step = Step()
    inputs = features(20, 6, torch.float32, 1), features(20, 8, torch.float32, 2)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(step, inputs).module()(*inputs), step(*inputs))


@pytest.mark.parametrize(("n", "d"), [(300, 50), (90, 400)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_thread_counts_agree(n, d, dtype):
    if itrd_kernels.available_backends()["cpu"] is not None:
        pytest.skip("the native library is not built here")
    z_e, z_t = features(n, d, dtype, 1).requires_grad_(), features(n, d, dtype, 2)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        total = itrd_loss(z_e, z_t, backend="cpu").total
        results.append((total.detach(), *torch.autograd.grad(total, z_e)))
    torch.set_num_threads(before)
    # The order of every sum is fixed by the shapes alone.
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_import_without_triton():
    code = """
import sys
sys.modules["triton"] = None
import itrd_kernels, torch
assert itrd_kernels.available_backends()["triton"]
itrd_kernels.FusedITRDLoss(3, 4)(torch.randn(6, 3), torch.randn(6, 4)).backward()
"""
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr


WITHOUT_NATIVE_LIBRARY = """
import torch, warnings
def refuse(path):
    raise OSError("cannot open shared object file")
torch.ops.load_library = refuse
import itrd_kernels
z_s, z_t = torch.randn(6, 3), torch.randn(6, 3)
warnings.simplefilter("always")
def warned(call):
    with warnings.catch_warnings(record=True) as seen:
        call()
    return [str(w.message) for w in seen if "plain PyTorch formulas" in str(w.message)]
"""


def test_import_without_native_library():
    code = """
assert "native library" in itrd_kernels.available_backends()["cpu"], itrd_kernels.available_backends()
try:
    itrd_kernels.correlation_loss(z_s, z_t, backend="cpu")
except RuntimeError as error:
    assert "native library" in str(error) and "pip install --no-build-isolation" in str(error), error
else:
    raise AssertionError("backend='cpu' ran")
"""
    result = run_python("-c", WITHOUT_NATIVE_LIBRARY + code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "first",
    ["itrd_kernels.correlation_loss", "torch.compile(itrd_kernels.correlation_loss, fullgraph=True, backend='eager')"],
)
def test_falling_back_to_the_formulas_is_said_once(first):
    code = f"""
asked = lambda: itrd_kernels.correlation_loss(z_s, z_t, backend="reference")
transformed = lambda: torch.func.grad(itrd_kernels.correlation_loss)(z_s, z_t)
elsewhere = lambda: itrd_kernels.correlation_loss(z_s.to("meta"), z_t.to("meta"))
assert not warned(asked) and not warned(transformed) and not warned(elsewhere)
(said,) = warned(lambda: {first}(z_s, z_t))
assert "on cpu tensors" in said and "cannot open shared object file" in said, said
assert "pip install --no-build-isolation" in said and "backend='reference'" in said, said
assert not warned(lambda: itrd_kernels.itrd_loss(z_s, z_t))
"""
    result = run_python("-c", WITHOUT_NATIVE_LIBRARY + code)
    assert result.returncode == 0, result.stderr


def test_an_installed_package_and_a_checkout_are_told_different_remedies(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "_PACKAGE", tmp_path / "itrd_kernels")
    installed = native.load("cpu")
    (tmp_path / "setup.py").touch()
    checkout = native.load("cpu")
    assert "was not built; with a C++ compiler, install again from a checkout" in installed
    assert f"pip install --no-build-isolation -e {tmp_path}; or" in checkout
    assert "start Python in another folder" in checkout


def test_command_line_report():
    result = run_python("-m", "itrd_kernels")
    assert result.returncode == 0, result.stderr
    assert f"torch {torch.__version__}" in result.stdout
    for name in itrd_kernels.available_backends():
        assert f"backend {name}" in result.stdout
    assert f'backend="auto" takes {backends.fastest("cpu")} for cpu tensors' in result.stdout


def test_auto_looks_at_every_device_type_that_a_backend_names(monkeypatch):
    fast = Backend("fast", ("xpu",), lambda: None)
    broken = Backend("broken", ("xpu", "mps"), lambda: "it is broken")
    monkeypatch.setattr(backends, "_RECORDS", (broken, fast))
    monkeypatch.setattr(backends, "WITH_OPERATORS", {"broken": broken, "fast": fast})
    monkeypatch.setattr(backends, "_REASONS", {"broken": "it is broken", "fast": None})
    monkeypatch.setattr(backends, "_FASTEST", backends.fastest_by_device_type())
    assert {kind: backends.fastest(kind) for kind in ("xpu", "mps", "cpu")} == {
        "xpu": "fast",
        "mps": "reference",
        "cpu": "reference",
    }
    with pytest.warns(UserWarning, match=r"on mps tensors.*no fused backend can run \(broken: it is broken\)"):
        dispatch._warn_of_formulas.__wrapped__("mps")
    with pytest.warns(UserWarning, match="on hpu tensors.*no fused backend takes such tensors"):
        dispatch._warn_of_formulas.__wrapped__("hpu")
