"""Which of several processes this one is, where a run has more than one."""


def is_first() -> bool:
    """Whether this is the first process, which alone speaks and writes, or the only one."""
    # Here, since it takes seconds to import that `--help` should not.
    from lightning.pytorch.utilities import rank_zero_only

    return rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning sets it on the function
