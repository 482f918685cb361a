import os

import pytest

from biliupd.catalog import library, sync, videos
from biliupd.catalog.states import State, move
from biliupd.catalog.sync import Changes, Found, Row, compare, gone


def found(path, inode=1, size=10, mtime=5, growing=False):
    return Found(f"/r/{path}", "/r", "file", size, mtime, inode, 1, growing)


def row(path, inode=1, size=10, mtime=5, state=State.RECORDED, was=None, id=1, removed=False):
    return Row(id, f"/r/{path}", size, mtime, inode, 1, state, was, removed)


CASES = [
    ("nothing new", [found("a")], [row("a")], "", "", ""),
    ("new", [found("a")], [], "a", "", ""),
    ("grown", [found("a", size=11)], [row("a")], "", "a", ""),
    ("rewritten in place", [found("a", mtime=6)], [row("a", state=State.READY)], "", "a", ""),
    ("no longer growing", [found("a")], [row("a", state=State.RECORDING)], "", "a", ""),
    ("on another mount", [found("a", inode=7)], [row("a", state=State.READY)], "", "a", ""),
    ("still growing", [found("a", growing=True)], [row("a", state=State.RECORDING)], "", "", ""),
    ("back again", [found("a")], [row("a", state=State.MISSING)], "", "a", ""),
    ("back again after it was published", [found("a")], [row("a", state=State.PUBLISHED, removed=True)], "", "a", ""),
    ("renamed", [found("b")], [row("a")], "", "", "b"),
    ("renamed after it was published", [found("b")], [row("a", state=State.PUBLISHED)], "", "", "b"),
    ("renamed, and its old name was missed first", [found("b")], [row("a", state=State.MISSING)], "", "", "b"),
    ("renamed while it grew", [found("b", size=20)], [row("a", state=State.RECORDING)], "", "", "b"),
    ("swapped", [found("a", 2, 20), found("b")], [row("a"), row("b", inode=2, size=20, id=2)], "", "", "ab"),
    ("another file with a used inode number", [found("b", size=99)], [row("a")], "b", "", ""),
]


@pytest.mark.parametrize(("case", "things", "known", "added", "changed", "moved"), CASES, ids=lambda c: str(c))
def test_what_was_found_is_held_against_the_rows(case, things, known, added, changed, moved):
    there = {(thing.file_path, thing.identity) for thing in things}
    changes = compare(things, known, lies_there=lambda row: (row.file_path, row.identity) in there)
    assert [t.file_path for t in changes.added] == [f"/r/{name}" for name in added]
    assert [t.file_path for _, t in changes.changed] == [f"/r/{name}" for name in changed]
    assert [t.file_path for _, t in changes.moved] == [f"/r/{name}" for name in moved]


def test_what_an_owner_works_on_is_not_gone_and_what_is_published_is_so_once():
    known = [row("a"), row("b", state=State.UPLOADING), row("c", state=State.PUBLISHED), row("d", state=State.MISSING),
             row("e", state=State.PUBLISHED, removed=True)]  # fmt: skip
    assert [lost.file_path for lost in gone(known).gone] == ["/r/a", "/r/c"]


def test_a_hard_link_is_a_file_of_its_own_while_the_first_name_exists():
    changes = compare([found("a"), found("b")], [row("a")], lies_there=lambda row: True)
    assert [t.file_path for t in changes.added] == ["/r/b"]
    assert not changes.moved


def full(catalog, *things, content=lambda path: ""):
    """A whole root is found so; whether anything was written."""
    paths = {thing.file_path: thing.identity for thing in things}
    known = sync.rows_near(catalog.db, things)
    changes = compare(things, known, lies_there=lambda row: paths.get(row.file_path) == row.identity)
    sync.apply(catalog.db, changes, content)
    lost = gone(known for known in sync.rows_below(catalog.db, "/r") if known.file_path not in paths)
    sync.apply(catalog.db, lost)
    return bool(changes or lost)


def states(catalog):
    return dict(catalog.db.execute("select path, state from videos order by path").fetchall())


def test_a_second_full_sync_finds_nothing_to_write(catalog):
    things = [found(f"s/{n}.mp4", inode=n) for n in range(1200)]
    full(catalog, *things)
    assert not full(catalog, *things)
    assert catalog.db["videos"].count == 1200


def test_a_renamed_file_keeps_its_row_and_its_bvid(catalog):
    full(catalog, found("a.mp4"))
    catalog.db["videos"].update(1, {"state": State.PUBLISHED, "bvid": "BV1"})
    full(catalog, found("sub/b.mp4"))
    (video,) = catalog.db["videos"].rows
    assert (video["id"], video["path"], video["parent_path"], video["bvid"], video["state"]) == (
        1, "sub/b.mp4", "sub", "BV1", "published",
    )  # fmt: skip


