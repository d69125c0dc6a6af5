"""Steps of the Triton backend whose launches the emulator executes."""

import torch
from compiled import instead_of_launching
from emulated_steps import Step, noted
from steps import UPSTREAM, Case, poisoned
from torch import Tensor
from triton_on_emulator import ARCHITECTURE, execute

from itrd_kernels.backends.triton import launch


def step(case: Case, inputs: list[Tensor | None], **how) -> Step:
    """Forward and backward; `how` goes to every launch."""
    launches = []
    z_e, z_t, z_s = inputs
    want = (*case.want[:2], case.want[2] and z_s is not None)
    take = lambda item: noted(launches, item.name, execute(item, **how))  # noqa: E731
    with instead_of_launching(take, ARCHITECTURE), poisoned():
        *scalars, moments, dgram_s, dgram_t = launch.forward(*inputs, *case.weights, *want, case.tf32)
        g = torch.full_like(scalars[0], UPSTREAM)
        grads = launch.backward(
            g, None, None, z_e, z_t, z_s, moments, dgram_s, dgram_t, case.beta_corr, case.beta_mi, *want
        )
    return Step([*scalars, *grads], launches)
