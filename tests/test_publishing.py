"""What is published, in which order, with which words, and what becomes of the files: the pipeline's turns."""

import errno
import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from support import another, wait_until
from world import make_video

from biliupd.catalog import records, submissions, videos
from biliupd.catalog.database import stamp
from biliupd.catalog.states import State, move
from biliupd.config import RetentionConfig, Template
from biliupd.errors import PermanentError
from biliupd.pipeline.orders import Order, Show
from biliupd.pipeline.preview import preview
from biliupd.pipeline.tidying import surplus
from biliupd.rehearsal.bilibili_faults import FOR_EVER

FIRST_PART = {"streamer": {"submit_at": "first_part"}}
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


def record(bench, video, number, of, *, edited=True):
    """One finished part of the broadcast; what is not `edited` has its merge, check and cover to come."""
    path = bench.recordings / "ann" / f"P{number:03}.mp4"
    path.parent.mkdir(exist_ok=True)
    return (bench.ready if edited else bench.add)(another(video, path), **of)


def drop(bench, video, name, *, edited=True):
    path = bench.drop / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return (bench.ready if edited else bench.add)(another(video, path))


def titles(archive):
    return [part.title for part in archive.parts]


# -- parts -------------------------------------------------------------------------------------------------------------


def test_parts_are_uploaded_while_the_broadcast_goes_on_and_submitted_at_its_end(bench, video):
    of = bench.broadcast(1, over=False)
    first = record(bench, video, 1, of)
    bench.everything(lambda: bench.state(first) == State.UPLOADED)
    for _ in range(5):
        bench.pipeline.submit_turn()
    assert bench.bilibili.archives == []
    of = bench.broadcast(2)
    second = record(bench, video, 2, of)
    bench.everything(lambda: bench.state(second) == State.PUBLISHED)
    (archive,) = bench.bilibili.archives
    assert titles(archive) == ["1 P001", "2 P002"]
    assert archive.edits == 0


def test_with_first_part_it_is_submitted_at_once_and_the_others_are_appended_in_order(make_bench, video):
    bench = make_bench(template={"desc": "words", "up_close_danmu": True, "human_type2": 1008}, **FIRST_PART)
    of = bench.broadcast(1, over=False)
    first = record(bench, video, 1, of)
    bench.everything(lambda: bench.state(first) == State.PUBLISHED)
    (archive,) = bench.bilibili.archives
    before = dict(archive.body)
    second, third = (record(bench, video, number, of) for number in (2, 3))
    bench.everything(lambda: bench.state(third) == State.PUBLISHED)
    assert bench.state(second) == State.PUBLISHED
    (archive,) = bench.bilibili.archives
    assert titles(archive) == ["1 P001", "2 P002", "3 P003"]
    for name in ("title", "desc", "tag", "tid", "copyright", "cover", "human_type2", "up_close_danmu", "no_reprint"):
        assert archive.body[name] == before[name], name
    assert {bench.video(id)["bvid"] for id in (first, second, third)} == {archive.bvid}


def test_a_later_part_that_was_faster_waits_for_the_one_before_it(make_bench, video):
    bench = make_bench(**FIRST_PART)
    of = bench.broadcast(3, over=False)
    first, second = record(bench, video, 1, of), record(bench, video, 2, of)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    bench.catalog.db["videos"].update(first, {"retry_at": later})
    bench.everything(lambda: bench.state(second) == State.UPLOADED)
    for _ in range(5):
        bench.pipeline.submit_turn()
    assert bench.bilibili.archives == []
    bench.catalog.db["videos"].update(first, {"retry_at": None})
    bench.everything(lambda: bench.state(second) == State.PUBLISHED)
    (archive,) = bench.bilibili.archives
    assert titles(archive) == ["1 P001", "2 P002"]


@pytest.mark.parametrize("loss", ["reset", "gateway", "refused first"])
def test_an_edit_whose_answer_is_lost_is_not_blindly_repeated(make_bench, video, loss):
    bench = make_bench(**FIRST_PART)
    of = bench.broadcast(2, over=False)
    first = record(bench, video, 1, of)
    bench.everything(lambda: bench.state(first) == State.PUBLISHED)
    if loss == "reset":
        bench.bilibili.lose_answer("edit")
    elif loss == "gateway":
        bench.bilibili.spoil_answer("edit", 502)
    else:
        bench.bilibili.drop("edit")
    second = record(bench, video, 2, of)
    bench.everything(lambda: bench.state(second) == State.PUBLISHED)
    (archive,) = bench.bilibili.archives
    assert titles(archive) == ["1 P001", "2 P002"]
    assert archive.edits == 1
    assert bench.asked("edit") == (2 if loss == "refused first" else 1)


