"""Publishing by the real daemon, as a process: power cuts, lost answers, wrong clocks, files that come and go."""

from datetime import UTC, datetime, timedelta

from support import clock_ahead
from world import World, make_video

from biliupd.rehearsal.bilibili_faults import FOR_EVER


def published(world: World, count: int) -> bool:
    return world.states("submissions").count("published") == count


def asked(world: World, route: str) -> int:
    return sum(request.route == route for request in world.bilibili.requests)


def test_a_submit_under_a_clock_that_was_days_ahead_is_found_and_not_sent_again(world):
    world.settings["publish"]["submit"] = "web"  # app's requests are signed with the time
    world.bilibili.lose_submit_answer()
    world.bilibili.drop("archives", FOR_EVER, skip=1)  # the first one is before the upload, since the file seems old
    world.start(**clock_ahead(world.directory / "clock", 3 * 86400))
    make_video(world.drop / "a.mp4")
    world.wait(lambda: asked(world, "archives") > 1, 40, "the submit without an answer is looked up")
    world.kill()
    (submission,) = world.rows("submissions")
    assert datetime.fromisoformat(submission["since"]) > datetime.now(UTC) + timedelta(days=2)
    world.bilibili.heal()
    world.bilibili.same_title_seconds = 0
    world.start()
    world.wait(lambda: published(world, 1), 40, "it is published")
    world.check_published(submissions=1, videos=1)
    assert asked(world, "submit") == 1


def test_a_file_under_the_name_of_one_that_was_deleted_is_published_and_the_same_one_is_not(world):
    world.bilibili.same_title_seconds = 0
    path = world.drop / "a.mp4"
    first = make_video(world.directory / "first.mp4", 2).read_bytes()
    path.write_bytes(first)
    world.start()
    world.wait(lambda: published(world, 1), 40, "it is published")
    world.settings["retention"] = {"after_publishing": "delete"}
    world.save()
    world.wait(lambda: not path.exists(), 20, "it is deleted")
    path.write_bytes(first)  # copied once more
    world.wait(lambda: world.rows("videos", "inode = " + str(path.stat().st_ino)), 30, "it is noticed")
    make_video(path, 3)
    world.wait(lambda: published(world, 2), 40, "another one is published")
    world.end()
    world.start()
    first_row, second_row = world.rows("videos")
    assert (first_row["state"], second_row["state"]) == ("published", "published")
    assert second_row["file_path"] == str(path)
    assert asked(world, "submit") == 2
    assert [world.bilibili.stored(archive.parts[0].filename).stat().st_size for archive in world.bilibili.archives] == [
        len(first), second_row["file_size"]]


def test_power_cuts_while_parts_are_appended_lose_and_double_none(world):
    """SIGKILL while an edit is under way, views that lag behind, more parts than a submission has."""
    world.settings["publish"] |= {"parts_per_submission": 3, "submits_per_hour": 100, "submits_per_day": 100}
    world.settings["record"]["split_seconds"] = 2
    world.bilibili.delay_view(1)
    world.bilibili.stall("edit", 0.7, FOR_EVER)
    world.room("flv1", submit_at="first_part")
    world.start()
    world.site.go_live("flv1")
    for _ in range(2):
        world.wait(lambda: "appending" in world.states("submissions"), 40, "an edit begins")
        world.kill()
        world.start()
    world.site.go_offline("flv1")
    world.wait(lambda: not world.recorders() and set(world.states()) == {"published"}, 60, "every part is published")
    world.wait(lambda: set(world.states("submissions")) == {"published"}, 20, "every submission is")
    world.check_published(submissions=len(world.rows("submissions")), videos=len(world.rows("videos")))
    files = {row["filename"]: row["file_path"] for row in world.rows("videos v join uploads u on u.video_id = v.id")}
    sent = [files[part.filename] for archive in world.bilibili.archives for part in archive.parts]
    assert sent == sorted(files.values())
    assert all(len(archive.parts) == 3 for archive in world.bilibili.archives[:-1])
