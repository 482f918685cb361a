import pytest
from test_sync import found, full

from biliupd.catalog import copies, sync, videos
from biliupd.catalog.states import State, move
from biliupd.catalog.sync import Changes


@pytest.fixture
def two(catalog):
    """Two files of the same content, the second of them being edited."""
    full(catalog, found("a.mp4"), found("b.mp4", inode=2))
    assert copies.note(catalog.db, 1, "10:x") == []
    move(catalog.db, 2, State.RECORDED, State.EDITING)
    (first,) = copies.note(catalog.db, 2, "10:x")
    assert first["id"] == 1
    return catalog.db


def test_a_copy_is_ignored_with_the_reason_and_published_when_a_person_wants_it(two):
    copies.ignore(two, 2, State.EDITING, videos.get(two, 1))
    copy = videos.get(two, 2)
    assert (copy["state"], copy["same_as"]) == ("ignored", 1)
    assert copy["last_error"] == "same as 'a.mp4' (video:1); biliupd retry video:2 publishes it, too"
    assert videos.retry(two, 2)
    assert videos.get(two, 2)["again"] == 1
    assert copies.note(two, 1, "10:x")[0]["id"] == 2


def test_a_copy_of_a_copy_is_one_of_the_original(two):
    copies.ignore(two, 2, State.EDITING, videos.get(two, 1))
    sync.apply(two, Changes(added=[found("c.mp4", inode=3)]))
    assert [video["id"] for video in copies.note(two, 3, "10:x")] == [1]


def test_of_two_copies_that_are_held_against_each_other_only_one_is_left_alone(two):
    """Both were known before and are looked at again in the same moment, as after a crash with several workers."""
    (second,), (first,) = copies.note(two, 1, "10:x"), copies.note(two, 2, "10:x")
    assert copies.stands(two, first)
    copies.ignore(two, 2, State.EDITING, first)
    assert not copies.stands(two, second)
    two["videos"].update(1, {"fingerprint": None})
    assert not copies.stands(two, first), "it changed meanwhile"


def test_copies_of_what_changes_before_it_was_uploaded_are_looked_at_again(two):
    copies.ignore(two, 2, State.EDITING, videos.get(two, 1))
    (row,) = sync.rows_by_id(two, [1])
    sync.apply(two, Changes(changed=[(row, found("a.mp4", size=99))]))
    copy = videos.get(two, 2)
    assert (copy["state"], copy["same_as"], copy["last_error"]) == ("recorded", None, None)


def test_a_copy_that_returns_after_its_original_went_is_looked_at_again(two):
    copies.ignore(two, 2, State.EDITING, videos.get(two, 1))
    for id in (2, 1):
        sync.apply(two, sync.gone(sync.rows_by_id(two, [id])))
    sync.apply(two, sync.compare([found("b.mp4", inode=2)], sync.rows_by_id(two, [2]), lies_there=lambda row: False))
    copy = videos.get(two, 2)
    assert (copy["state"], copy["same_as"], copy["last_error"]) == ("recorded", None, None)


def test_what_is_held_says_why_after_it_was_away_too(two):
    two["videos"].update(1, {"state": State.HELD, "last_error": "it is no video"})
    sync.apply(two, sync.gone(sync.rows_by_id(two, [1])))
    sync.apply(two, sync.compare([found("a.mp4")], sync.rows_by_id(two, [1]), lies_there=lambda row: False))
    assert (videos.get(two, 1)["state"], videos.get(two, 1)["last_error"]) == ("held", "it is no video")


def test_a_file_that_came_by_way_of_another_disk_keeps_its_row(two):
    two["videos"].update(1, {"state": State.MISSING, "was": State.READY, "title": "the feast"})
    assert copies.take_over(two, videos.get(two, 1), videos.get(two, 2))
    (video,) = two["videos"].rows
    assert (video["id"], video["path"], video["state"], video["inode"], video["title"]) == (
        1, "b.mp4", "ready", 2, "the feast",
    )  # fmt: skip


def test_a_row_that_went_on_meanwhile_is_not_taken_over(two):
    before = videos.get(two, 1)
    move(two, 1, State.RECORDED, State.EDITING)
    assert not copies.take_over(two, before, videos.get(two, 2))
    assert two["videos"].count == 2
