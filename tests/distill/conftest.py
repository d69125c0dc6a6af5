"""A hundred digits and an untrained teacher of them, made anew for each test: some change them."""

import pytest
import torch
from small_runs import start

from itrd_distill.data import create_data
from itrd_distill.models import create_model


@pytest.fixture
def data():
    return create_data("digits", train_images=100)


@pytest.fixture
def teacher():
    torch.manual_seed(7)
    return create_model("convnet_32_64", 10)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished run of one epoch, which no test changes."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    start("--out", folder)
    return folder
