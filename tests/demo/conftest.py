"""What tests of the demo share."""

import pytest

from ddpm.demo.models import ModelStore


@pytest.fixture(scope="session")
def digits():
    return ModelStore(["mnist"], "cpu")["mnist"]