@pytest.mark.parametrize("lag", ["before the first edit", "after the first edit"])
def test_what_bilibili_shows_late_is_waited_for_so_that_an_edit_takes_no_part_out(make_bench, video, lag):
    bench = make_bench(**FIRST_PART)
    of = bench.broadcast(3, over=False)
    first = record(bench, video, 1, of)
    bench.everything(lambda: bench.video(first)["bvid"])
    (archive,) = bench.bilibili.archives
    if lag == "after the first edit":  # then the submission is seen, but not what changed
        bench.everything(lambda: time.time() - archive.created_at > 1)
    bench.bilibili.delay_view(1)

    def is_there(id: int) -> bool:
        bench.pass_time(10)
        return bool(bench.video(id)["bvid"])

    for number in (2, 3):
        id = record(bench, video, number, of)
        bench.everything(lambda id=id: is_there(id))
    assert titles(archive) == ["1 P001", "2 P002", "3 P003"]
    assert archive.edits == 2


def test_a_part_that_somebody_took_out_at_bilibili_stays_out_and_stops_no_other(make_bench, video):
    bench = make_bench(**FIRST_PART)
    of = bench.broadcast(3, over=False)
    ids = [record(bench, video, number, of) for number in (1, 2)]
    bench.everything(lambda: all(bench.state(id) == State.PUBLISHED for id in ids))
    (archive,) = bench.bilibili.archives
    del archive.parts[1]
    third = record(bench, video, 3, of)
    bench.everything(lambda: "not seen with all its parts" in (bench.submission()["last_error"] or ""))
    assert archive.edits == 1
    bench.pass_time(3600)
    bench.everything(lambda: bench.video(third)["bvid"])
    assert titles(archive) == ["1 P001", "3 P003"]


def test_a_submission_that_was_deleted_at_bilibili_is_held_when_a_part_comes(make_bench, video):
    bench = make_bench(**FIRST_PART)
    of = bench.broadcast(2, over=False)
    first = record(bench, video, 1, of)
    bench.everything(lambda: bench.state(first) == State.PUBLISHED)
    bench.bilibili.refuse("view", 10003, "gone", FOR_EVER)
    bench.pass_time(7200)
    second = record(bench, video, 2, of)
    bench.everything(lambda: bench.submission()["state"] == "held")
    assert bench.submission()["last_error"].startswith("view of BV"), "what happened, not what the exception is called"
    assert bench.state(second) == State.UPLOADED
    assert bench.asked("submit") == 1


def test_a_part_that_a_person_lets_go_later_is_appended_at_its_place(bench, video):
    of = bench.broadcast(3)
    ids = [record(bench, video, number, of, edited=False) for number in (1, 2, 3)]
    move(bench.catalog.db, ids[1], State.RECORDED, State.IGNORED)
    bench.everything(lambda: bench.state(ids[2]) == State.PUBLISHED)
    assert titles(bench.bilibili.archives[0]) == ["1 P001", "2 P003"]
    move(bench.catalog.db, ids[1], State.IGNORED, State.RECORDED)
    bench.everything(lambda: bench.state(ids[1]) == State.PUBLISHED)
    (archive,) = bench.bilibili.archives
    assert [bench.video(id)["path"][-8:-4] for id in ids] == ["P001", "P002", "P003"]
    files = {row["filename"]: row["video_id"] for row in bench.catalog.db.query("select * from uploads")}
    assert [files[part.filename] for part in archive.parts] == ids


def test_more_parts_than_a_submission_takes_go_on_in_a_linked_one(make_bench, video):
    bench = make_bench(parts_per_submission=2)
    of = bench.broadcast(5)
    ids = [record(bench, video, number, of) for number in (5, 4, 3, 2, 1)]
    bench.everything(lambda: all(bench.state(id) == State.PUBLISHED for id in ids))
    one, two, three = bench.bilibili.archives
    assert [titles(archive) for archive in (one, two, three)] == [
        ["1 P001", "2 P002"], ["3 P003", "4 P004"], ["5 P005"]]
    assert [archive.title for archive in (one, two, three)] == ["ann the show", "ann the show (2)", "ann the show (3)"]
    assert one.bvid in two.body["desc"]
    assert two.bvid in three.body["desc"]


def test_with_first_part_too_a_full_submission_is_gone_on_in_another(make_bench, video):
    bench = make_bench(parts_per_submission=2, **FIRST_PART)
    of = bench.broadcast(1, over=False)
    for number in (1, 2, 3):
        id = record(bench, video, number, of)
        bench.everything(lambda id=id: bench.state(id) == State.PUBLISHED)
    one, two = bench.bilibili.archives
    assert (titles(one), titles(two)) == (["1 P001", "2 P002"], ["3 P003"])


# -- dropped folders and sidecars --------------------------------------------------------------------------------------


