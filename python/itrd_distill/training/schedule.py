"""The learning rate's course, a function of the epoch and of how many there are."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from itrd_distill.training.settings import OptimizerSettings


class Schedule(LambdaLR):
    """Times `decay` after each milestone, or half a cosine to zero; a run that goes on follows the course of its new
    length from there on."""

    def __init__(self, optimizer: Optimizer, settings: OptimizerSettings, epochs: int) -> None:
        def share(epoch: int) -> float:
            if settings.milestones:
                return settings.decay ** sum(epoch >= milestone for milestone in settings.milestones)
            return (1 + math.cos(math.pi * epoch / epochs)) / 2

        super().__init__(optimizer, share)

    def load_state_dict(self, state: dict) -> None:
        self.last_epoch = state["last_epoch"]
        # The optimizer's own state has brought back the rate of the old length.
        self._last_lr = [
            base * share(self.last_epoch) for base, share in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
