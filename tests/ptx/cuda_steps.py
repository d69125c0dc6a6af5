"""Steps of the CUDA backend whose launches the emulator executes."""

import cuda_on_emulator
import torch
from emulated_steps import Step, noted
from steps import UPSTREAM, Case
from torch import Tensor


def step(case: Case, inputs: list[Tensor | None], **how) -> Step:
    """Forward and backward; `how` goes to every launch."""
    launches = []

    def note(kernel: str, stats) -> None:
        noted(launches, cuda_on_emulator.readable(kernel), stats)

    with cuda_on_emulator.executing(note, **how):
        operators = getattr(torch.ops, cuda_on_emulator.NAMESPACE)
        # Inputs whose memory the kernels' launches can be seen to point to.
        z_e, z_t, z_s = (None if z is None else z.clone() for z in inputs)
        want = (*case.want[:2], case.want[2] and z_s is not None)
        *scalars, moments, dgram_s, dgram_t = operators.forward(z_e, z_t, z_s, *case.weights, *want, case.tf32)
        g = torch.full_like(scalars[0], UPSTREAM)
        grads = operators.backward(
            g, None, None, z_e, z_t, z_s, moments, dgram_s, dgram_t, case.beta_corr, case.beta_mi, *want
        )
    return Step([*scalars, *grads], launches)
