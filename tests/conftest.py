"""Fixtures for every room."""

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support import wait_until
from workbench import Bench
from world import World, make_video

sys.dont_write_bytecode = False  # each worker reads every test, and tests start many processes: compiled once
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests are whole lives take longest: begun last, they would be waited for alone."""
    items.sort(key=lambda item: not item.path.name.startswith(("test_daemon", "test_database_faults")))


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    """A part that does not end when it is closed fails the test that started it."""
    before = set(threading.enumerate())
    yield

    def left() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]

    try:
        wait_until(lambda: not left(), seconds=5)
    except AssertionError:
        pytest.fail(f"threads left behind: {left()}")


@pytest.fixture
def make_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """A workbench with the settings a test wants."""
    monkeypatch.setattr("biliupd.pipeline.submitting.COLLECT_SECONDS", 0.0)  # here one thread does it all
    monkeypatch.setattr("biliupd.pipeline.tidying.LOOK_SECONDS", 0.0)
    made: list[Bench] = []

    def make(**settings) -> Bench:
        made.append(Bench(tmp_path / f"bench{len(made)}", **{"attempts": 3, **settings}))
        return made[-1]

    yield make
    for bench in made:
        bench.bilibili.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of real video, made once."""
    return make_video(tmp_path_factory.mktemp("video") / "video.mp4", 2)


@pytest.fixture
def clip(bench: Bench, video: Path) -> Path:
    """A real video in the drop folder of the bench."""
    return Path(shutil.copy(video, bench.drop / "clip.mp4"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A daemon's whole surroundings; the test starts the daemon itself."""
    world = World(tmp_path)
    world.site.start()
    world.bilibili.start()
    yield world
    world.close()
    asked = [f"{request.at:%T.%f} {request.route} {request.status}" for request in world.bilibili.requests]
    sys.stdout.write("\n".join([world.log(), *asked, ""]))  # pytest shows it when the test failed
