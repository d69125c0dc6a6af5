"""Distillation losses by the names that recipes give them."""

from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.losses.itrd import ITRDLoss
from itrd_distill.losses.logits import KDLoss

__all__ = ["Context", "DistillationLoss", "ITRDLoss", "KDLoss", "Outputs", "Terms", "create_loss", "loss_names"]

_LOSSES: dict[str, type[DistillationLoss]] = {"kd": KDLoss, "itrd": ITRDLoss}


def loss_names() -> list[str]:
    return list(_LOSSES)


def create_loss(name: str, context: Context, **options) -> DistillationLoss:
    """The loss of this name for these models and data.

    Raises:
        ValueError: no loss has this name; the message lists those there are.
    """
    if name not in _LOSSES:
        raise ValueError(f"loss must be one of {', '.join(loss_names())}; got {name!r}")
    return _LOSSES[name](context, **options)