def test_a_dropped_folder_is_one_submission_with_its_files_as_parts(make_bench, video):
    bench = make_bench(folder={"folder_quiet_seconds": 0.3}, template={"title": "{title}", "part_title": "{file}"})
    names = ("day 10.mp4", "day 2.mp4", "more/day 11.mp4", "day 1.mp4")
    ids = [drop(bench, video, f"my trip/{name}") for name in names]
    single = drop(bench, video, "single.mp4")
    bench.everything(lambda: all(bench.state(id) == State.PUBLISHED for id in (*ids, single)))
    found = {archive.title: titles(archive) for archive in bench.bilibili.archives}
    assert found == {"my trip": ["day 1", "day 2", "day 10", "day 11"], "single": ["single"]}


def test_another_folder_of_a_name_that_was_published_and_is_gone_is_a_submission_of_its_own(make_bench, video):
    bench = make_bench(folder={"folder_quiet_seconds": 0.1}, retention={"after_publishing": "delete"})
    bench.bilibili.same_title_seconds = 0
    first = drop(bench, video, "trip/1.mp4")
    bench.everything(lambda: bench.video(first)["removed_at"])
    second = drop(bench, video, "trip/2.mp4")
    bench.everything(lambda: bench.video(second)["removed_at"])
    assert [titles(archive) for archive in bench.bilibili.archives] == [["1 1"], ["1 2"]]
    bench.change("retention", after_publishing="keep")
    for name in ("trip/3.mp4", "trip/4.mp4"):
        id = drop(bench, video, name)
        bench.everything(lambda id=id: bench.state(id) == State.PUBLISHED)
    assert [len(archive.parts) for archive in bench.bilibili.archives] == [1, 1, 2]


def test_a_folder_is_not_submitted_while_something_new_comes_into_it(make_bench, video):
    bench = make_bench(folder={"folder_quiet_seconds": 3600})
    id = drop(bench, video, "trip/1.mp4")
    bench.everything(lambda: bench.state(id) == State.UPLOADED)
    bench.everything(lambda: "something new" in (bench.submission()["waits_for"] or ""))
    assert bench.bilibili.archives == []


def test_what_a_clock_that_was_ahead_left_behind_is_not_waited_for(make_bench, video):
    bench = make_bench(folder={"folder_quiet_seconds": 0.1})
    id, other = drop(bench, video, "trip/1.mp4", edited=False), drop(bench, video, "trip/2.mp4", edited=False)
    ahead = stamp(datetime.now(UTC) + timedelta(days=400))
    bench.catalog.db["videos"].update(id, {"retry_at": ahead, "created_at": ahead})
    bench.catalog.db["videos"].update(other, {"retry_at": stamp(datetime.now(UTC) + timedelta(hours=26))})
    bench.everything(lambda: bench.state(id) == State.UPLOADED)
    assert bench.state(other) == State.RECORDED, "a whole day may be waited for"
    bench.catalog.db["videos"].update(other, {"retry_at": None})
    bench.catalog.db["submissions"].update(bench.submission()["id"], {"retry_at": ahead})
    bench.everything(lambda: bench.state(other) == State.PUBLISHED)
    assert len(bench.bilibili.archives) == 1


def test_a_folder_can_also_be_a_submission_for_each_file(make_bench, video):
    bench = make_bench(folder={"folders": "files"})
    ids = [drop(bench, video, f"trip/{number}.mp4") for number in (1, 2)]
    bench.everything(lambda: all(bench.state(id) == State.PUBLISHED for id in ids))
    assert len(bench.bilibili.archives) == 2


@pytest.mark.parametrize("name", ["talk.yaml", "talk.mp4.yaml", "talk.yml"])
def test_a_sidecar_says_what_is_different_for_one_file(bench, video, name):
    (bench.drop / name).write_text("title: 我的 {file}\ntags: [x, y]\ntid: 17\nup_close_reply: true\ndtime: +6h\n")
    id = drop(bench, video, "talk.mp4")
    bench.everything(lambda: bench.asked("submit"))
    (archive,) = bench.bilibili.archives
    assert (archive.title, archive.body["tag"], archive.body["tid"]) == ("我的 talk", "x,y", 17)
    assert archive.body["up_close_reply"] is True
    assert timedelta(hours=5, minutes=55) < datetime.fromtimestamp(archive.body["dtime"], UTC) - datetime.now(UTC)
    assert bench.state(id) == State.UPLOADED, "it is not out before its hour"


def test_a_sidecar_of_a_folder_holds_for_all_of_it(make_bench, video):
    bench = make_bench(folder={"folder_quiet_seconds": 0.1})
    (bench.drop / "trip.yaml").write_text("title: The Trip\n")
    id = drop(bench, video, "trip/1.mp4")
    bench.everything(lambda: bench.state(id) == State.PUBLISHED)
    assert bench.bilibili.archives[0].title == "The Trip"


