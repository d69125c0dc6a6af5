"""What contrastive losses share: negatives of other classes, and memory banks of embeddings."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class NegativeSampler(nn.Module):
    """Draws training images of other classes, uniformly and with replacement."""

    order: Tensor
    counts: Tensor
    starts: Tensor

    def __init__(self, train_labels: Tensor) -> None:
        super().__init__()
        counts = torch.bincount(train_labels)
        if int((counts > 0).sum()) < 2:
            raise ValueError("contrastive losses need training images of at least two classes")
        # Images sorted by class: those of other classes are all but one run of them.
        self.register_buffer("order", torch.argsort(train_labels, stable=True), persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)

    def forward(self, labels: Tensor, negatives: int) -> Tensor:
        """Indices (n, negatives) of images whose labels differ from labels (n,)."""
        own, start = self.counts[labels, None], self.starts[labels, None]
        drawn = torch.rand(len(labels), negatives, device=labels.device, dtype=torch.float64)
        place = (drawn * (len(self.order) - own)).long()
        return self.order[place + own * (place >= start)]


class MemoryBank(nn.Module):
    """An embedding of length one for every training image, following the newest by momentum.

    Its type is that of the training, such as bfloat16; the embeddings that it is compared with are float32.
    """

    bank: Tensor

    def __init__(self, size: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        bound = (3 / width) ** 0.5
        self.register_buffer("bank", torch.empty(size, width).uniform_(-bound, bound))

    def scores(self, anchor: Tensor, chosen: Tensor) -> Tensor:
        """Products (n, k) of anchors (n, d) with the remembered embeddings at chosen (n, k)."""
        # All N products and a choice among them: far less memory than gathering n·k rows of d.
        return (anchor @ self.bank.T.to(anchor.dtype)).gather(1, chosen)

    @torch.no_grad()
    def update(self, index: Tensor, newest: Tensor) -> None:
        if dist.is_available() and dist.is_initialized():
            index, newest = _of_all_processes(index), _of_all_processes(newest)
        followed = F.normalize(self.momentum * self.bank[index] + (1 - self.momentum) * newest)
        # Into a new tensor: the backward pass still needs the old one.
        self.bank = self.bank.index_copy(0, index, followed.to(self.bank.dtype))


def _of_all_processes(own: Tensor) -> Tensor:
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.contiguous())
    return torch.cat(parts)
