import random
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from biliupd.catalog import records, submissions, videos
from biliupd.catalog.database import stamp
from biliupd.catalog.states import SUBMISSION_MOVES, VIDEO_MOVES, Stage, State, advance, move
from biliupd.catalog.sync import Changes, Found, apply


def add(catalog, name="a.mp4", **facts):
    apply(catalog.db, Changes(added=[Found(f"/r/{name}", "/r", "file", 10, 1, hash(name) % 10**9, 1, **facts)]))
    (id,) = catalog.db.execute("select id from videos where file_path = ?", [f"/r/{name}"]).fetchone()
    return id


def broadcast(catalog, *, ended_at=None, parts=0):
    streamer = records.streamer_id(catalog.db, "ann")
    facts = {"title": "t", "cover_url": "", "live_id": "", "directory": "/r/ann/1", "started_at": "2026-01-01"}
    records.broadcast(
        catalog.db, {"id": "b1", "streamer_id": streamer, **facts, "ended_at": ended_at, "parts": parts}
    )
    return {"broadcast_id": "b1", "streamer_id": streamer}


def to_uploaded(catalog, id, filename="n"):
    move(catalog.db, id, State.RECORDED, State.EDITING)
    move(catalog.db, id, State.EDITING, State.READY)
    assert videos.begin_upload(catalog.db, videos.get(catalog.db, id), "me")
    assert videos.end_upload(
        catalog.db, id, filename=filename, cid=id, line="bda2", size_bytes=10, mtime_ns=1)


def test_a_random_walk_over_the_states_leaves_an_unbroken_trace(catalog):
    id, state, chance = add(catalog), State.RECORDED, random.Random(5)
    trace = []
    for _ in range(2000):
        if not VIDEO_MOVES[state]:
            break
        new = chance.choice(list(State))
        if new not in VIDEO_MOVES[state]:
            with pytest.raises(ValueError, match="is not a move"):
                move(catalog.db, id, state, new)
            continue
        if new is State.PUBLISHED and len(trace) < 100:
            continue
        assert move(catalog.db, id, state, new)
        assert not move(catalog.db, id, state, new) or new is state
        trace.append((state, new))
        state = new
    assert videos.get(catalog.db, id)["state"] == state
    written = catalog.db.execute("select old, new from moves where video = ? order by id", [id]).fetchall()
    assert written == trace
    assert len(trace) > 100


@pytest.mark.parametrize(("moves", "ends"), [(VIDEO_MOVES, ["published"]), (SUBMISSION_MOVES, [])])
def test_every_state_has_its_moves_and_only_a_published_video_has_none(moves, ends):
    assert set(moves) == set(type(next(iter(moves))))
    assert [state.value for state, ways in moves.items() if not ways] == ends


def body(*names):
    return {"title": "t", "videos": [{"filename": name} for name in names]}


def test_of_two_that_claim_a_row_one_gets_it(catalog):
    id = add(catalog)
    won = []

    def claim():
        won.append(move(catalog.db, id, State.RECORDED, State.EDITING))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_a_row_put_back_is_due_only_when_its_time_has_come(catalog):
    id = add(catalog)
    move(catalog.db, id, State.RECORDED, State.EDITING)
    later = stamp(datetime.now(UTC) + timedelta(hours=1))
    videos.put_back(catalog.db, {"id": id}, State.EDITING, State.RECORDED, "no space", later, 1)
    assert videos.due(catalog.db, State.RECORDED) == []
    earlier = stamp(datetime.now(UTC) - timedelta(hours=1))
    catalog.db["videos"].update(id, {"retry_at": earlier})
    assert [row["last_error"] for row in videos.due(catalog.db, State.RECORDED)] == ["no space"]


