"""The CPU backend on any number of threads, called by several at once: the results are the same bits."""

import functools
import threading

import pytest
import torch
from cases import features
from torch.utils import cpp_extension

import itrd_kernels
from itrd_kernels import itrd_loss

pytestmark = pytest.mark.skipif(
    itrd_kernels.available_backends()["cpu"] is not None, reason="the native library is not built here"
)

# (n, d_e = d_t, d_s, dtype): on threads and not, few rows, packed rows and AMX's tiles, memory that is kept and not.
CASES = [
    (7, 5, 3, torch.float32),
    (100, 144, 128, torch.float32),
    (131, 77, 45, torch.float64),
    (300, 200, 64, torch.bfloat16),
    (257, 65, 130, torch.float16),
    (700, 67, 40, torch.float32),
    (1100, 48, 33, torch.float32),
]


@functools.cache
def inputs(n, d, d_s, dtype):
    return [features(n, width, dtype, seed) for seed, width in enumerate((d, d, d_s))]


def step(*case):
    """The losses and all gradients of one case."""
    z_e, z_t, z_s = leaves = [z.detach().requires_grad_() for z in inputs(*case)]
    terms = itrd_loss(z_e, z_t, z_s, beta_corr=2.0, beta_mi=1.0, alpha=1.2, backend="cpu")
    terms.total.backward()
    return [*(term.detach() for term in terms), *(z.grad for z in leaves)]


def equal(some, others):
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


@pytest.fixture
def number_of_threads():
    """torch.set_num_threads, put back at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_any_number_of_threads_gives_the_same_bits(number_of_threads):
    number_of_threads(1)
    alone = [step(*case) for case in CASES]
    for count in (2, 3, 8, 1, 13, 2):
        number_of_threads(count)
        for case, expected in zip(CASES, alone, strict=True):
            assert equal(step(*case), expected), (count, case)


def call_at_once(callers, work):
    """work(caller) by as many threads, which begin together; what they raise is raised here."""
    barrier, errors = threading.Barrier(callers), []

    def run(caller):
        try:
            barrier.wait()
            work(caller)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize(("callers", "rounds"), [(2, 16), (9, 4)])
def test_callers_at_once(number_of_threads, callers, rounds):
    number_of_threads(2)
    alone = [step(*case) for case in CASES]

    def work(caller):
        torch.set_num_threads(1 + caller // 2 % 3)
        for i in range(rounds * len(CASES)):
            # All the same case, and each another one, in turns.
            which = (i + caller * (i // len(CASES) % 2)) % len(CASES)
            assert equal(step(*CASES[which]), alone[which]), (caller, CASES[which])

    call_at_once(callers, work)


def test_forward_and_backward_by_different_threads():
    z_e, z_t, _ = inputs(300, 200, 1, torch.float32)

    def loss():
        leaf = z_e.clone().requires_grad_()
        return leaf, itrd_loss(leaf, z_t, backend="cpu").total

    expected_leaf, expected = loss()
    expected.backward()
    graphs = [loss() for _ in range(8)]
    call_at_once(4, lambda caller: [graphs[2 * caller + i][1].backward() for i in range(2)])
    for leaf, _ in graphs:
        assert torch.equal(leaf.grad, expected_leaf.grad)


def test_beside_operators_of_torch(number_of_threads):
    number_of_threads(2)
    alone, z = [step(*case) for case in CASES], torch.randn(300, 300)
    product = z @ z

    def work(caller):
        for case, expected in zip(CASES, alone, strict=True):
            if caller:
                assert equal(step(*case), expected)
            else:
                assert torch.equal(z @ z, product)

    call_at_once(3, work)


NESTED = """
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/extension.h>

std::vector<at::Tensor> forward_within_parallel_for(const at::Tensor& z_e, const at::Tensor& z_t, int64_t count) {
  const auto forward = c10::Dispatcher::singleton().findSchemaOrThrow("itrd_cpu::forward", "");
  std::vector<at::Tensor> gradients(count);
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      torch::jit::Stack stack{z_e, z_t, c10::IValue(), 1.5, 2.0, 1.0, false, true, true, false, false};
      forward.callBoxed(&stack);
      gradients[i] = stack[4].toTensor();
    }
  });
  return gradients;
}
"""


@pytest.mark.slow
def test_within_parallelism_of_torch(number_of_threads, tmp_path):
    nested = cpp_extension.load_inline(
        "nested", NESTED, functions=["forward_within_parallel_for"], build_directory=str(tmp_path)
    )
    number_of_threads(4)
    for case in CASES:
        z_e, z_t, _ = inputs(*case)
        expected = torch.ops.itrd_cpu.forward(z_e, z_t, None, 1.5, 2.0, 1.0, False, True, True, False, False)[4]
        for actual in nested.forward_within_parallel_for(z_e, z_t, 9):
            assert torch.equal(actual, expected)
