"""Keeps Lightning from saying what is meant to be so."""

import logging
import warnings

# Lightning's remarks on what is meant here (loaders without workers, a frozen teacher) and on its own dependencies.
_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",
    ".*in eval mode at the start of training.*",
    ".*treespec.*",
    ".*sync_dist=True.*",  # History reduces before it logs
    "Checkpoint directory .* exists and is not empty.*",
    "The dirpath has changed.*",  # a run that was moved
    "Be aware that when using `ckpt_path`.*",  # another checkpoint_every, which is no other run
)


def quieten_lightning() -> None:
    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.WARNING)
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
