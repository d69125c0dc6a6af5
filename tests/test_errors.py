"""Bad input: each error names the argument, what came and what is expected."""

import numpy as np
import pytest
import torch
from torch import nn

from itrd_kernels import FusedITRDLoss, available_backends, correlation_loss, itrd_loss, mutual_information_loss

Z = torch.randn(8, 4)


def bad_features():
    return [
        (torch.randn(8), ValueError, r"\(n, d\).*\(8,\)"),
        (torch.randn(8, 4, 2), ValueError, r"\(n, d\).*\(8, 4, 2\)"),
        (torch.randn(1, 4), ValueError, r"n ≥ 2.*\(1, 4\)"),
        (torch.randn(8, 0), ValueError, r"d ≥ 1.*\(8, 0\)"),
        (torch.ones(8, 4, dtype=torch.int64), TypeError, "float32.*int64"),
        (torch.ones(8, 4, dtype=torch.complex64), TypeError, "float32.*complex64"),
        (torch.ones(8, 4).to(torch.float8_e4m3fn), TypeError, "float32.*float8"),
        (torch.ones(8, 4).to_sparse(), TypeError, "dense.*sparse_coo"),
        ([[1.0] * 4] * 8, TypeError, "torch.Tensor.*list"),
        (None, TypeError, "torch.Tensor.*None"),
    ]


@pytest.mark.parametrize(("bad", "error", "message"), bad_features())
def test_features(bad, error, message):
    for name, call in {
        "z_s": lambda z: correlation_loss(z, Z),
        "z_t": lambda z: correlation_loss(Z, z),
        "z_e": lambda z: itrd_loss(z, Z),
    }.items():
        with pytest.raises(error, match=f"{name}.*{message}"):
            call(bad)
    with pytest.raises(error, match=f"z_s.*{message}"):
        mutual_information_loss(bad, Z)
    with pytest.raises(error, match=f"z_t.*{message}"):
        FusedITRDLoss(4, 4)(Z, bad)
    if bad is not None:
        with pytest.raises(error, match=f"z_s.*{message}"):
            itrd_loss(Z, Z, bad)


def test_dtensor_is_refused(tmp_path):
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.tensor import distribute_tensor, init_device_mesh

    init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        distributed = distribute_tensor(Z, init_device_mesh("cpu", (1,)))
        with pytest.raises(TypeError, match="z_s is a DTensor.*to_local"):
            correlation_loss(distributed, Z)
    finally:
        destroy_process_group()


def test_disagreeing_inputs():
    with pytest.raises(ValueError, match=r"z_s and z_t.*same n.*\(8, 4\) and \(9, 4\)"):
        correlation_loss(Z, torch.randn(9, 4))
    with pytest.raises(ValueError, match=r"z_s and z_t.*same width.*\(8, 4\) and \(8, 5\).*FusedITRDLoss"):
        correlation_loss(Z, torch.randn(8, 5))
    with pytest.raises(TypeError, match=r"z_s torch.float32, z_t torch.float64.*autocast"):
        correlation_loss(Z, Z.double())
    with pytest.raises(RuntimeError, match="one device.*cpu and meta"):
        correlation_loss(Z, Z.to("meta"))
    assert mutual_information_loss(Z, torch.randn(8, 5)).isfinite()


def test_module_inputs():
    criterion = FusedITRDLoss(4, 6)
    with pytest.raises(ValueError, match=r"z_s.*student_dim = 4.*\(8, 5\)"):
        criterion(torch.randn(8, 5), torch.randn(8, 6))
    with pytest.raises(ValueError, match=r"z_t.*teacher_dim = 6.*\(8, 4\)"):
        criterion(Z, Z)
    with pytest.raises(TypeError, match=r"z_s is torch.float64.*torch.float32.*criterion.to"):
        criterion(Z.double(), torch.randn(8, 6).double())
    with pytest.raises(RuntimeError, match=r"z_s is on meta.*cpu.*criterion.to"):
        criterion(Z.to("meta"), torch.randn(8, 6, device="meta"))
    with pytest.raises(ValueError, match=r"z_e and z_t.*same width.*\(8, 4\) and \(8, 6\)"):
        FusedITRDLoss(4, 6, embed=nn.Identity())(Z, torch.randn(8, 6))


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), float("inf"), "1", None])
def test_alpha(alpha):
    error = TypeError if isinstance(alpha, str | None) else ValueError
    for call in (
        lambda: FusedITRDLoss(4, 4, alpha=alpha),
        lambda: correlation_loss(Z, Z, alpha),
        lambda: itrd_loss(Z, Z, alpha=alpha),
    ):
        with pytest.raises(error, match=f"alpha must be.*{alpha}"):
            call()


