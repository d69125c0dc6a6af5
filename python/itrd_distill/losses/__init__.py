"""Distillation losses by the names that recipes give them, each in a file of its own.

The functions kd, fitnet, at, sp, cc, rkd, pkt, ft and nst give the numbers of the CRD benchmark, and the default
weights of these losses are its weights.
"""

from collections.abc import Mapping

from itrd_distill.lines import say
from itrd_distill.losses.at import ATLoss
from itrd_distill.losses.base import Context, DistillationLoss, Outputs, Terms
from itrd_distill.losses.cc import CCLoss
from itrd_distill.losses.crd import CRDLoss
from itrd_distill.losses.fitnet import FitNetLoss
from itrd_distill.losses.ft import FTLoss
from itrd_distill.losses.itrd import ITRDLoss
from itrd_distill.losses.kd import KDLoss
from itrd_distill.losses.nst import NSTLoss
from itrd_distill.losses.pkt import PKTLoss
from itrd_distill.losses.review import ReviewKDLoss
from itrd_distill.losses.rkd import RKDLoss
from itrd_distill.losses.sp import SPLoss
from itrd_distill.losses.wcord import WCoRDLoss
from itrd_distill.options import Weight, check_options, parameters_of

__all__ = [
    "ATLoss",
    "CCLoss",
    "CRDLoss",
    "Context",
    "DistillationLoss",
    "FTLoss",
    "FitNetLoss",
    "ITRDLoss",
    "KDLoss",
    "NSTLoss",
    "Outputs",
    "PKTLoss",
    "RKDLoss",
    "ReviewKDLoss",
    "SPLoss",
    "Terms",
    "WCoRDLoss",
    "check_loss",
    "create_loss",
    "loss_names",
    "loss_options",
]

_LOSSES: dict[str, type[DistillationLoss]] = {
    "kd": KDLoss,
    "fitnet": FitNetLoss,
    "at": ATLoss,
    "sp": SPLoss,
    "cc": CCLoss,
    "rkd": RKDLoss,
    "pkt": PKTLoss,
    "ft": FTLoss,
    "nst": NSTLoss,
    "crd": CRDLoss,
    "wcord": WCoRDLoss,
    "review": ReviewKDLoss,
    "itrd": ITRDLoss,
}

_GIVEN = ("context",)  # by `create_loss`, and no option


def loss_names() -> list[str]:
    return list(_LOSSES)


def create_loss(name: str, context: Context, **options) -> DistillationLoss:
    """The loss of this name for these models and data.

    Raises:
        ValueError: no loss has this name, or it does not take these options; the message lists what there is. Or it
            compares logits and the models have not the same number of classes.
    """
    check_loss(name, options)
    if not distils(name, options):
        say(f"every weight of the loss {name} is 0: nothing is distilled")
    own, theirs = context.student.logits.shape[1], context.teacher.logits.shape[1]
    if _LOSSES[name].reads_logits and own != theirs:
        on_features = ", ".join(other for other, kind in _LOSSES.items() if not kind.reads_logits)
        raise ValueError(
            f"loss {name} compares logits, but the teacher has {theirs} classes and the student {own}: take a teacher "
            f"of the same classes, or a loss on features ({on_features})"
        )
    return _LOSSES[name](context, **options)


def check_loss(name: str, options: Mapping[str, object]) -> None:
    """Raise the ValueError of `create_loss` for this name or these options, before there are models and data."""
    loss_options(name)
    check_options(f"loss {name}", "loss.options.", _LOSSES[name], options, _GIVEN)


def distils(name: str, options: Mapping[str, object]) -> bool:
    """Whether a weight of the loss is not 0; that called `weight` multiplies all others."""
    taken = parameters_of(_LOSSES[name], _GIVEN)
    weights = {option: options.get(option, p.default) for option, p in taken.items() if p.annotation is Weight}
    whole = weights.pop("weight", 1)
    return bool(whole) and (any(weights.values()) or not weights)


def loss_options(name: str) -> list[str]:
    """What `create_loss` takes beside the context.

    Raises:
        ValueError: no loss has this name; the message lists those there are.
    """
    if name not in _LOSSES:
        raise ValueError(f"loss must be one of {', '.join(loss_names())}; got {name!r}")
    return list(parameters_of(_LOSSES[name], _GIVEN))
