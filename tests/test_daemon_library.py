"""A whole daemon, and people who copy, rename, change and delete files under it."""

import os
import shutil

from support import another
from test_daemon import published
from world import make_video


def row(world, path):
    return next((row for row in world.rows("videos") if row["path"] == path), None)


def test_files_may_be_copied_renamed_changed_and_restored_and_one_submission_stays_one(world):
    world.start()
    first = make_video(world.drop / "a.mp4")
    world.wait(lambda: published(world, 1), 40, "it is published")
    asked = len([request for request in world.bilibili.requests if request.route == "submit"])
    shutil.copy(first, world.drop / "copy.mp4")
    world.wait(lambda: (row(world, "copy.mp4") or {}).get("state") == "ignored", 20, "the copy is known for one")
    name = os.fsdecode(b"\xc4\xea\xbb\xe1\n.mp4")
    first.rename(world.drop / name)
    world.wait(lambda: row(world, name), 20, "its row follows it")
    assert row(world, name)["bvid"]
    os.utime(world.drop / name)
    another(world.drop / "copy.mp4", world.drop / "new.mp4").replace(world.drop / name)
    world.wait(lambda: (row(world, name) or {}).get("version_of"), 20, "other bytes under its name are a new version")
    assert row(world, name)["state"] == "held"
    assert world.command("retry", f"video:{row(world, name)['id']}").returncode == 0
    world.wait(lambda: published(world, 2), 40, "a person wanted the new version")
    world.end()
    world.start()
    assert sorted(world.states()) == ["ignored", "published", "published"]
    assert len(world.bilibili.archives) == 2
    assert len([request for request in world.bilibili.requests if request.route == "submit"]) == asked + 1
    assert "Traceback" not in world.log()
    assert world.command("videos", "--json").returncode == 0
    assert "b'" not in world.command("status").stdout


def test_a_sidecar_that_comes_late_is_read_while_the_video_waits(world):
    (world.drop / "show.yaml").write_text("upload: false")
    make_video(world.drop / "show.mp4")
    world.start()
    world.wait(lambda: "upload is off" in ((row(world, "show.mp4") or {}).get("waits_for") or ""), 30, "it waits")
    (world.drop / "show.yaml").write_text("title: 晚会\ntags: [a]")
    world.wait(lambda: published(world, 1), 40, "it is published once the sidecar says so")
    assert world.bilibili.archives[0].title == "晚会"
    assert row(world, "show.mp4")["title"] == "晚会"
