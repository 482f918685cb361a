"""A server that is there for all tests of a file, because most of them only look."""

from collections.abc import Iterator

import pytest
from stage import Stage


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for all tests of the file."""
    stage = Stage(tmp_path_factory.mktemp("stage")).start()
    yield stage
    stage.close()


@pytest.fixture
def stage(tmp_path, request) -> Iterator[Stage]:
    """One of its own, with the settings of a `parametrize`d test, if it has any."""
    stage = Stage(tmp_path, **getattr(request, "param", {})).start()
    yield stage
    stage.close()