@pytest.mark.parametrize(("text", "why"), [
    ("titel: x", "did you mean title?"), ("title: [", "talk.yaml (line 1)"), ("copyright: 2", "repost"),
    ("account: nobody", "'nobody'"), ("cover: /etc/passwd", "must lie in the drop folder"), ("tid: -1", "tid (line 1)"),
])  # fmt: skip
def test_a_sidecar_that_cannot_be_used_is_named_and_waited_for(bench, video, text, why):
    (bench.drop / "talk.yaml").write_text(text)
    id = drop(bench, video, "talk.mp4")
    bench.everything(lambda: why in (bench.video(id)["waits_for"] or ""))
    assert bench.state(id) == State.READY
    (bench.drop / "talk.yaml").write_text("title: good\n")
    bench.catalog.db["videos"].update(id, {"retry_at": None})  # its time has come
    bench.everything(lambda: bench.state(id) == State.PUBLISHED)
    assert bench.bilibili.archives[0].title == "good"


def test_a_sidecar_that_is_a_pipe_stops_nothing(bench, video):
    os.mkfifo(bench.drop / "talk.yaml")
    id = drop(bench, video, "talk.mp4")
    bench.everything(lambda: "is not a file" in (bench.video(id)["waits_for"] or ""))


def test_a_sidecar_that_leads_out_of_the_folder_is_not_read(bench, video, tmp_path):
    (tmp_path / "secret").write_text("hunter2")
    (bench.drop / "talk.yaml").symlink_to(tmp_path / "secret")
    id = drop(bench, video, "talk.mp4")
    bench.everything(lambda: "leads out of the drop folder" in (bench.video(id)["waits_for"] or ""))
    assert "hunter2" not in bench.video(id)["waits_for"]


def test_a_sidecar_may_say_that_it_is_not_published(bench, video):
    (bench.drop / "talk.yaml").write_text("upload: false\n")
    id = drop(bench, video, "talk.mp4")
    bench.everything(lambda: bench.video(id)["waits_for"] == "not published: upload is off for it")


# -- words and covers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("title", "wanted"), [
    ("short", "ann short 2026-01-02"), ("长" * 100, "ann " + "长" * 64 + "… 2026-01-02"),
])
def test_of_a_title_that_is_too_long_the_shows_own_title_is_shortened(title, wanted):
    order = Order(Template(title="{streamer} {title} {started_at:%Y-%m-%d}"), "main", "ann")
    found = Show(title, datetime(2026, 1, 2, 12, tzinfo=UTC)).title_of(order)
    assert found == wanted
    assert len(found) <= 80


