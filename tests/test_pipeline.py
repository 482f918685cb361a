"""The workers' turns against the stand-in Bilibili, without a daemon around them."""

import os
from datetime import UTC, datetime

import pytest
from support import wait_until
from world import make_video

from biliupd.catalog import records, submissions, videos
from biliupd.catalog.states import State
from biliupd.config import Account, DropFolder
from biliupd.errors import TemporaryError
from biliupd.pipeline.desk import Desk
from biliupd.publish import submission as bilibili


def test_an_upload_that_keeps_failing_is_tried_so_often_then_held(bench, clip):
    bench.bilibili.fail("preupload", 503, times=1000)
    id = bench.add(clip)
    bench.everything(lambda: bench.video(id)["state"] == State.HELD)
    assert "after 3 tries" in bench.video(id)["last_error"]
    moves = [row["new"] for row in bench.catalog.db.query("select * from moves where video = ?", [id])]
    assert moves == ["editing", "ready", "uploading", "ready", "uploading", "ready", "uploading", "held"]
    assert clip.exists()


def test_a_person_may_try_a_held_video_again(bench, clip):
    bench.bilibili.fail("preupload", 503, times=1000)
    id = bench.add(clip)
    bench.everything(lambda: bench.video(id)["state"] == State.HELD)
    bench.bilibili._faults.clear()
    assert videos.retry(bench.catalog.db, id)
    bench.everything(lambda: bench.video(id)["state"] == State.PUBLISHED)
    assert not videos.retry(bench.catalog.db, id)


def test_each_wait_is_longer_than_the_one_before_up_to_an_hour(bench):
    desk = Desk(bench.config.model_copy(
        update={"publish": bench.config.publish.model_copy(update={"retry_seconds": 30.0})}
    ), bench.catalog)  # fmt: skip
    waits = [desk.wait_seconds(attempts, ValueError()) for attempts in range(1, 20)]
    assert 24 <= waits[0] <= 36
    assert 48 <= waits[1] <= 72
    assert max(waits) <= 3600 * 1.2


@pytest.mark.parametrize("code", [21103, 21005, -400, 77777])
def test_a_refused_submit_is_held_with_bilibilis_words_and_the_upload_kept(bench, clip, code):
    bench.bilibili.refuse("submit", code, "not like this")
    id = bench.add(clip)
    bench.everything(lambda: bench.submission()["state"] == "held" if bench.asked("submit") else False)
    assert "not like this" in bench.submission()["last_error"]
    assert bench.video(id)["state"] == State.UPLOADED
    assert bench.asked("submit") == 1
    assert submissions.retry(bench.catalog.db, bench.submission()["id"])
    bench.everything(lambda: bench.video(id)["state"] == State.PUBLISHED)
    assert bench.asked("init") == 1, "the bytes were sent again"


@pytest.mark.parametrize("code", [-101, 601, 21566, 137022, -352])
def test_an_account_that_needs_a_person_rests_and_nothing_counts_as_a_failed_try(bench, clip, code):
    bench.bilibili.refuse("submit", code, "stop it", times=1000)
    id = bench.add(clip)
    bench.everything(lambda: bench.asked("submit") == 1)
    for _ in range(20):
        bench.pipeline.submit_turn()
        bench.pipeline.upload_turn()
    assert bench.asked("submit") == 1, "it keeps hammering"
    assert bench.submission()["attempts"] == 0
    assert bench.submission()["state"] == "collecting"
    assert bench.video(id)["state"] == State.UPLOADED
    account = records.account_row(bench.catalog.db, "main")
    assert account["state"] == ("waiting" if code == -101 else "cooling")
    assert "stop it" in account["reason"]
    assert account["retry_at"] > datetime.now(UTC).isoformat()
    assert account["hint"]