def test_work_of_a_dead_daemon_goes_back_to_rest_but_a_submission_stays_in_doubt(catalog):
    editing, uploading = add(catalog, "e.mp4"), add(catalog, "u.mp4")
    move(catalog.db, editing, State.RECORDED, State.EDITING)
    move(catalog.db, uploading, State.RECORDED, State.EDITING)
    move(catalog.db, uploading, State.EDITING, State.READY)
    videos.begin_upload(catalog.db, videos.get(catalog.db, uploading), "dead")
    submission = submissions.of_video(catalog.db, videos.get(catalog.db, uploading), "main", exists=bool)
    row = submissions.everything(catalog.db)[0]
    submissions.begin(catalog.db, row, body("n1"), "dead")
    assert videos.release(catalog.db) == 2
    assert videos.get(catalog.db, editing)["state"] == State.RECORDED
    assert videos.get(catalog.db, uploading)["state"] == State.READY
    (doubtful,) = submissions.due(catalog.db, Stage.SUBMITTING)
    assert (doubtful["id"], doubtful["filenames"]) == (submission, '["n1"]')


def test_the_videos_of_a_broadcast_are_parts_of_one_submission_in_the_order_of_recording(catalog):
    of = broadcast(catalog, ended_at="2026-01-02", parts=2)
    second, first = add(catalog, "ann/1/P002.flv", **of), add(catalog, "ann/1/P001.flv", **of)
    ids = {submissions.of_video(catalog.db, videos.get(catalog.db, id), "main", exists=bool) for id in (second, first)}
    assert len(ids) == 1
    assert [part["id"] for part in submissions.parts(catalog.db, ids.pop())] == [first, second]


def test_a_submission_says_what_it_waits_for_until_it_is_complete(catalog):
    of = broadcast(catalog, ended_at=None, parts=2)
    first = add(catalog, "ann/1/P001.flv", **of)
    to_uploaded(catalog, first)
    submissions.of_video(catalog.db, videos.get(catalog.db, first), "main", exists=bool)

    def obstacle():
        return submissions.obstacle(catalog.db, submissions.everything(catalog.db)[0])

    assert "still going on" in obstacle()
    broadcast(catalog, ended_at="2026-01-02", parts=2)
    assert "not catalogued yet" in obstacle()
    second = add(catalog, "ann/1/P002.flv", **of)
    assert "is recorded" in obstacle()
    to_uploaded(catalog, second)
    submissions.of_video(catalog.db, videos.get(catalog.db, second), "main", exists=bool)
    assert obstacle() == ""


def test_a_video_that_comes_after_the_submit_belongs_to_it_and_is_to_be_appended(catalog):
    of = broadcast(catalog, ended_at="2026-01-02", parts=1)
    first = add(catalog, "ann/1/P002.flv", **of)
    to_uploaded(catalog, first, "n2")
    one = submissions.of_video(catalog.db, videos.get(catalog.db, first), "main", exists=bool)
    submissions.begin(catalog.db, submissions.get(catalog.db, one), body("n2"), "me")
    late = add(catalog, "ann/1/P001.flv", **of)
    assert submissions.of_video(catalog.db, videos.get(catalog.db, late), "main", exists=bool) == one
    submissions.accepted(catalog.db, one, 1, "BV1")
    assert submissions.with_more(catalog.db) == []
    to_uploaded(catalog, late, "n1")
    (row,) = submissions.with_more(catalog.db)
    assert submissions.begin_append(catalog.db, row, ["n1", "n2"], "me")
    assert submissions.appended(catalog.db, submissions.get(catalog.db, one))
    assert submissions.with_more(catalog.db) == []
    submissions.shown(catalog.db, one)
    assert {videos.get(catalog.db, id)["state"] for id in (first, late)} == {State.PUBLISHED}


def test_what_another_account_uploads_is_a_submission_of_its_own(catalog):
    of = broadcast(catalog, ended_at="2026-01-02", parts=1)
    first, late = add(catalog, "ann/1/P001.flv", **of), add(catalog, "ann/1/P002.flv", **of)
    to_uploaded(catalog, first)
    one = submissions.of_video(catalog.db, videos.get(catalog.db, first), "main", exists=bool)
    submissions.begin(catalog.db, submissions.get(catalog.db, one), body("n"), "me")
    assert submissions.of_video(catalog.db, videos.get(catalog.db, late), "other", exists=bool) != one