def test_the_cover_is_what_the_room_showed_or_a_frame_when_that_is_gone(make_bench, video):
    class Picture(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/live.jpg" else 404)
            self.end_headers()
            self.wfile.write(JPEG)

        def log_message(self, *args: object) -> None: ...

    site = HTTPServer(("127.0.0.1", 0), Picture)
    thread = Thread(target=site.serve_forever)
    thread.start()
    try:
        for name, is_live in (("live.jpg", True), ("gone.jpg", False)):
            bench = make_bench(template={"cover": "live"})
            of = bench.broadcast(1, cover_url=f"http://127.0.0.1:{site.server_address[1]}/{name}")
            id = record(bench, video, 1, of, edited=False)
            bench.everything(lambda bench=bench, id=id: bench.state(id) == State.PUBLISHED)
            picture = bench.bilibili.picture(bench.bilibili.archives[0].body["cover"])
            assert (picture == JPEG) is is_live
            assert picture.startswith(b"\xff\xd8\xff")
    finally:
        site.shutdown()
        site.server_close()
        thread.join()


def test_the_body_that_was_sent_is_kept(bench, clip):
    bench.add(clip)
    bench.everything(lambda: bench.submission()["state"] == "published")
    body = json.loads(bench.submission()["body"])
    assert body["title"] == bench.bilibili.archives[0].title
    assert "csrf" not in body


# -- exactly once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [10009, 21012])
def test_a_refusal_that_an_earlier_submit_may_explain_leads_to_a_look_and_to_no_second_archive(bench, clip, code):
    bench.bilibili.lose_submit_answer()
    bench.bilibili.delay_listing(3600)
    id = bench.add(clip)
    bench.everything(lambda: bench.asked("submit") == 1 and bench.submission()["lookups"] == 1)
    bench.bilibili.refuse("submit", code, "again?")
    bench.everything(lambda: bench.asked("submit") == 2)
    bench.bilibili.delay_listing(0)
    bench.everything(lambda: bench.state(id) == State.PUBLISHED)
    assert len(bench.bilibili.archives) == 1


def test_new_settings_do_not_shorten_the_wait_between_two_looks(make_bench, video):
    bench = make_bench(lookup_seconds=3600)
    bench.bilibili.lose_submit_answer()
    bench.bilibili.delay_listing(3600)
    bench.bilibili.refuse("archives", -101, "not logged in")
    drop(bench, video, "a.mp4")
    bench.everything(lambda: bench.asked("archives") and bench.submission()["waits_for"])
    bench.bilibili.write_cookies(bench.cookies)
    bench.pass_time(60)
    bench.everything(lambda: bench.submission()["lookups"] == 1)
    bench.change("publish", parallel_parts=1)
    for _ in range(5):
        bench.pipeline.submit_turn()
    assert bench.asked("submit") == 1


def test_a_submit_that_got_through_hours_ago_is_still_found_after_the_next_try(bench, clip):
    bench.bilibili.lose_submit_answer()
    bench.bilibili.delay_listing(100_000)
    id = bench.add(clip)
    bench.everything(lambda: bench.asked("submit") == 1)
    (archive,) = bench.bilibili.archives
    archive.created_at -= 7200
    bench.catalog.db.execute("update submissions set submit_started_at = ?", [
        stamp(datetime.now(UTC) - timedelta(hours=2))])  # fmt: skip
    bench.everything(lambda: bench.asked("submit") >= 2)
    bench.bilibili.delay_listing(0)

    def done() -> bool:
        bench.pass_time(60)
        return bench.state(id) == State.PUBLISHED

    bench.everything(done)
    assert len(bench.bilibili.archives) == 1


def test_a_title_that_another_submission_has_just_now_is_tried_again_later_not_held(bench, video):
    bench.bilibili.same_title_seconds = 3600
    first = drop(bench, video, "same.mp4")
    bench.everything(lambda: bench.state(first) == State.PUBLISHED)
    (bench.drop / "other.yaml").write_text("title: same\n")
    second = drop(bench, video, "other.mp4")
    bench.everything(lambda: bench.asked("submit") == 2 and bench.submission()["state"] == "collecting")
    bench.everything(lambda: bench.submission()["retry_at"])
    assert "21012" in bench.submission()["last_error"]
    bench.bilibili.same_title_seconds = 0
    bench.catalog.db["submissions"].update(bench.submission()["id"], {"retry_at": None})
    bench.everything(lambda: bench.state(second) == State.PUBLISHED)
    assert len(bench.bilibili.archives) == 2


@pytest.mark.parametrize(("text", "inits"), [("第2个视频似乎有损坏，请重新上传", 4), ("some part is broken", 6)])
def test_a_part_that_bilibili_calls_broken_is_uploaded_again_and_submitted(bench, video, text, inits):
    of = bench.broadcast(3)
    ids = [record(bench, video, number, of) for number in (1, 2, 3)]
    bench.bilibili.refuse("submit", 21015, text)
    bench.everything(lambda: all(bench.state(id) == State.PUBLISHED for id in ids))
    assert bench.asked("init") == inits
    (archive,) = bench.bilibili.archives
    files = {row["filename"]: row["video_id"] for row in bench.catalog.db.query("select * from uploads")}
    assert [files[part.filename] for part in archive.parts] == ids


def test_a_part_that_is_called_broken_twice_is_for_a_person(bench, clip):
    bench.bilibili.refuse("submit", 21015, "broken", times=100)
    bench.add(clip)
    bench.everything(lambda: bench.submission()["state"] == "held" if bench.asked("submit") == 2 else False)
    assert bench.asked("init") == 2


@pytest.mark.parametrize(("state", "reason"), [(-2, "画面有问题"), (-4, "违规"), (-16, "")])
def test_a_review_that_ends_badly_is_held_with_the_reason_and_the_file_stays(make_bench, video, state, reason):
    bench = make_bench(retention={"after_publishing": "delete"})
    bench.bilibili.review_seconds = 3600
    id = drop(bench, video, "a.mp4")
    bench.everything(lambda: bench.submission()["state"] == "submitted" if bench.asked("submit") else False)
    bench.bilibili.set_state(bench.submission()["bvid"], state, reason)
    bench.catalog.db["submissions"].update(bench.submission()["id"], {"retry_at": None})
    bench.everything(lambda: bench.submission()["state"] == "held")
    assert reason in bench.submission()["last_error"]
    assert bench.submission()["review_state"] == state
    assert os.path.exists(bench.video(id)["file_path"])


# -- what becomes of the files -----------------------------------------------------------------------------------------


def test_a_file_is_deleted_only_after_bilibili_shows_it(make_bench, video):
    bench = make_bench(retention={"after_publishing": "delete"})
    bench.bilibili.review_seconds = 3600
    id = drop(bench, video, "a.mp4")
    path = bench.video(id)["file_path"]
    bench.everything(lambda: bench.asked("view") >= 1)
    bench.pipeline.tidy_turn()
    assert os.path.exists(path)
    bench.bilibili.review_seconds = 0
    bench.catalog.db["submissions"].update(bench.submission()["id"], {"retry_at": None})
    bench.everything(lambda: not os.path.exists(path))
    assert bench.video(id)["removed_at"]
    assert bench.state(id) == State.PUBLISHED


def test_by_default_everything_is_kept(bench, clip):
    id = bench.add(clip)
    bench.everything(lambda: bench.state(id) == State.PUBLISHED)
    bench.pipeline.tidy_turn()
    assert clip.exists()


def test_a_pinned_file_stays_and_one_that_changed_since_stays_and_is_named(make_bench, video):
    bench = make_bench()
    ids = [drop(bench, video, name) for name in ("pinned.mp4", "changed.mp4", "plain.mp4")]
    bench.everything(lambda: all(bench.state(id) == State.PUBLISHED for id in ids))
    videos.pin(bench.catalog.db, ids[0], True)
    with open(bench.drop / "changed.mp4", "ab") as file:
        file.write(b"more")
    bench.change("retention", after_publishing="delete")
    bench.everything(lambda: not (bench.drop / "plain.mp4").exists())
    assert (bench.drop / "pinned.mp4").exists()
    assert (bench.drop / "changed.mp4").exists()
    (notice,) = records.notices(bench.catalog.db)
    assert "changed.mp4 stays" in notice["text"]


def test_published_files_are_moved_with_their_place_in_the_tree(make_bench, video, tmp_path):
    bench = make_bench(folder={"folders": "files"})
    ids = [drop(bench, video, name) for name in ("a.mp4", "sub/b.mp4")]
    bench.everything(lambda: all(bench.state(id) == State.PUBLISHED for id in ids))
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "a.mp4").write_bytes(b"another")
    bench.change("retention", after_publishing="move", move_to=tmp_path / "done")
    bench.everything(lambda: all(bench.video(id)["removed_at"] for id in ids))
    assert (tmp_path / "done" / "a.mp4").read_bytes() == b"another"
    assert (tmp_path / "done" / "sub" / "b.mp4").stat().st_size == video.stat().st_size + 24
    assert sorted(path.name for path in bench.drop.rglob("*.mp4")) == []
    assert all(os.path.exists(bench.video(id)["file_path"]) for id in ids)