def test_an_account_that_is_told_to_stop_while_its_review_is_looked_at_rests_too(bench, clip):
    bench.bilibili.review_seconds = 3600
    bench.add(clip)
    bench.everything(lambda: bench.asked("submit") and bench.submission()["state"] == "submitted")
    bench.bilibili.refuse("view", -352, "stop it", times=1000)
    bench.catalog.db.execute("update submissions set retry_at = null")
    bench.everything(lambda: records.account_row(bench.catalog.db, "main")["state"] == "cooling")
    asked = len(bench.bilibili.requests)
    bench.catalog.db.execute("update submissions set retry_at = null")
    for _ in range(5):
        bench.pipeline.submit_turn()
    assert len(bench.bilibili.requests) == asked


def test_twice_without_an_answer_and_not_in_the_list_is_held_not_sent_a_third_time(bench, clip):
    bench.bilibili.fail("submit", 502, b"<html>", times=1000)
    bench.add(clip)
    bench.everything(lambda: bench.asked("submit") and bench.submission()["state"] == "held")
    assert bench.asked("submit") == 2
    assert "look at Bilibili" in bench.submission()["last_error"]
    assert bench.bilibili.archives == []


def test_parts_are_in_the_order_of_recording_whatever_was_uploaded_first(bench):
    of = bench.broadcast(parts=3)
    paths = [make_video(bench.drop / f"P00{n}.mp4", n) for n in (1, 2, 3)]
    ids = [bench.add(path, **of) for path in (paths[2], paths[0], paths[1])]
    bench.everything(lambda: all(bench.video(id)["state"] == State.PUBLISHED for id in ids))
    (archive,) = bench.bilibili.archives
    assert [part.title for part in archive.parts] == ["1 P001", "2 P002", "3 P003"]
    assert archive.title == "ann the show"
    assert archive.body["tag"] == "a,b"


def test_a_broadcast_with_a_held_part_waits_for_the_person(bench):
    of = bench.broadcast(parts=2)
    good = bench.add(make_video(bench.drop / "P001.mp4", 1), **of)
    (bench.drop / "P002.mp4").write_bytes(b"garbage" * 100)
    bad = bench.add(bench.drop / "P002.mp4", **of)
    bench.everything(lambda: bench.video(bad)["state"] == State.HELD and bench.video(good)["state"] == State.UPLOADED)
    bench.pipeline.submit_turn()
    assert "P002 is held" in bench.submission()["waits_for"]
    assert bench.asked("submit") == 0


def test_a_cover_that_bilibili_refuses_does_not_stop_the_submission(bench, clip):
    bench.bilibili.refuse("cover", -400, "bad picture", times=9)
    id = bench.add(clip)
    bench.everything(lambda: bench.video(id)["state"] == State.PUBLISHED)
    assert bench.bilibili.archives[0].body["cover"] == ""


def test_a_file_that_vanishes_is_missing_not_held(bench, clip):
    id = bench.add(clip)
    clip.unlink()
    bench.everything(lambda: bench.video(id)["state"] == State.MISSING)


def test_what_nobody_wants_published_stays_ready_and_says_why(bench, clip):
    folder = bench.config.drop_folders[0].model_copy(update={"upload": False})
    bench.pipeline.apply(bench.config.model_copy(update={"drop_folders": [folder]}))
    id = bench.add(clip)
    bench.everything(lambda: bench.video(id)["waits_for"])
    assert bench.video(id)["state"] == State.READY
    assert "upload is off" in bench.video(id)["waits_for"]
    bench.pipeline.apply(bench.config)
    bench.everything(lambda: bench.video(id)["state"] == State.PUBLISHED)


def test_a_title_without_a_streamer_has_no_gap_and_odd_names_are_valid_text(bench):
    path = make_video(bench.drop / "tmp.mp4", 1)
    odd = bench.drop / "a\nb  {x}\x1b[2J 🦊.mp4"
    os.rename(path, odd)
    id = bench.add(odd)
    bench.everything(lambda: bench.video(id)["state"] == State.PUBLISHED)
    assert bench.bilibili.archives[0].title == "a b {x}[2J 🦊"


