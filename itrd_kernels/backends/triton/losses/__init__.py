"""The pair losses of the operator `gram`, a file each: a line here is all that the kernels are told of one."""

from itrd_kernels.backends.triton.losses import mutual_information, pkt, polynomial
from itrd_kernels.backends.triton.losses.pair import PairLoss

LOSSES: dict[str, PairLoss] = {
    "mutual_information": mutual_information.LOSS,
    "polynomial": polynomial.LOSS,
    "pkt": pkt.LOSS,
}
