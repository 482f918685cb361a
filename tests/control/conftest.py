"""A server that is there for all tests of a file, because most of them only look."""

import threading
from collections.abc import Iterator

import pytest
from stage import Stage
from support import wait_until

POOLS = ("AnyIO worker thread", "control-hub")  #: names of threads that a server makes when it needs them


@pytest.fixture(autouse=True)
def no_thread_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """But for those of a server that other tests use, too."""
    before = set(threading.enumerate())
    yield
    allowed = POOLS if "shared" in request.fixturenames else ()

    def left() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate()
                if thread not in before and thread.is_alive() and not thread.name.startswith(allowed)]

    try:
        wait_until(lambda: not left(), seconds=5)
    except AssertionError:
        pytest.fail(f"threads left behind: {left()}")


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