def test_a_move_replaces_no_other_file_and_ends_when_both_names_are_of_one_file(make_bench, video, tmp_path):
    bench = make_bench()
    ids = [drop(bench, video, name) for name in ("other.mp4", "linked.mp4")]
    bench.everything(lambda: all(bench.state(id) == State.PUBLISHED for id in ids))
    done = tmp_path / "done"
    done.mkdir()
    (done / "other.mp4").write_bytes(bytes(video.stat().st_size + 24))
    os.utime(done / "other.mp4", (1, 1))
    os.link(bench.drop / "linked.mp4", done / "linked.mp4")
    bench.change("retention", after_publishing="move", move_to=done)
    bench.everything(lambda: all(bench.video(id)["removed_at"] for id in ids))
    assert not any((done / "other.mp4").read_bytes()), "it is of the same size, and not ours"
    assert list(bench.drop.iterdir()) == []
    assert sorted(len(path.read_bytes()) for path in done.iterdir()) == [video.stat().st_size + 24] * 3


@pytest.mark.parametrize("trouble", ["", "full", "changed"])
def test_a_move_to_another_disk_leaves_no_half_file_and_removes_no_news(bench, video, tmp_path, monkeypatch, trouble):
    id = drop(bench, video, "a.mp4")
    bench.everything(lambda: bench.state(id) == State.PUBLISHED)
    path, done, copy = bench.drop / "a.mp4", tmp_path / "done", shutil.copy2

    def rename(*paths: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    def copy2(source, target):
        if trouble == "full":
            target.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "no space")
        copy(source, target)
        if trouble == "changed":
            with open(source, "ab") as file:
                file.write(b"more")

    monkeypatch.setattr("biliupd.pipeline.tidying.os.rename", rename)
    monkeypatch.setattr("biliupd.pipeline.tidying.shutil.copy2", copy2)
    bench.change("retention", after_publishing="move", move_to=done)
    bench.pipeline.tidy_turn()
    assert [one.name for one in done.iterdir()] == ([] if trouble else ["a.mp4"])
    assert path.exists() is bool(trouble)
    assert len(records.notices(bench.catalog.db)) == bool(trouble)


def test_a_disk_that_went_away_for_a_while_takes_no_file_out_of_retention(make_bench, video, tmp_path):
    bench = make_bench()
    id = drop(bench, video, "a.mp4")
    bench.everything(lambda: bench.state(id) == State.PUBLISHED)
    bench.drop.rename(tmp_path / "away")
    bench.drop.mkdir()
    bench.change("retention", after_publishing="delete")
    bench.pipeline.tidy_turn()
    bench.drop.rmdir()
    (tmp_path / "away").rename(bench.drop)
    bench.everything(lambda: not (bench.drop / "a.mp4").exists())