def test_an_outcome_is_written_down_though_the_catalog_was_busy_just_then(bench, clip, monkeypatch):
    busy = [TemporaryError("the catalog cannot be written: database is locked")] * 2
    accepted = submissions.accepted

    def sometimes(*args):
        if busy:
            raise busy.pop()
        return accepted(*args)

    monkeypatch.setattr(submissions, "accepted", sometimes)
    id = bench.add(clip)
    bench.everything(lambda: bench.video(id)["state"] == State.PUBLISHED)
    assert busy == []
    assert len(bench.bilibili.archives) == 1


@pytest.mark.parametrize(("room", "name"), [(submissions, "of_video"), (videos, "edited"), (videos, "session")])
def test_a_claimed_video_is_not_stranded_by_a_catalog_that_is_busy_for_a_moment(bench, clip, monkeypatch, room, name):
    busy, real = [TemporaryError("the catalog cannot be written: database is locked")], getattr(room, name)

    def sometimes(*args, **facts):
        assert bench.video(id)["owner"] == str(os.getpid())
        if busy:
            raise busy.pop()
        return real(*args, **facts)

    monkeypatch.setattr(room, name, sometimes)
    id = bench.add(clip)
    bench.everything(lambda: bench.video(id)["state"] == State.PUBLISHED)
    assert busy == []
    assert bench.video(id)["owner"] is None


def test_an_upload_goes_on_though_its_progress_cannot_be_written_down(bench, clip, monkeypatch):
    def busy(*args):
        raise TemporaryError("the catalog cannot be written: database is locked")

    monkeypatch.setattr(videos, "progress", busy)
    id = bench.add(clip)
    bench.everything(lambda: bench.video(id)["state"] == State.PUBLISHED)
    assert bench.asked("init") == 1


def test_a_bug_in_the_submit_leads_to_a_look_not_to_a_second_submit(bench, clip, monkeypatch):
    submit = bilibili.submit

    def broken(*args):
        submit(*args)
        monkeypatch.undo()
        raise KeyError("bvid")

    monkeypatch.setattr(bilibili, "submit", broken)
    id = bench.add(clip)
    bench.everything(lambda: bench.video(id)["state"] == State.PUBLISHED)
    assert bench.asked("submit") == 1


def test_stopping_in_mid_upload_puts_the_video_back(bench, clip):
    bench.bilibili.slow(2000)
    id = bench.add(clip)
    bench.pipeline.start()
    wait_until(lambda: bench.asked("init") or bench.bilibili.under_way)
    wait_until(lambda: bench.video(id)["state"] == State.UPLOADING)
    bench.pipeline.close(10)
    assert not any(thread.is_alive() for thread in bench.pipeline._threads)
    assert bench.video(id)["state"] == State.READY
    assert bench.video(id)["attempts"] == 0


def test_what_one_account_uploaded_is_not_submitted_by_another(bench, clip, tmp_path):
    """Bilibili would refuse it; and a lost answer would be looked for in the wrong list, then sent again."""
    id = bench.add(clip)
    bench.pipeline.edit_turn()
    bench.pipeline.upload_turn()
    assert bench.video(id)["state"] == State.UPLOADED
    other = Account(cookies=bench.bilibili.write_cookies(tmp_path / "other.json", uid=10002))
    accounts = {**bench.config.accounts, "other": other}
    folder = DropFolder(directory=bench.drop, account="other")
    bench.pipeline.apply(bench.config.model_copy(update={"accounts": accounts, "drop_folders": [folder]}))
    bench.bilibili.lose_submit_answer()
    bench.everything(lambda: bench.video(id)["state"] == State.PUBLISHED)
    (archive,) = bench.bilibili.archives
    assert archive.uid == 10001
    late = bench.add(make_video(bench.drop / "late.mp4", 1))
    bench.everything(lambda: bench.video(late)["state"] == State.PUBLISHED)
    assert bench.bilibili.archives[-1].uid == 10002
    assert bench.submission()["account"] == "other"
