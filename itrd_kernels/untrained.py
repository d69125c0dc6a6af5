"""A warning for a mistake that no look at arguments can see: an embedding that no optimizer trains."""

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

# The verdict falls after so many gradients that nobody cleared. The values are compared over the last of them alone:
# more than there are micro-batches in a step.
STEPS, COMPARED = 100, 65

# Calls from one look at the parameters to the next; a look takes some microseconds.
_BETWEEN_LOOKS = 16


class Lookout:
    """Warns once if gradients pile up in an embedding while its values stand still; a frozen one is left alone.

    Parameters may be replaced, unfrozen or given their shapes later: they are looked for again now and then.
    """

    def __init__(self) -> None:
        self.calls, self.done = 0, False
        self.watches: list[_Watch] = []

    def __reduce__(self) -> tuple:
        # A copy watches parameters of its own.
        return Lookout, ()

    def __call__(self, embed: nn.Module) -> None:
        """To be called before every call of the embedding; graphs are left as they are."""
        if torch.compiler.is_compiling() or self.done or (self.calls == 0 and has_no_shapes(embed)):
            return
        if self.calls % _BETWEEN_LOOKS == 0:
            self.watch(embed)
        self.calls += 1

    def watch(self, embed: nn.Module) -> None:
        watches = []
        for parameter in embed.parameters():
            if not parameter.requires_grad or not parameter.is_leaf or isinstance(parameter, nn.UninitializedParameter):
                continue
            watch = next((hook for hook in _hooks(parameter) if isinstance(hook, _Watch)), None)
            if watch is None:
                watch = _Watch(self)
                parameter.register_post_accumulate_grad_hook(watch)
            watches.append(watch)
        self.watches = watches

    def judge(self) -> None:
        """One parameter stands still or has moved: another may do otherwise, a bias that the losses do not feel."""
        moved = any(watch.has_moved() for watch in self.watches)
        self.done = True
        for watch in self.watches:
            watch.begin(0, -1)
        if moved:
            return
        warnings.warn(
            f"the embedding of FusedITRDLoss has received {STEPS} gradients that nobody cleared, and its values have "
            "not changed: no optimizer trains it. Give criterion.parameters() to the optimizer beside the student's, "
            "or, if it is meant to stand still, call criterion.embed.requires_grad_(False)",
            stacklevel=2,
        )


def has_no_shapes(embed: nn.Module) -> bool:
    """Whether only a call of the embedding gives all its parameters their shapes."""
    return any(isinstance(parameter, nn.UninitializedParameter) for parameter in embed.parameters())


def local(z: Tensor) -> Tensor:
    """This process's part of a sharded tensor."""
    return z.to_local() if hasattr(z, "to_local") else z


def _hooks(parameter: Tensor) -> Iterable[object]:
    return (getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values()


class _Watch:
    """Counts a parameter's gradients in a post-accumulate hook, which costs a comparison of two integers a step.

    It stays, idle, after the verdict, so that nobody watches anew.
    """

    def __init__(self, lookout: Lookout) -> None:
        self.lookout = lookout
        self.look: torch.utils.hooks.RemovableHandle | None = None
        self.begin(0, -1)

    def begin(self, steps: int, version: int) -> None:
        self.steps, self.version, self.compared = steps, version, 0
        # No parameter itself, which would keep it alive, or in its place when PyTorch swaps tensors.
        self.before: Tensor | None = None
        self.values: Tensor | None = None
        self.gradient: Tensor | None = None
        # Whether a gradient was all zeros just before the next was added: cleared in place, as by zero_grad.
        self.cleared: Tensor | None = None
        if self.look is not None:
            self.look.remove()
            self.look = None

    def __call__(self, parameter: Tensor) -> None:
        if self.lookout.done or torch.compiler.is_compiling():
            return
        version = -1 if parameter.grad is None else local(parameter.grad)._version
        # Adding to a gradient raises its version; one that was cleared to None starts anew.
        if version > self.version:
            self.steps, self.version = self.steps + 1, version
        else:
            self.begin(1, version)
        if self.steps > STEPS - COMPARED and not _capturing(parameter):
            self._compare(parameter)

    def _compare(self, parameter: Tensor) -> None:
        # Optimizers do not all raise a parameter's version, so its values are compared.
        self.values, self.gradient = local(parameter.detach()), parameter.grad
        if self.before is None:
            self.before = self.values.clone()
            self.look = parameter.register_hook(_look_of(self))
            return
        self.compared += 1
        if self.compared < COMPARED - 1:
            return
        at_rest = self.cleared is not None and bool(self.cleared) and not self.has_moved()
        if at_rest or self.values.numel() == 0 or not _alike(self.before, self.values):
            # An optimizer at rate zero or a loss of weight zero; nothing here; moved to another type or device.
            self.begin(0, self.version)
        else:
            self.lookout.judge()

    def has_moved(self) -> bool:
        """Whether the values are others than when they were noted; False where they were not."""
        if self.before is None or self.values is None:
            return False
        return _alike(self.before, self.values) and not torch.equal(self.before, self.values)


def _look_of(watch: _Watch) -> Callable[[Tensor], None]:
    @torch.utils.hooks.unserializable_hook
    def look(_: Tensor) -> None:
        """Just before a gradient is added; the answer stays on the device, so that nobody waits for it."""
        gradient = watch.gradient
        if gradient is not None and not torch.compiler.is_compiling() and not _capturing(gradient):
            zero = ~local(gradient).any()
            watch.cleared = zero if watch.cleared is None else watch.cleared | zero

    return look


def _alike(a: Tensor, b: Tensor) -> bool:
    return (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)


def _capturing(z: Tensor) -> bool:
    return z.is_cuda and torch.cuda.is_current_stream_capturing()