def test_retention_takes_the_oldest_first_by_age_size_and_number():
    at = datetime(2026, 1, 10, tzinfo=UTC)
    there = [{"id": n, "file_size": 10, "uploaded_at": stamp(datetime(2026, 1, n, tzinfo=UTC))} for n in range(1, 6)]

    def gone(**settings):
        return [video["id"] for video in surplus(there, RetentionConfig(**settings), at)]

    assert gone() == []
    assert gone(days=7) == [1, 2]
    assert gone(size=25) == [1, 2, 3]
    assert gone(count=4) == [1]
    assert gone(days=7, count=2) == [1, 2, 3]
    assert gone(after_publishing="delete") == [1, 2, 3, 4, 5]


def test_progress_of_a_running_upload_is_in_the_catalog_and_at_hand(bench, clip):
    bench.bilibili.chunk_size_bytes = 20_000
    bench.bilibili.slow(15_000)
    id = bench.add(clip)
    bench.pipeline.edit_turn()
    thread = Thread(target=bench.pipeline.upload_turn)
    thread.start()
    try:
        wait_until(lambda: bench.pipeline.progress, 10)
        progress = bench.pipeline.progress[id]
        assert 0 <= progress.sent_bytes <= progress.total_bytes == clip.stat().st_size

        def row():
            return bench.catalog.db.query("select * from uploads where bytes_per_second > 0 and eta_seconds > 0")

        wait_until(lambda: list(row()), 10)
    finally:
        bench.bilibili.slow(0)
        thread.join()
    assert bench.pipeline.progress == {}
    assert submissions.parts(bench.catalog.db, bench.submission()["id"])[0]["filename"]


def test_a_bandwidth_limit_holds_for_a_running_upload_and_can_be_lifted_while_it_runs(make_bench, video):
    bench = make_bench(bandwidth=2_000)
    bench.bilibili.chunk_size_bytes = 20_000
    id = drop(bench, video, "a.mp4")
    bench.pipeline.edit_turn()
    thread = Thread(target=bench.pipeline.upload_turn)
    thread.start()
    try:
        wait_until(lambda: bench.pipeline.progress and bench.pipeline.progress[id].sent_bytes > 0, 10)
        assert bench.pipeline.progress[id].sent_bytes < bench.video(id)["file_size"] / 2
        assert bench.bilibili.chunks_seen == []
        bench.change("publish", bandwidth=0)
        wait_until(lambda: bench.state(id) == State.UPLOADED, 15)
    finally:
        thread.join()


def test_a_file_that_changed_after_it_was_edited_is_looked_at_again_before_it_is_uploaded(bench, video):
    whole = drop(bench, video, "whole.mp4")
    cut = drop(bench, video, "cut.mp4")
    for _ in range(2):
        bench.pipeline.edit_turn()
    make_video(bench.drop / "whole.mp4", 3)
    os.truncate(bench.drop / "cut.mp4", 30_000)

    def done() -> bool:
        bench.pass_time(60)
        return bench.state(whole) == State.PUBLISHED and bench.state(cut) == State.HELD

    bench.everything(done)
    assert bench.video(whole)["duration"] > 2.5
    assert len(bench.bilibili.archives) == 1


def test_a_link_out_of_the_folder_that_takes_a_files_place_is_neither_edited_nor_uploaded(bench, video, tmp_path):
    secret = another(video, tmp_path / "secret.mp4")
    early, late = drop(bench, video, "early.mp4", edited=False), drop(bench, video, "late.mp4", edited=False)
    (bench.drop / "early.mp4").unlink()
    (bench.drop / "early.mp4").symlink_to(secret)
    for _ in range(2):
        bench.pipeline.edit_turn()
    os.utime(secret, ns=(0, (bench.drop / "late.mp4").stat().st_mtime_ns))
    (bench.drop / "late.mp4").unlink()
    (bench.drop / "late.mp4").symlink_to(secret)
    bench.everything(lambda: bench.state(late) == State.HELD)
    for id in (early, late):
        assert bench.state(id) == State.HELD
        assert "leads out of the watched folder" in bench.video(id)["last_error"]
    assert bench.asked("init") == 0


def test_an_upload_that_was_stopped_goes_on_with_what_is_missing(bench, clip):
    bench.bilibili.chunk_size_bytes = 10_000
    bench.bilibili.slow(40_000)
    id = bench.add(clip)
    bench.pipeline.edit_turn()
    thread = Thread(target=bench.pipeline.upload_turn)
    thread.start()
    wait_until(lambda: len(bench.bilibili.chunks_seen) >= 3, 10)
    bench.pipeline.close(10)
    thread.join()
    assert bench.state(id) == State.READY
    acknowledged = len(set(bench.bilibili.chunks_seen))
    bench.bilibili.slow(0)
    bench.restart()
    bench.everything(lambda: bench.state(id) == State.PUBLISHED)
    seen = bench.bilibili.chunks_seen
    assert bench.asked("preupload") == 1
    assert len(seen) - len(set(seen)) <= 3, "only what was under way is sent again"
    assert acknowledged >= 3