def test_a_renamed_file_leaves_its_sidecar_behind_and_what_it_waited_for(catalog):
    full(catalog, found("a.mp4"))
    waits = {"waits_for": "not published: upload is off for this drop folder", "retry_at": "9999"}
    catalog.db["videos"].update(1, {"sidecar": "1:2:3", **waits})
    full(catalog, found("b.mp4"))
    row = videos.get(catalog.db, 1)
    assert (row["sidecar"], row["waits_for"], row["retry_at"]) == ("?", None, None)


def test_a_file_that_goes_and_returns_takes_up_where_it_was(catalog):
    full(catalog, found("a.mp4"))
    move(catalog.db, 1, State.RECORDED, State.EDITING)
    move(catalog.db, 1, State.EDITING, State.READY)
    full(catalog)
    assert states(catalog) == {"a.mp4": "missing"}
    full(catalog, found("a.mp4"))
    assert states(catalog) == {"a.mp4": "ready"}


def test_new_content_under_a_name_starts_over(catalog):
    full(catalog, found("a.mp4"))
    catalog.db["videos"].update(1, {"state": State.HELD, "attempts": 8, "fingerprint": "10:x"})
    full(catalog, found("a.mp4", size=20))
    video = videos.get(catalog.db, 1)
    assert (video["state"], video["attempts"], video["fingerprint"]) == ("recorded", 0, None)


def test_another_file_under_a_name_has_a_row_of_its_own_and_the_former_keeps_its_past(catalog):
    full(catalog, found("a.mp4"))
    catalog.db["videos"].update(1, {"state": State.READY})
    full(catalog, found("a.mp4", inode=2, size=20))
    assert videos.get(catalog.db, 1)["file_path"] == "/r/a former-1.mp4"
    full(catalog, found("a.mp4", inode=2, size=20), found("b.mp4"))
    assert [(v["id"], v["path"], v["state"]) for v in catalog.db["videos"].rows] == [
        (1, "b.mp4", "ready"), (2, "a.mp4", "recorded"),
    ]  # fmt: skip


def test_other_inodes_after_a_mount_change_nothing_but_the_inodes(catalog):
    full(catalog, found("a.mp4"), found("b.mp4", inode=2))
    for id, state in ((1, State.READY), (2, State.PUBLISHED)):
        catalog.db["videos"].update(id, {"state": state})
    full(catalog, found("a.mp4", inode=2), found("b.mp4", inode=5))
    assert [(v["id"], v["path"], v["state"], v["inode"]) for v in catalog.db["videos"].rows] == [
        (1, "a.mp4", "ready", 2), (2, "b.mp4", "published", 5),
    ]  # fmt: skip


def published(catalog, name="a.mp4"):
    full(catalog, found(name))
    catalog.db["videos"].update(1, {"state": State.PUBLISHED, "bvid": "BV1", "fingerprint": "10:x"})


@pytest.mark.parametrize("size", [10, 20])
def test_what_changed_after_it_was_published_is_a_new_version_for_a_person_to_decide(catalog, size):
    published(catalog)
    full(catalog, found("a.mp4", size=size, mtime=6), content=lambda path: f"{size}:y")
    old, new = videos.get(catalog.db, 1), videos.get(catalog.db, 2)
    assert (old["state"], old["bvid"], old["file_path"]) == ("published", "BV1", "/r/a BV1-1.mp4")
    assert (new["state"], new["version_of"], new["file_path"]) == ("held", 1, "/r/a.mp4")
    assert "changed after it was uploaded as BV1; biliupd retry video:2" in new["last_error"]
    assert not full(catalog, found("a.mp4", size=size, mtime=6))
    for again in (found("a.mp4", size=size, mtime=7), found("a.mp4", size=30, mtime=8, inode=9)):
        full(catalog, again, content=lambda path: "30:z")
        assert (videos.get(catalog.db, 2)["state"], videos.get(catalog.db, 2)["mtime_ns"]) == ("held", again.mtime_ns)
    assert catalog.db["videos"].count == 2


def test_what_was_only_touched_after_it_was_published_is_no_new_version(catalog):
    published(catalog)
    full(catalog, found("a.mp4", mtime=6, inode=9), content=lambda path: "10:x")
    (video,) = catalog.db["videos"].rows
    assert (video["state"], video["mtime_ns"], video["inode"]) == ("published", 6, 9)


@pytest.mark.parametrize("file", [{"inode": 2}, {"mtime": 6}, {"size": 20}], ids=str)
def test_another_file_under_the_name_of_one_that_was_published_and_deleted_is_a_video_of_its_own(catalog, file):
    published(catalog)
    full(catalog)
    assert videos.get(catalog.db, 1)["removed_at"]
    full(catalog, found("a.mp4", **file), content=lambda path: "10:x")
    assert [(v["state"], v["version_of"]) for v in catalog.db["videos"].rows] == [
        ("published", None), ("recorded", None),
    ]  # fmt: skip