@pytest.mark.parametrize("name", ["beta_corr", "beta_mi"])
@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf"), "1", None])
def test_weights(name, value):
    error = TypeError if isinstance(value, str | None) else ValueError
    for call in (lambda: FusedITRDLoss(4, 4, **{name: value}), lambda: itrd_loss(Z, Z, **{name: value})):
        with pytest.raises(error, match=f"{name} must be.*{value}"):
            call()


@pytest.mark.parametrize(
    ("dimension", "error"), [(0, ValueError), (-3, ValueError), (4.0, TypeError), (True, TypeError)]
)
def test_dimensions(dimension, error):
    with pytest.raises(error, match=f"student_dim must be.*{dimension}"):
        FusedITRDLoss(dimension, 4)
    with pytest.raises(error, match=f"teacher_dim must be.*{dimension}"):
        FusedITRDLoss(4, dimension)


def test_flags():
    for call in (
        lambda: FusedITRDLoss(4, 4, log_mi="no"),
        lambda: mutual_information_loss(Z, Z, log="no"),
        lambda: itrd_loss(Z, Z, log=None),
    ):
        with pytest.raises(TypeError, match="log(_mi)? must be True or False"):
            call()


def test_numpy_numbers_are_numbers():
    assert FusedITRDLoss(np.int64(4), 4, alpha=np.float32(1.5), beta_mi=np.int64(1))(Z, Z).isfinite()
    with pytest.raises(ValueError, match="alpha must be finite"):
        FusedITRDLoss(4, 4, alpha=10**400)


def test_embedding_of_other_widths():
    with pytest.raises(ValueError, match="embed must map student_dim = 4 to teacher_dim = 6.*got 4 to 5"):
        FusedITRDLoss(4, 6, embed=nn.Linear(4, 5))


def test_nested_and_float64_under_autocast():
    with pytest.raises(TypeError, match="z_s must be a dense tensor, got a nested one"):
        correlation_loss(torch.nested.nested_tensor([Z, Z]), Z)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TypeError, match="z_s is torch.float64"):
        FusedITRDLoss(4, 4)(Z.double(), Z.double())


def test_embedding_must_be_a_module():
    with pytest.raises(TypeError, match="embed must be a torch.nn.Module or None"):
        FusedITRDLoss(4, 4, embed=lambda z: z)


def test_backend_names():
    for call in (
        lambda: FusedITRDLoss(4, 4, backend="gpu"),
        lambda: correlation_loss(Z, Z, backend="gpu"),
        lambda: mutual_information_loss(Z, Z, backend="gpu"),
        lambda: itrd_loss(Z, Z, backend="gpu"),
    ):
        with pytest.raises(ValueError, match="backend must be one of 'auto', 'reference'.*'gpu'"):
            call()


def test_unavailable_backends_give_the_reason():
    for name, reason in available_backends().items():
        if reason is not None:
            # The table speaks of the machine, the error of these tensors: both end in what to do.
            assert "install" in reason
            with pytest.raises(RuntimeError, match=f"backend='{name}' cannot run on cpu: .*(move the inputs|install)"):
                correlation_loss(Z, Z, backend=name)
    if available_backends()["cpu"] is None:
        with pytest.raises(RuntimeError, match="backend='cpu' cannot run on meta.*runs on cpu tensors"):
            correlation_loss(Z.to("meta"), Z.to("meta"), backend="cpu")


def test_auto_runs_wherever_pytorch_does():
    assert correlation_loss(Z.to("meta"), Z.to("meta")).device.type == "meta"