# -- preview -----------------------------------------------------------------------------------------------------------


def test_a_preview_of_a_broadcast_is_what_is_sent_then(make_bench, video):
    bench = make_bench(parts_per_submission=2, template={"desc": "{streamer} {url}", "dolby": True})
    of = bench.broadcast(3)
    ids = [record(bench, video, number, of) for number in (1, 2, 3)]
    shown = preview(bench.config, bench.catalog.db, "b1")
    assert bench.bilibili.requests == []
    bench.everything(lambda: all(bench.state(id) == State.PUBLISHED for id in ids))
    assert len(shown) == len(bench.bilibili.archives) == 2
    for one, archive in zip(shown, bench.bilibili.archives, strict=True):
        sent = {name: text for name, text in archive.body.items() if name not in ("cover", "videos", "desc")}
        assert {name: text for name, text in one.body.items() if name not in ("cover", "videos", "desc")} == sent
        assert [part["title"] for part in one.body["videos"]] == titles(archive)
    assert shown[0].body["desc"] == bench.bilibili.archives[0].body["desc"] == "ann https://x/a.flv"
    again = preview(bench.config, bench.catalog.db, str(bench.recordings / "ann" / "P001.mp4"))
    assert again[0].bvid == bench.bilibili.archives[0].bvid


def test_a_preview_of_a_file_needs_no_catalog_and_says_why_it_would_wait(bench, clip, tmp_path):
    (bench.drop / "clip.yaml").write_text("title: from the sidecar\n")
    (one,) = preview(bench.config, None, str(clip))
    assert (one.body["title"], one.waits_for, one.files) == ("from the sidecar", "", (str(clip),))
    (bench.drop / "clip.yaml").write_text("titel: x\n")
    (one,) = preview(bench.config, None, str(clip))
    assert "did you mean title?" in one.waits_for
    elsewhere = str(shutil.copy(clip, tmp_path / "elsewhere.mp4"))
    (one,) = preview(bench.config, bench.catalog.db, elsewhere)
    assert "no drop folder" in one.waits_for
    with pytest.raises(PermanentError, match="no file"):
        preview(bench.config, bench.catalog.db, "BV1nothing")


def test_a_preview_of_a_folder_has_its_files_as_parts(bench, clip):
    (bench.drop / "trip").mkdir()
    for name in ("10.mp4", "9.mp4"):
        another(clip, bench.drop / "trip" / name)
    (one,) = preview(bench.config, None, str(bench.drop / "trip"))
    assert [os.path.basename(file) for file in one.files] == ["9.mp4", "10.mp4"]
    assert one.body["title"] == "trip"


def test_what_a_person_asks_for_is_published_with_the_other_parts_whatever_the_settings_say(make_bench, video):
    bench = make_bench(streamer={"auto_upload": False})
    facts = bench.broadcast(parts=2)
    ids = [record(bench, video, n, facts) for n in (1, 2)]
    bench.everything(lambda: all("auto_upload is off" in (bench.video(id)["waits_for"] or "") for id in ids))
    assert videos.ask(bench.catalog.db, ids[0])
    bench.everything(lambda: [bench.state(id) for id in ids] == ["published", "published"])
    assert len(bench.bilibili.archives) == 1
    assert not videos.ask(bench.catalog.db, ids[0]), "it is published already"


def test_a_dropped_file_that_is_asked_for_goes_alone(make_bench, video):
    bench = make_bench(folder={"upload": False})
    one, other = drop(bench, video, "a.mp4"), drop(bench, video, "b.mp4")
    bench.everything(lambda: bench.video(other)["waits_for"])
    assert videos.ask(bench.catalog.db, one)
    bench.everything(lambda: bench.state(one) == "published")
    assert bench.state(other) == "ready"


def test_what_belongs_to_nobody_any_more_is_published_with_the_default_template_when_asked_for(make_bench, video):
    bench = make_bench(template={"title": "{streamer}: {title}"})
    facts = bench.broadcast(parts=1)
    bench.config = bench.config.model_copy(update={"streamers": []})
    bench.pipeline.apply(bench.config)
    id = record(bench, video, 1, facts)
    bench.everything(lambda: bench.video(id)["waits_for"])
    assert videos.ask(bench.catalog.db, id)
    bench.everything(lambda: bench.state(id) == "published")
    assert bench.bilibili.archives[0].title == "ann: the show"
