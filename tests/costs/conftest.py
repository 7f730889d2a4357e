"""A scripted model that answers at once."""

from collections.abc import Iterator

import pytest

from bench.environment import run_model


@pytest.fixture(scope="session")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_model(tmp_path_factory.mktemp("model")) as url:
        yield url
