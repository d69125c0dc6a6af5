"""The CPU backend keeps memory between calls: nobody may see anything of it."""

import threading

import pytest
import torch
from cases import features

import itrd_kernels
from itrd_kernels.functional import mutual_information_loss

pytestmark = pytest.mark.skipif(
    itrd_kernels.available_backends()["cpu"] is not None, reason="the native library is not built here"
)


def gradient(seed, n=300, d=200):
    """Of a size that is kept."""
    z_s, z_t = features(n, d, torch.float32, seed).requires_grad_(), features(n, d, torch.float32, seed + 1)
    mutual_information_loss(z_s, z_t, backend="cpu").backward()
    return z_s.grad


def test_results_outlive_the_next_calls():
    held = [gradient(seed) for seed in range(3)]
    for seed, value in enumerate(held):
        assert torch.equal(value, gradient(seed))


def test_a_graph_keeps_what_it_saved():
    z_s, z_t = features(300, 200, torch.float32, 1).requires_grad_(), features(300, 200, torch.float32, 2)
    loss = mutual_information_loss(z_s, z_t, backend="cpu")
    gradient(5)
    loss.backward()
    assert torch.equal(z_s.grad, gradient(1))


def test_results_outlive_their_thread():
    held = []
    thread = threading.Thread(target=lambda: held.append(gradient(1)))
    thread.start()
    thread.join()
    expected = gradient(1)
    assert torch.equal(held[0], expected)
    held.clear()
    assert torch.equal(gradient(1), expected)


@pytest.mark.parametrize("d", [16383, 16384])
def test_sizes_around_that_of_kept_memory(d):
    # 2 rows of 16384 float32 are the smallest gradient that is kept.
    first, again = gradient(1, n=2, d=d), gradient(1, n=2, d=d)
    assert torch.equal(first, again)
    assert first.isfinite().all()
