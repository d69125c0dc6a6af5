"""A model's weights, found wherever a checkpoint keeps them, and how they differ from what the model needs."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from itrd_distill.lines import say
from itrd_distill.training.reading import SAVE_STATE_DICT, Unread

State = Mapping[str, Tensor]
# Where weights stand, as an entry of the file or in front of their names; these go before others that fit as well.
_USUAL = {"", "model", "state_dict", "model_state_dict", "net", "network", "weights", "module", "student"}
# What torch.compile, FSDP and activation checkpointing put into names.
_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_SHOWN = 3


def find_state(content: Any, own: State, called: str) -> dict[str, Tensor]:
    """The tensors of a file that stand under the one prefix under which most of a model's names stand, so renamed.

    A prefix is whatever leads there: {"state_dict": {"module.conv.weight": …}} has state_dict.module.

    Args:
        content: of the file.
        own: the model's state.
        called: how messages name the file.

    Raises:
        ValueError: there are no tensors in it, or several states that fit.
    """
    tensors = dict(_tensors(content))
    if not tensors:
        raise ValueError(f"{called} holds no weights: there is no tensor in it to be loaded by name{unread(content)}")
    # All that a model of timm has is in `model` here, of which timm's own checkpoints know nothing.
    heads = {name.partition(".")[0] for name in own}
    shared = f"{heads.pop()}." if len(heads) == 1 else ""
    wanted = {name.removeprefix(shared) for name in own if _needed(name)}
    found: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        found.update(".".join(parts[:i]) for i in range(len(parts)) if ".".join(parts[i:]) in wanted)
    prefix = _prefix(found, len(wanted), called)
    start = f"{prefix}." if prefix else ""
    return {shared + name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _tensors(content: Any, place: str = "", around: tuple[dict, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    # One may stand in itself, such as a configuration that knows its parent.
    if isinstance(content, dict) and not any(content is outer for outer in around):
        # By its class's method, which attributes that a file gives to the object cannot hide.
        for name, value in dict.items(content):
            if isinstance(value, Tensor):
                yield _WRAPPERS.sub("", f"{place}{name}"), value
            else:
                yield from _tensors(value, f"{place}{name}.", (*around, content))


def _prefix(found: Counter[str], all_of_them: int, called: str) -> str:
    if not found:
        return ""
    most = max(found.values())
    best = [prefix for prefix, count in found.items() if count == most]
    if len(best) == 1 or most < all_of_them:
        return best[0]
    usual = [prefix for prefix in best if _USUAL.issuperset(prefix.split("."))]
    if len(usual) != 1:
        raise ValueError(f"{called} holds several states that fit ({', '.join(best)}): save the one you mean by itself")
    others = ", ".join(prefix for prefix in best if prefix not in usual)
    say(f"{called}: the weights are those of {usual[0]}; {others} would fit as well")
    return usual[0]


def _needed(name: str) -> bool:
    # Which checkpoints of before PyTorch 0.4.1 lack, and nothing reads.
    return not name.endswith("num_batches_tracked")


def unread(content: Any) -> str:
    """A remark on the objects in a file that were left out, if there are any."""
    values = dict.values(content) if isinstance(content, dict) else ()
    classes = {type(value).__name__ for value in values if isinstance(value, Unread)}
    if not classes:
        return ""
    return f"; its objects of {', '.join(sorted(classes))} are not read, which would be to run code: {SAVE_STATE_DICT}"


def number_of_classes(own: State, state: State, classes: int) -> int:
    """How many classes a state is for, given that of a model with `classes`: all that differs is that one length."""
    differing = [(own[name].shape, state[name].shape) for name in own if name in state and _differs(name, own, state)]
    lengths = {there[:1] for _, there in differing}
    if len(lengths) != 1 or any(here[:1] != (classes,) or here[1:] != there[1:] for here, there in differing):
        return classes
    (length,) = lengths
    return length[0] if length else classes


def differences(own: State, state: State) -> str:
    """What keeps a state from being loaded, in a few words; nothing where it fits."""
    told = [
        _some("missing", [name for name in own if _needed(name) and name not in state], len(own)),
        _some("unexpected", [name for name in state if name not in own], len(state)),
        _some(
            "of another shape or kind",
            [
                f"{name} {_kind(state[name])} for {_kind(own[name])}"
                for name in own
                if name in state and _differs(name, own, state)
            ],
            len(own),
        ),
    ]
    return "; ".join(filter(None, told))


def _differs(name: str, own: State, state: State) -> bool:
    here, there = own[name], state[name]
    return here.shape != there.shape or (_needed(name) and here.is_floating_point() != there.is_floating_point())


def _kind(value: Tensor) -> str:
    return f"{tuple(value.shape)}" if value.is_floating_point() else f"{tuple(value.shape)} {value.dtype}"


def _some(what: str, names: list[str], of: int) -> str:
    if not names:
        return ""
    return f"{len(names)} of {of} names {what} ({', '.join(names[:_SHOWN])}{', …' * (len(names) > _SHOWN)})"
