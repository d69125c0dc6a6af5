"""What a user should know while a command goes on: a line on standard error, whatever Python does with warnings."""

import sys


def say(text: str) -> None:
    """Print `itrd-distill: text` on standard error; of several processes the first alone speaks."""
    from lightning.pytorch.utilities import rank_zero_only

    if rank_zero_only.rank == 0:
        print(f"itrd-distill: {text}", file=sys.stderr, flush=True)
