"""`itrd-distill probe`: frozen features, their cache, and the linear classifier on them."""

import os
from dataclasses import replace

import pytest
import torch

from itrd_distill.cli import main
from itrd_distill.linear_probe import cached_features, extract, train_probe
from itrd_distill.models import create_model
from itrd_distill.training.result import RunResult
from itrd_distill.training.settings import DataSettings, Recipe, TrainerSettings

RECIPE = Recipe(
    student="convnet_8_16",
    data=DataSettings("digits", test_batch_size=64, options={"train_images": 100}),
    trainer=TrainerSettings(accelerator="cpu"),
)


def test_features_are_the_frozen_models_in_order(data):
    model = create_model("convnet_8_16", 7).train()
    data.train.augmented = True
    found = extract(model, data.train, RECIPE)
    assert data.train.augmented
    data.train.augmented = False
    images = data.train.__getitems__([(0, i) for i in range(100)]).images
    with torch.no_grad():
        expected = model.eval()(images, return_features=True)[1].penultimate
    torch.testing.assert_close(found["features"], expected)
    assert torch.equal(found["labels"], data.train.labels)


def test_features_are_computed_once_for_a_model_and_its_images(data, tmp_path, monkeypatch):
    model, path = create_model("convnet_8_16", 7), tmp_path / "features.pt"
    first = cached_features(model, data, RECIPE, path)
    with monkeypatch.context() as patch:
        patch.setattr("itrd_distill.linear_probe.extract", None)
        again = cached_features(model, data, RECIPE, path)
    assert torch.equal(first.train.features, again.train.features)
    torch.nn.init.ones_(model.get_parameter("blocks.1.1.bias"))
    other = cached_features(model, data, RECIPE, path)
    assert not torch.equal(first.train.features, other.train.features)


def test_features_are_told_apart_by_the_images_not_by_their_name(data, tmp_path, capsys):
    model, path = create_model("convnet_8_16", 7), tmp_path / "features.pt"
    first = cached_features(model, data, RECIPE, path)
    data.train.images[3, 0, 4, 4] += 1
    second = cached_features(model, data, RECIPE, path)
    differ = (first.train.features != second.train.features).any(1)
    assert differ.nonzero().tolist() == [[3]]
    assert capsys.readouterr().err == (
        f"itrd-distill: {path} was made from other weights, images or settings; it is made again\n"
    )
    os.truncate(path, 100)
    again = cached_features(model, data, RECIPE, path)
    assert torch.equal(again.train.features, second.train.features)
    assert f"{path} is damaged" in capsys.readouterr().err


def test_the_seed_makes_the_classifier(data, tmp_path):
    """Whatever random numbers were drawn before: equal commands give equal weights and figures, other seeds others."""
    torch.save(create_model("convnet_8_16", 7).state_dict(), tmp_path / "x.pt")
    recipe = replace(RECIPE, trainer=replace(RECIPE.trainer, epochs=1))
    weights, results = [], []
    for i, seed in enumerate((0, 0, 1)):
        torch.manual_seed(1000 + i)
        out = tmp_path / str(i)
        results.append(train_probe(replace(recipe, seed=seed), tmp_path / "x.pt", out, data))
        weights.append(torch.load(out / "weights.pt", weights_only=True)["model"]["weight"])
    assert torch.equal(weights[0], weights[1])
    assert [row["loss"] for row in results[0].history] == [row["loss"] for row in results[1].history]
    assert (weights[0] - weights[2]).abs().max() > 1e-3
    features = torch.load(tmp_path / "0" / "features.pt", weights_only=True)
    assert torch.equal(features["train"], torch.load(tmp_path / "2" / "features.pt", weights_only=True)["train"])


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_probe_trains_in_every_precision(precision, data, tmp_path):
    torch.save(create_model("convnet_8_16", 7).state_dict(), tmp_path / "x.pt")
    recipe = replace(RECIPE, trainer=replace(RECIPE.trainer, epochs=1, precision=precision))
    assert train_probe(recipe, tmp_path / "x.pt", tmp_path / "probe", data).history[0]["loss"] < 4


def test_a_linear_classifier_is_trained_on_frozen_features(tmp_path, capsys):
    """On digits even the features of an untrained model let a linear classifier do far better than chance."""
    torch.manual_seed(0)
    model = create_model("convnet_32_64", 5)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    main([
        "probe", "--weights", str(tmp_path / "weights.pt"), "--student", "convnet_32_64",
        "--out", str(tmp_path / "probe"),
        "--trainer.epochs", "10", "--optimizer.learning_rate", "0.5", "--trainer.checkpoint_every", "10",
    ])  # fmt: skip
    result = RunResult.read(tmp_path / "probe")
    assert result.test_accuracy > 0.5
    assert result.parameters == 64 * 10 + 10
    assert "convnet_32_64 → digits: " in capsys.readouterr().out


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(SystemExit, match="no checkpoint at .*nothing.pt"):
        main(["probe", "--weights", str(tmp_path / "nothing.pt"), "--student", "convnet_8_16"])
