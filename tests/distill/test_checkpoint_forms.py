"""Weights as others save them: every common form is read, nothing is run, and what does not fit is told."""

import argparse
import os
from collections import OrderedDict, UserDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from itrd_distill.cli import main
from itrd_distill.models import create_model
from itrd_distill.training.files import known_accuracy, load_model

MODEL = create_model("convnet_8_16", 7)
STATE = MODEL.state_dict()
OPTIMIZER = torch.optim.SGD(MODEL.parameters(), 0.1, momentum=0.9)
MODEL(torch.zeros(2, 1, 8, 8)).sum().backward()
OPTIMIZER.step()
STATE = {name: value.clone() for name, value in STATE.items()}


def under(prefix):
    return {prefix + name: value for name, value in STATE.items()}


class Config(dict):
    """As yacs and EasyDict have them; an attribute has the name of a method."""

    def __init__(self, *content):
        super().__init__(*content)
        self.get = self.values = 1


class Ordered(OrderedDict):
    pass


class Listed(list):
    pass


class Subclass(torch.Tensor):
    pass


PARENT = Config({"child": Config({"model": STATE})})
PARENT["child"]["parent"] = PARENT

FORMS = {
    "bare": STATE,
    "benchmark": {
        "opt": argparse.Namespace(model="resnet", folder=Path("x")),
        "model": STATE,
        "best_acc": np.float64(73.1),
        "accuracy": np.float32(73.1),
        "optimizer": OPTIMIZER.state_dict(),
    },
    "state_dict": {"state_dict": OrderedDict(STATE), "best_acc1": torch.tensor(73.1), "arch": "resnet"},
    "model_state_dict": {"model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER.state_dict(), "epoch": 3},
    "data parallel": {"net": under("module."), "acc": 1.0},
    "compiled": under("_orig_mod."),
    "compiled and distributed": {"model": under("module._orig_mod.")},
    "compiled in parts": {name.replace("blocks.0.", "blocks.0._orig_mod."): value for name, value in STATE.items()},
    "Lightning": {"state_dict": {**under("model."), "loss.weight": torch.zeros(3)}, "hyper_parameters": {"n": 1}},
    "own checkpoint": {"state_dict": {**under("student."), "loss.embed.weight": torch.zeros(3)}, "loops": {}},
    "student and teacher": {"state_dict": {**under("student."), **{"teacher." + n: v + 1 for n, v in STATE.items()}}},
    "average beside": {"model_ema": {name: value + 1 for name, value in STATE.items()}, "model": STATE},
    "averaged": {**under("module."), "n_averaged": torch.tensor(3)},
    "unusual names": {"my": {"best": STATE}},
    "old batch norm": {name: value for name, value in STATE.items() if not name.endswith("num_batches_tracked")},
    "half precision": {"weights": {name: value.half() for name, value in STATE.items()}},
    "other objects": {"model": STATE, "history": np.arange(3.0), "path": Path("x"), "slice": slice(1, 2)},
    "in a dict's subclass": Config({"model": Config(STATE)}),
    "in a circle": PARENT,
    "in a defaultdict": defaultdict(int, STATE),
    "subclasses": {
        "model": STATE,
        "a": Config({"b": Config(), "c": Config({1: 2})}),
        "d": Ordered(e=1),
        "f": Listed("g"),
    },
    "collections": {
        "a": defaultdict[int, Any](Config, {1: [2]}),
        "b": deque([1], 3),
        "c": UserDict(d=1),
        "model": STATE,
    },
    "classes that Python 2 called otherwise": {"model": STATE, "type": int, "range": range(3)},
    "parameters": dict(MODEL.named_parameters()) | dict(MODEL.named_buffers()),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_common_form_is_read(form, legacy, tmp_path):
    torch.save(FORMS[form], tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    found = load_model(tmp_path / "x.pt", "convnet_8_16").state_dict()
    for name, value in STATE.items():
        if form == "half precision":
            value = value.half().to(value.dtype)
        assert name.endswith("num_batches_tracked") or torch.equal(found[name], value), name
    assert known_accuracy(tmp_path / "x.pt") is None


def test_safetensors_are_read(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(under("module."), tmp_path / "x.safetensors")
    assert torch.equal(
        load_model(tmp_path / "x.safetensors", "convnet_8_16").state_dict()["fc.weight"], STATE["fc.weight"]
    )
    content = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(content[:-40])
    with pytest.raises(ValueError, match="x.safetensors cannot be read .* a safetensors file, but damaged"):
        load_model(tmp_path / "x.safetensors", "convnet_8_16")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_timms_own_names_are_those_of_its_model(prefix, tmp_path):
    pytest.importorskip("timm")
    model: Any = create_model("timm/resnet18", 3)
    torch.save({prefix + name: value for name, value in model.model.state_dict().items()}, tmp_path / "x.pt")
    read: Any = load_model(tmp_path / "x.pt", "timm/resnet18")
    assert torch.equal(read.model.fc.weight, model.model.fc.weight)


@pytest.mark.parametrize(
    ("name", "classes"),
    [("convnet_8_16", 1), ("resnet8", 10), ("resnet8", 16), ("ShuffleV2", 100), ("resnet8_1bit", 64), ("vgg8", 5)],
)
def test_a_model_has_as_many_classes_as_its_weights(name, classes, tmp_path):
    torch.save(create_model(name, classes).state_dict(), tmp_path / "x.pt")
    channels = 1 if name.startswith("convnet") else 3
    logits = load_model(tmp_path / "x.pt", name).eval()(torch.zeros(2, channels, 32, 32))
    assert logits.shape == (2, classes)
    with pytest.raises(ValueError, match=f"does not fit {name} with 11 classes: 2 of .* of another shape"):
        load_model(tmp_path / "x.pt", name, 11)


class Runs:
    """Leaves a file if it is unpickled."""

    def __init__(self, function, argument):
        self.function, self.argument = function, argument

    def __reduce__(self):
        return self.function, (self.argument,)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (MODEL, "is a pickle of itrd_distill.models.convnet.ConvNet, .* run code .*model.state_dict"),
        ({"model": MODEL}, "itrd_distill.models.convnet.ConvNet.* run code.*model.state_dict"),
        (torch.nn.Sequential(torch.nn.ReLU()), "is a pickle of torch.nn.modules.container.Sequential"),
        (
            {name: value.as_subclass(Subclass) for name, value in STATE.items()},
            r"is a pickle of \S+\.Subclass, .* run code",
        ),
        ({"model": {}}, "holds no weights"),
        ({"epoch": 3}, "holds no weights"),
        ([STATE], "holds no weights"),
        (None, "holds no weights"),
        ({"a": STATE, "b": STATE}, r"several states that fit \(a, b\)"),
        (create_model("convnet_32_64", 7).state_dict(), r"12 of 14 names of another .*blocks.0.0.weight \(32, 1"),
        (
            {"model": create_model("resnet8", 7).state_dict(), "name": "resnet8"},
            "10 of 14 names missing .*; 54 of 56 names unexpected .*; it says that it holds resnet8",
        ),
        ({**STATE, "fc.weight": torch.zeros(5, 5)}, r"2 of 14 names of another shape .*fc.weight \(5, 5\)"),
        ({name: value.to(torch.int8) for name, value in STATE.items()}, r"12 of 14 names .*\(8, 1, 3, 3\) torch.int8"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(content, message, legacy, tmp_path):
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=message) as raised:
        load_model(tmp_path / "x.pt", "convnet_8_16")
    assert len(str(raised.value)) < 700
    assert "\n" not in str(raised.value)
    assert str(tmp_path / "x.pt") in str(raised.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("function", [eval, exec, os.system, os.mkdir, __import__])
def test_nothing_in_a_file_is_run(function, legacy, tmp_path):
    mark = tmp_path / "mark"
    argument = {os.system: f"touch {mark}", os.mkdir: str(mark), __import__: "antigravity"}.get(
        function, f"open({str(mark)!r}, 'w')"
    )
    content = {"model": STATE, "more": Runs(function, argument)}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    try:
        assert torch.equal(load_model(tmp_path / "x.pt", "convnet_8_16").state_dict()["fc.weight"], STATE["fc.weight"])
    except ValueError as error:
        assert "run code" in str(error)  # noqa: PT017
    assert not mark.exists()


@pytest.mark.parametrize("command", ["train", "probe"])
def test_commands_say_it_in_a_line_too(command, tmp_path):
    torch.save({"model": {}}, tmp_path / "empty.pt")
    arguments = {
        "train": ["--teacher.model", "convnet_32_64", "--loss.name", "kd", "--teacher.checkpoint"],
        "probe": ["--student", "convnet_8_16", "--weights"],
    }[command]
    with pytest.raises(SystemExit, match="empty.pt holds no weights"):
        main([command, *arguments, str(tmp_path / "empty.pt"), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("content", "accuracy"),
    [
        ({"model": {}, "test_accuracy": 0.75}, 0.75),
        ({"model": {}, "test_accuracy": torch.tensor(0.75)}, None),
        ({"fc.weight": torch.zeros(2)}, None),
        ([torch.zeros(2)], None),
    ],
)
def test_the_accuracy_of_other_peoples_checkpoints_is_unknown(content, accuracy, tmp_path):
    torch.save(content, tmp_path / "teacher.pt")
    assert known_accuracy(str(tmp_path / "teacher.pt")) == accuracy
