"""A warning for a mistake that no look at arguments can see: an embedding that no optimizer trains."""

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

# The verdict falls after so many gradients that nobody cleared. The values are compared over the last of them alone:
# more than there are micro-batches in a step.
STEPS, COMPARED = 100, 65

# Calls from one look at the parameters to the next; a look takes some microseconds.
_BETWEEN_LOOKS = 16


def watch(embed: nn.Module) -> None:
    """Warn once if gradients pile up in a parameter while its values stand still; frozen ones are left alone."""
    parameters = [
        p for p in embed.parameters() if p.requires_grad and p.is_leaf and not isinstance(p, nn.UninitializedParameter)
    ]
    found = [hook for p in parameters for hook in _hooks(p) if isinstance(hook, _Watch)]
    if len(found) == len(parameters):
        return
    said = found[0].said if found else _Said()
    for parameter in parameters:
        if not any(isinstance(hook, _Watch) for hook in _hooks(parameter)):
            parameter.register_post_accumulate_grad_hook(_Watch(said))


class Lookout:
    """Watches an embedding whose parameters may be replaced, unfrozen or given their shapes after its construction."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, embed: nn.Module) -> None:
        """To be called before every call of the embedding; graphs are left as they are."""
        if torch.compiler.is_compiling() or (self.calls == 0 and has_no_shapes(embed)):
            return
        if self.calls % _BETWEEN_LOOKS == 0:
            watch(embed)
        self.calls += 1


def has_no_shapes(embed: nn.Module) -> bool:
    return any(isinstance(parameter, nn.UninitializedParameter) for parameter in embed.parameters())


def _hooks(parameter: Tensor) -> Iterable[object]:
    return (getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values()


class _Said:
    """Whether the warning was given, for all parameters of an embedding."""

    already = False


class _Watch:
    """Counts a parameter's gradients in a post-accumulate hook, which costs a comparison of two integers a step.

    It stays, idle, once the parameter is judged, so that nobody watches anew.
    """

    def __init__(self, said: _Said) -> None:
        self.said, self.judged = said, False
        self._begin(0, -1)

    def _begin(self, steps: int, version: int) -> None:
        self.steps, self.version, self.compared = steps, version, 0
        self.before: Tensor | None = None
        # Whether a gradient was all zeros just before the next was added: cleared in place, as by zero_grad.
        self.cleared: Tensor | None = None
        self.look: torch.utils.hooks.RemovableHandle | None = None

    def __call__(self, parameter: Tensor) -> None:
        if self.judged or torch.compiler.is_compiling():
            return
        version = -1 if parameter.grad is None else local(parameter.grad)._version
        # Adding to a gradient raises its version; one that was cleared to None starts anew.
        if version > self.version:
            self.steps, self.version = self.steps + 1, version
        else:
            self._forget()
            self._begin(1, version)
        if self.steps > STEPS - COMPARED and not _capturing(parameter):
            self._compare(parameter)

    def _compare(self, parameter: Tensor) -> None:
        # Optimizers do not all raise a parameter's version, so its values are compared.
        if self.before is None:
            self.before = local(parameter.detach()).clone()
            self.look = parameter.register_hook(_look_at_gradient(self, parameter))
            return
        self.compared += 1
        if self.compared < COMPARED - 1:
            return
        self._forget()
        if not torch.equal(self.before, local(parameter.detach())):
            self.judged, self.before = True, None
        elif self.cleared is not None and self.cleared:
            # No step of an optimizer: of one at rate zero, or of a loss whose weight is zero.
            self._begin(0, self.version)
        else:
            self.judged, self.before = True, None
            self._warn()

    def _forget(self) -> None:
        if self.look is not None:
            self.look.remove()

    def _warn(self) -> None:
        if self.said.already:
            return
        self.said.already = True
        warnings.warn(
            f"the embedding of FusedITRDLoss has received {STEPS} gradients that nobody cleared, and its values have "
            "not changed: no optimizer trains it. Give criterion.parameters() to the optimizer beside the student's, "
            "or, if it is meant to stand still, call criterion.embed.requires_grad_(False)",
            stacklevel=2,
        )


def _look_at_gradient(watch: _Watch, parameter: Tensor):
    @torch.utils.hooks.unserializable_hook
    def look(_: Tensor) -> None:
        """Just before a gradient is added; the answer stays on the device, so that nobody waits for it."""
        if torch.compiler.is_compiling() or _capturing(parameter):
            return
        if parameter.grad is not None:
            zero = ~local(parameter.grad).any()
            watch.cleared = zero if watch.cleared is None else watch.cleared | zero

    return look


def local(z: Tensor) -> Tensor:
    """This process's part of a sharded tensor."""
    return z.to_local() if hasattr(z, "to_local") else z


def _capturing(parameter: Tensor) -> bool:
    return parameter.is_cuda and torch.cuda.is_current_stream_capturing()
