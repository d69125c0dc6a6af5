"""A hundred digits and an untrained teacher of them, made anew for each test: some change them."""

import pytest
import torch

from itrd_distill.data import create_data
from itrd_distill.models import create_model


@pytest.fixture
def data():
    return create_data("digits", train_images=100)


@pytest.fixture
def teacher():
    torch.manual_seed(7)
    return create_model("convnet_32_64", 10)
