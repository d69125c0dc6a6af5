"""`make bench-gpu`: times of a training step on the GPU that is here, as a Markdown report for the README.

A step is loss and gradients from features that lie on the device. The bytes and operations are those
that csrc/README.md counts; fractions are of what a copy and a matrix product reach on the same GPU, in the same run.
"""

import sys

import torch

import itrd_kernels
from itrd_kernels import available_backends, itrd_loss

SHAPES = ((64, 128), (256, 512), (1024, 512), (4096, 512))
DTYPES = (torch.float32, torch.bfloat16)
RUNS = 50


def milliseconds(function) -> float:
    """Median over RUNS, each behind a write that clears the L2 cache, timed by events."""
    cache = torch.empty(64 * 2**20, dtype=torch.int32, device="cuda")
    for _ in range(5):
        function()
    times = []
    for _ in range(RUNS):
        cache.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[RUNS // 2]


def bandwidth() -> float:
    """Bytes per millisecond of a large copy."""
    source = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / milliseconds(lambda: target.copy_(source))


def matrix_peak(dtype: torch.dtype) -> float:
    """Floating-point operations per millisecond of a large matrix product."""
    a = torch.randn(4096, 4096, device="cuda", dtype=dtype)
    return 2 * 4096**3 / milliseconds(lambda: a @ a)


def step(backend, z_s, z_t, beta_corr, beta_mi):
    def run():
        loss = itrd_loss(z_s, z_t, beta_corr=beta_corr, beta_mi=beta_mi, backend=backend).total
        return torch.autograd.grad(loss, z_s)

    return run


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit(f"make bench-gpu needs a CUDA or ROCm GPU; torch {torch.__version__} sees none on this machine")
    backends = [name for name in ("triton", "cuda") if available_backends()[name] is None]
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, itrd_kernels {itrd_kernels.__version__}, ", end=""
    )
    print(f"float32 matrix products: {torch.get_float32_matmul_precision()}; median of {RUNS}, cold cache\n")
    copy, peaks = bandwidth(), {dtype: matrix_peak(dtype) for dtype in DTYPES}
    print(
        f"copy {copy / 1e6:.0f} GB/s, "
        + ", ".join(f"{dtype} {peak / 1e9:.1f} TFLOP/s" for dtype, peak in peaks.items())
    )
    print("\n| term | dtype | n × d | plain ms | backend | ms | speed-up | of copy | of matrix product |")
    print("|---|---|---|---|---|---|---|---|---|")
    for term, weights in (("correlation", (1.0, 0.0)), ("gram", (0.0, 1.0)), ("both", (2.0, 1.0))):
        for dtype in DTYPES:
            for n, d in SHAPES:
                z_s = torch.randn(n, d, device="cuda", dtype=dtype, requires_grad=True)
                z_t = torch.randn(n, d, device="cuda", dtype=dtype)
                plain = milliseconds(step("reference", z_s, z_t, *weights))
                for backend in backends:
                    time = milliseconds(step(backend, z_s, z_t, *weights))
                    # Floors: 2nd reads forward, 2nd reads + nd writes backward; 4n²d operations.
                    of_copy = 5 * n * d * z_s.element_size() / copy / time if weights[0] else 0.0
                    of_peak = 4 * n * n * d / peaks[dtype] / time if weights[1] else 0.0
                    print(
                        f"| {term} | {str(dtype).removeprefix('torch.')} | {n} × {d} | {plain:.3f} | {backend} "
                        f"| {time:.3f} | {plain / time:.1f} | {of_copy:.0%} | {of_peak:.0%} |"
                    )


if __name__ == "__main__":
    main()
