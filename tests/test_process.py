"""The CPU backend in a process: interrupted, for many steps, and in the processes that come from it."""

import functools
import multiprocessing
import signal
import sys

import pytest
import torch
from cases import features, run_python

import itrd_kernels
from itrd_kernels import correlation_loss

pytestmark = pytest.mark.skipif(
    itrd_kernels.available_backends()["cpu"] is not None, reason="the native library is not built here"
)


def output_of(script, *arguments, **environment):
    done = run_python("-c", script, *map(str, arguments), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


# A signal arrives after a quarter of a call; `ticks` counts the sixteenths of the call until Python sees it.
INTERRUPT = """
import os, signal, threading, time, torch
from itrd_kernels import mutual_information_loss

z_s, z_t = torch.randn(2, 2000, 512)
durations, ticks, caught, calling = [], 0, False, threading.Event()
for _ in range(2):
    begin = time.monotonic()
    expected = mutual_information_loss(z_s, z_t, backend="cpu")
    durations.append(time.monotonic() - begin)

def watch():
    global ticks
    calling.wait()
    time.sleep(min(durations) / 4)
    os.kill(os.getpid(), signal.SIGINT)
    while not caught:
        time.sleep(min(durations) / 16)
        ticks += 1

# Whatever goes wrong, the process ends.
threading.Thread(target=watch, daemon=True).start()
try:
    calling.set()
    mutual_information_loss(z_s, z_t, backend="cpu")
    time.sleep(60)
except KeyboardInterrupt:
    caught = True
print(ticks, torch.equal(mutual_information_loss(z_s, z_t, backend="cpu"), expected))
"""


def test_keyboard_interrupt_comes_after_the_call():
    ticks, right_afterwards = output_of(INTERRUPT, OMP_NUM_THREADS="1", ITRD_CPU_ISA="portable")
    assert int(ticks) >= 3
    assert right_afterwards == "True"


# Steps of the module and of torch's own operators around it, in shapes that change; what resident memory grows by.
MEMORY = """
import ctypes, gc, sys, torch
from itrd_kernels import FusedITRDLoss

backend, before, after = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
torch.set_num_threads(2)
modules = [FusedITRDLoss(12, 20, backend=backend), FusedITRDLoss(16, 16, log_mi=True, backend=backend)]
large = FusedITRDLoss(128, 128, backend=backend), *torch.randn(2, 280, 128)

def step(i):
    module = modules[i % 2]
    n = 2 + i * 7 % 61
    z_s = torch.randn(n, module.embed.in_features, requires_grad=True)
    z_t = torch.randn(n, module.embed.out_features)
    loss = module(z_s, z_t)
    if i % 50 == 0:
        loss = loss + large[0](*large[1:])
    loss.backward()
    for each in (module, large[0]):
        each.zero_grad()

def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

for i in range(before):
    step(i)
start = resident()
for i in range(before, before + after):
    step(i)
print(resident() - start)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
@pytest.mark.parametrize("name", ["cpu", pytest.param("reference", marks=pytest.mark.slow)])
def test_resident_memory_does_not_grow(name):
    # Threads that wait must not keep the cores from each other.
    (growth,) = output_of(MEMORY, name, 1_000, 10_000, OMP_WAIT_POLICY="passive")
    assert int(growth) < 2**20


# The parent has used both threads of its own. What a child that is forked then does, and returns: 0 where it is right.
FORK = """
import os, signal, sys, torch
from itrd_kernels import itrd_loss
from torch.utils.data import DataLoader

what, threads = sys.argv[1], int(sys.argv[2])
torch.manual_seed(0)
z_e, z_t = torch.randn(2, 300, 200)

class Gradients:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        z = z_e.clone().requires_grad_()
        itrd_loss(z, z_t, backend="cpu").total.backward()
        return z.grad

    def __getitems__(self, indices):
        return [self[i] for i in indices]

work = {"loss": lambda: Gradients()[0], "torch": lambda: (z_e @ z_t.T).sin().expand(64, -1, -1).exp()}[what]
torch.set_num_threads(2)
expected = work()
child = os.fork()
if child == 0:
    signal.alarm(20)
    torch.set_num_threads(threads)
    os._exit(0 if torch.equal(work(), expected) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
if what == "loss" and threads == 1:
    batches = list(DataLoader(Gradients(), batch_size=2, num_workers=2, multiprocessing_context="fork"))
    print([torch.equal(each, expected) for batch in batches for each in batch] == 4 * [True])
"""

forks = pytest.mark.skipif(not hasattr(signal, "alarm"), reason="this system has no fork")


@forks
def test_forked_child_and_data_loader_workers():
    assert output_of(FORK, "loss", 1) == ["0", "True"]


@forks
@pytest.mark.slow
def test_forked_child_hangs_only_where_operators_of_torch_do():
    # OpenMP's threads do not survive a fork: whoever wants several of them in the child waits for ever.
    (loss,), (torchs,) = output_of(FORK, "loss", 2), output_of(FORK, "torch", 2)
    assert loss in ("0", torchs)
    assert torchs in ("0", str(-signal.SIGALRM))


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_processes_that_start_afresh(method):
    z_s, z_t = features(300, 200, torch.float32, 0), features(300, 200, torch.float32, 1)
    work = functools.partial(torch.autograd.functional.jacobian, functools.partial(correlation_loss, backend="cpu"))
    expected = work((z_s, z_t))
    with multiprocessing.get_context(method).Pool(1) as pool:
        for actual, right in zip(pool.apply(work, ((z_s, z_t),)), expected, strict=True):
            assert torch.equal(actual, right)