def test_more_parts_than_one_submission_takes_go_on_in_a_further_one_in_their_order(catalog):
    of = broadcast(catalog, ended_at="2026-01-02", parts=7)
    ids = [add(catalog, f"ann/1/P{number}.flv", **of) for number in (10, 9, 2, 1, 11, 3, 4)]
    for id in ids:
        to_uploaded(catalog, id, f"n{id}")
        one = submissions.of_video(catalog.db, videos.get(catalog.db, id), "main", exists=bool)
    two = submissions.split(catalog.db, submissions.get(catalog.db, one), 3)
    assert submissions.split(catalog.db, submissions.get(catalog.db, one), 3) is None
    three = submissions.split(catalog.db, submissions.get(catalog.db, two), 3)

    def names(id):
        return [Path(part["file_path"]).stem for part in submissions.parts(catalog.db, id)]

    assert [names(id) for id in (one, two, three)] == [["P1", "P2", "P3"], ["P4", "P9", "P10"], ["P11"]]
    assert [submissions.get(catalog.db, id)["continues"] for id in (one, two, three)] == [None, one, two]


def test_what_comes_too_late_for_a_full_submission_goes_into_the_one_that_continues_it(catalog):
    of = broadcast(catalog, ended_at=None, parts=4)
    ids = [add(catalog, f"ann/1/P{number}.flv", **of) for number in range(1, 5)]
    for id in ids[:3]:
        to_uploaded(catalog, id, f"n{id}")
        one = submissions.of_video(catalog.db, videos.get(catalog.db, id), "main", exists=bool)
    two = submissions.split(catalog.db, submissions.get(catalog.db, one), 2)
    catalog.db["videos"].update(ids[3], {"submission_id": one})  # its upload began a moment before
    assert submissions.split(catalog.db, submissions.get(catalog.db, one), 2) == two
    assert [part["id"] for part in submissions.parts(catalog.db, two)] == ids[2:]
    assert len(submissions.everything(catalog.db)) == 2


def test_parts_go_in_order_while_the_broadcast_goes_on_and_a_held_one_is_not_waited_for(catalog):
    of = broadcast(catalog, ended_at=None, parts=4)
    first, second, third, fourth = (add(catalog, f"ann/1/P00{number}.flv", **of) for number in range(1, 5))
    for id in (second, third):
        to_uploaded(catalog, id, f"n{id}")
        one = submissions.of_video(catalog.db, videos.get(catalog.db, id), "main", exists=bool)

    def leading():
        return [part["id"] for part in submissions.leading(catalog.db, submissions.parts(catalog.db, one))]

    assert leading() == []
    move(catalog.db, first, State.RECORDED, State.HELD)
    assert leading() == [second, third]
    to_uploaded(catalog, fourth, "n4")
    assert leading() == [second, third], "the fourth has no submission yet"


def test_published_is_reached_by_the_submission_and_its_videos_together(catalog):
    id = add(catalog)
    to_uploaded(catalog, id)
    submission = submissions.of_video(catalog.db, videos.get(catalog.db, id), "main", exists=bool)
    submissions.begin(catalog.db, submissions.everything(catalog.db)[0], body("n"), "me")
    submissions.accepted(catalog.db, submission, 1, "BV1")
    assert videos.get(catalog.db, id)["bvid"] == "BV1"
    submissions.shown(catalog.db, submission)
    assert videos.get(catalog.db, id)["state"] == State.PUBLISHED
    assert not advance(catalog.db, submission, Stage.SUBMITTED, Stage.HELD)


def test_a_held_submission_that_may_have_been_sent_is_looked_up_before_it_is_tried_again(catalog):
    id = add(catalog)
    to_uploaded(catalog, id)
    submission = submissions.of_video(catalog.db, videos.get(catalog.db, id), "main", exists=bool)
    row = submissions.everything(catalog.db)[0]
    submissions.begin(catalog.db, row, body("n"), "me")
    submissions.failed(catalog.db, row, Stage.SUBMITTING, Stage.HELD, "no answer", None)
    assert submissions.retry(catalog.db, submission)
    assert submissions.everything(catalog.db)[0]["state"] == Stage.SUBMITTING
