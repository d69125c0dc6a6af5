"""`make test` tries a hundred cases of each loss, always the same; `make fuzz` thousands, from a seed it prints."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

# Triton's kernels run under its interpreter's sanitizer.
sys.path.append(str(Path(__file__).parents[1] / "triton/interpreted"))

settings.register_profile(
    "test",
    max_examples=100,
    derandomize=True,
    # Nothing is kept from run to run: a failure's own lines say how to repeat it.
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("fuzz", settings.get_profile("test"), max_examples=3500, derandomize=False)


def pytest_configure(config):
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("test")


@pytest.fixture(autouse=True)
def _threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
