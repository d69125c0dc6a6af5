"""`python -m itrd_kernels`: versions, devices, which backends can run here and what "auto" takes, for bug reports."""

import io
import platform
import sys

import torch

import itrd_kernels
from itrd_kernels import backends
from itrd_kernels.backends import emulated


def main() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Reasons quote whatever a library said, which not every terminal can show.
        sys.stdout.reconfigure(errors="backslashreplace")
    print(f"itrd_kernels {itrd_kernels.__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"CPU: {platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for index in range(torch.cuda.device_count()):
        print(f"GPU {index}: {torch.cuda.get_device_name(index)}")
    for name, reason in itrd_kernels.available_backends().items():
        print(f"backend {name:<9} {'available' if reason is None else 'unavailable: ' + reason}")
    for name, what in emulated.in_use().items():
        print(f"backend {name:<9} emulated: {what}")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    present = [device_type for device_type in backends.device_types() if backends.is_here(device_type)]
    for device_type in dict.fromkeys([*present, *([accelerator.type] if accelerator else [])]):
        print(f'backend="auto" takes {backends.fastest(device_type)} for {device_type} tensors')


if __name__ == "__main__":
    main()
