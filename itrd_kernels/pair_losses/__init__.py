"""Losses of pairs of rows on the Gram engine (operator `gram`), one file each; CONTRIBUTING.md says how to add one.

`correlation_loss` and the plain `mutual_information_loss` have operators of their own, and are not among these.
"""

from itrd_kernels.pair_losses import mutual_information, pkt
from itrd_kernels.pair_losses.base import PairLoss

# Every loss whose operator is `gram`; the generated tests go through these.
PAIR_LOSSES: tuple[PairLoss, ...] = (mutual_information.POLYNOMIAL, mutual_information.POLYNOMIAL_LOG, pkt.PKT)