def test_a_published_file_that_returns_is_there_again(catalog):
    published(catalog)
    full(catalog)
    full(catalog, found("a.mp4"))
    assert videos.get(catalog.db, 1)["removed_at"] is None


def test_rows_follow_files_that_swap_their_names_or_replace_each_other(catalog):
    full(catalog, found("a.mp4"), found("b.mp4", 2, 20), found("c.mp4", 3, 30))
    for id, state in ((1, State.PUBLISHED), (2, State.PUBLISHED), (3, State.READY)):
        catalog.db["videos"].update(id, {"state": state, "bvid": f"BV{id}"})
    full(catalog, found("b.mp4"), found("a.mp4", 2, 20), found("c.mp4", 3, 30))
    assert [(v["id"], v["path"], v["removed_at"]) for v in catalog.db.query("select * from videos where id < 3")] == [
        (1, "b.mp4", None), (2, "a.mp4", None),
    ]  # fmt: skip
    full(catalog, found("c.mp4"), found("a.mp4", 2, 20))
    one, three = videos.get(catalog.db, 1), videos.get(catalog.db, 3)
    assert (one["path"], one["state"], three["state"]) == ("c.mp4", "published", "missing")
    assert three["file_path"] == "/r/c former-3.mp4"


def test_a_copy_takes_the_place_of_an_original_that_goes_before_it_was_uploaded(catalog):
    full(catalog, found("a.mp4"), found("b.mp4", inode=2))
    move(catalog.db, 2, State.RECORDED, State.IGNORED, same_as=1)
    full(catalog, found("b.mp4", inode=2))
    assert states(catalog) == {"a.mp4": "missing", "b.mp4": "recorded"}


def test_a_dropped_file_is_called_as_it_is_after_it_was_renamed_too(catalog):
    full(catalog, found("a.mp4")._replace(title="a"))
    full(catalog, found("b.mp4")._replace(title="b"))
    assert videos.get(catalog.db, 1)["title"] == "b"


def test_a_title_that_somebody_gave_stays_when_the_file_is_renamed(catalog):
    full(catalog, found("a.mp4")._replace(title="a"))
    catalog.db["videos"].update(1, {"title": "the feast"})
    full(catalog, found("b.mp4")._replace(title="b"))
    assert videos.get(catalog.db, 1)["title"] == "the feast"


NAMES = [b"\xff\xfe.mp4", b"caf\xe9.mp4", "直播".encode("gb18030") + b".mp4", "直播.mp4".encode()]


@pytest.mark.parametrize("raw", NAMES, ids=repr)
def test_a_name_is_kept_byte_by_byte_and_shown_as_text(catalog, raw):
    name = f"d{os.fsdecode(raw)}/{os.fsdecode(raw)}"
    full(catalog, found(name)._replace(title=os.fsdecode(raw)))
    (known,) = sync.rows_below(catalog.db, f"/r/d{os.fsdecode(raw)}")
    assert os.fsencode(known.file_path) == b"/r/d" + raw + b"/" + raw
    assert not full(catalog, found(name))
    title = videos.get(catalog.db, 1)["title"]
    assert title.encode()
    assert title == "直播.mp4" or b"\xd6" not in raw
    full(catalog, found("plain.mp4"))
    assert states(catalog) == {"plain.mp4": "recorded"}


def test_an_interrupted_write_can_be_repeated(catalog):
    changes = Changes(added=[found("a.mp4")])
    sync.apply(catalog.db, changes)
    sync.apply(catalog.db, changes)
    assert states(catalog) == {"a.mp4": "recorded"}


def test_the_library_is_a_tree(catalog):
    names = ["top.mp4", "ann/1/P001.flv", "ann/1/P002.flv", "ann/2/P001.flv", "bob/1/P001.flv"]
    full(catalog, *(found(name, inode=n) for n, name in enumerate(names)))
    folders, here = library.children(catalog.db, "/r")
    assert folders == [("ann", 3), ("bob", 1)]
    assert [video["path"] for video in here] == ["top.mp4"]
    folders, here = library.children(catalog.db, "/r", "ann/1")
    assert (folders, [video["path"] for video in here]) == ([], ["ann/1/P001.flv", "ann/1/P002.flv"])


def test_rows_below_a_directory_do_not_include_its_namesakes(catalog):
    full(catalog, found("ann/a.mp4", inode=1), found("ann2/a.mp4", inode=2), found("a%n/x.mp4", inode=3))
    assert [r.file_path for r in sync.rows_below(catalog.db, "/r/ann")] == ["/r/ann/a.mp4"]
    assert [r.file_path for r in sync.rows_below(catalog.db, "/r/a%n")] == ["/r/a%n/x.mp4"]
