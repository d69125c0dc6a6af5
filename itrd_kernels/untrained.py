"""A warning for a mistake that no look at arguments can see: an embedding that no optimizer trains."""

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

# The verdict falls after so many gradients that nobody cleared. The values are compared over the last of them alone:
# more than there are micro-batches in a step.
STEPS, COMPARED = 100, 65


def watch(embed: nn.Module) -> None:
    """Warn once if gradients pile up in `embed` while its values stand still; a frozen embedding is left alone."""
    parameter = next((p for p in embed.parameters() if p.requires_grad), None)
    if parameter is None:
        return
    if nn.parameter.is_lazy(parameter):
        later = _WatchLater()
        later.handle = embed.register_forward_hook(later)
    elif not any(isinstance(hook, _Watch) for hook in _hooks(parameter)):
        hook = _Watch()
        hook.handle = parameter.register_post_accumulate_grad_hook(hook)


class _WatchLater:
    """Waits for the first call of a lazy module, which gives its parameters their shapes."""

    handle: torch.utils.hooks.RemovableHandle

    def __call__(self, embed: nn.Module, inputs: object, output: object) -> None:
        self.handle.remove()
        watch(embed)


def _hooks(parameter: Tensor) -> Iterable[object]:
    return (getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values()


class _Watch:
    """Counts a parameter's gradients in a post-accumulate hook, which costs a comparison of two integers a step."""

    handle: torch.utils.hooks.RemovableHandle

    def __init__(self) -> None:
        self.steps, self.version = 0, -1
        self.before: Tensor | None = None

    def __call__(self, parameter: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        version = -1 if parameter.grad is None else parameter.grad._version
        # Adding to a gradient raises its version; one that was cleared to None starts anew.
        self.steps = self.steps + 1 if version > self.version else 1
        self.version = version
        if self.steps <= STEPS - COMPARED:
            self.before = None
        elif not _capturing(parameter):
            self._compare(parameter)

    def _compare(self, parameter: Tensor) -> None:
        # Optimizers do not all raise a parameter's version, so its values are compared.
        if self.before is None:
            self.before = parameter.detach().clone()
        elif self.steps >= STEPS:
            self.handle.remove()
            if torch.equal(self.before, parameter.detach()):
                self.handle = parameter.register_hook(lambda _: self._confirm(parameter))
            self.before = None

    def _confirm(self, parameter: Tensor) -> None:
        """Just before a gradient is added: zeros tell that it is cleared in place, as by an optimizer at rate zero."""
        self.handle.remove()
        if parameter.grad is None or not parameter.grad.any():
            return
        warnings.warn(
            f"the embedding of FusedITRDLoss has received {STEPS} gradients that nobody cleared, and its values have "
            "not changed: no optimizer trains it. Give criterion.parameters() to the optimizer beside the student's, "
            "or, if it is meant to stand still, call criterion.embed.requires_grad_(False)",
            stacklevel=2,
        )


def _capturing(parameter: Tensor) -> bool:
    return parameter.is_cuda and torch.cuda.is_current_stream_capturing()
