"""A real daemon whose catalog is damaged, lost, locked or read-only: nothing is published twice, nothing is lost."""

import random
import sqlite3
from pathlib import Path

import pytest
from world import World, make_video


def published(world: World, count: int) -> bool:
    return world.states("submissions").count("published") == count


def catalog(world: World) -> Path:
    return world.directory / "data" / "catalog.db"


def spoil(path: Path) -> None:
    """Random bytes over the header and much of the rest."""
    with path.open("r+b") as file:
        file.write(random.Random(1).randbytes(path.stat().st_size // 2))


def test_a_catalog_that_is_damaged_while_it_runs_ends_it_once_and_the_next_start_mends_it(world):
    make_video(world.drop / "a.mp4")
    world.start()
    world.wait(lambda: published(world, 1), 40, "it is published")
    world.wait(lambda: list((world.directory / "data" / "backups").glob("daily-*.db")), 10, "the copy of the day")
    (copied,) = (world.directory / "data" / "backups").glob("daily-*.db")
    db = sqlite3.connect(catalog(world))
    db.execute("pragma wal_checkpoint(truncate)")
    db.close()
    spoil(catalog(world))
    make_video(world.drop / "b.mp4")
    assert world.daemon.wait(40) == 1
    assert world.log().count("is damaged") == world.log().count("CRITICAL") == 1
    world.start()
    assert list((world.directory / "data").glob("catalog.db.corrupt-*"))
    world.wait(lambda: world.rows("notices", "key = 'catalog'"), 20, "the operator is told")
    (notice,) = world.rows("notices", "key = 'catalog'")
    assert str(copied) in notice["text"]
    world.wait(lambda: any(row["bvid"] for row in world.rows("videos", "path = 'b.mp4'")), 40, "the new one goes on")
    world.wait(lambda: not {"recorded", "editing", "ready"} & set(world.states()), 20, "everything came to rest")
    assert len({archive.body["title"] for archive in world.bilibili.archives}) == len(world.bilibili.archives) == 2


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_power_cut_that_loses_the_end_of_the_log_never_makes_a_second_submission(world, share):
    make_video(world.drop / "a.mp4")
    world.start()
    world.wait(lambda: published(world, 1), 40, "it is published")
    world.kill()
    log = Path(f"{catalog(world)}-wal")
    log.write_bytes(log.read_bytes()[: int(log.stat().st_size * share)])
    world.start()
    world.wait(lambda: published(world, 1), 40, "it is known again")
    world.check_published(submissions=1, videos=1)
    assert len([r for r in world.bilibili.requests if r.route == "submit"]) == 1


def test_a_catalog_that_another_process_locks_delays_work_and_status_answers_meanwhile(world):
    world.settings["edit"] = {}
    world.start(WATCHDOG_USEC="2000000")
    other = sqlite3.connect(catalog(world), isolation_level=None)
    other.execute("begin immediate")
    make_video(world.drop / "a.mp4")
    world.wait(lambda: "another process keeps it locked" in world.log(), 40, "it says so")
    assert "running (pid" in world.command("status").stdout
    said = world.log().count("trying on")
    other.execute("rollback")
    other.close()
    world.wait(lambda: published(world, 1), 60, "then it goes on")
    assert said == world.log().count("trying on") == 1
    assert "Traceback" not in world.log()
    world.check_published(submissions=1, videos=1)
