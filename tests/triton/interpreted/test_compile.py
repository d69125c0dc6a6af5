"""torch.compile of the module with this backend: one graph, the operators opaque to it, the same results."""

import pytest
import torch

from itrd_kernels import FusedITRDLoss


@pytest.mark.parametrize("teacher", [False, True])
def test_one_graph(teacher):
    torch.manual_seed(0)
    criterion = FusedITRDLoss(6, 8, backend="triton")
    z_s = torch.randn(9, 6, requires_grad=True)
    z_t = torch.randn(9, 8, requires_grad=teacher)
    leaves = [z_s, *criterion.parameters()] + [z_t] * teacher

    def step(function):
        loss = function(z_s, z_t)
        return [loss, *torch.autograd.grad(loss, leaves)]

    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    for got, expected in zip(step(compiled), step(criterion), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)
