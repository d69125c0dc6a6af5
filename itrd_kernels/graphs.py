"""What torch.compile has to be told."""

from collections.abc import Callable


def constant_in_graphs(function: Callable) -> Callable:
    """Call `function` while tracing and take its result for a constant.

    torch.compiler.assume_constant_result does the same, and imports the compiler for it, which takes a second.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
