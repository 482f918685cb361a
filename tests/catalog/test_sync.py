import pytest

from biliupd.catalog import sync, videos
from biliupd.catalog.states import State, move
from biliupd.catalog.sync import Changes, Found, Row, compare


def found(path, inode=1, size=10, mtime=5, growing=False):
    return Found(f"/r/{path}", "/r", "file", size, mtime, inode, 1, growing)


def row(path, inode=1, size=10, mtime=5, state=State.RECORDED, was=None, id=1):
    return Row(id, f"/r/{path}", size, mtime, inode, 1, state, was)


CASES = [
    ("nothing new", [found("a")], [row("a")], "", "", "", ""),
    ("new", [found("a")], [], "a", "", "", ""),
    ("grown", [found("a", size=11)], [row("a")], "", "a", "", ""),
    ("rewritten in place", [found("a", mtime=6)], [row("a", state=State.READY)], "", "a", "", ""),
    ("no longer growing", [found("a")], [row("a", state=State.RECORDING)], "", "a", "", ""),
    ("still growing", [found("a", growing=True)], [row("a", state=State.RECORDING)], "", "", "", ""),
    ("back again", [found("a")], [row("a", state=State.MISSING)], "", "a", "", ""),
    ("gone", [], [row("a")], "", "", "", "a"),
    ("gone after it was published", [], [row("a", state=State.PUBLISHED)], "", "", "", ""),
    ("gone while an owner works on it", [], [row("a", state=State.UPLOADING)], "", "", "", ""),
    ("renamed", [found("b")], [row("a")], "", "", "b", ""),
    ("renamed after it was published", [found("b")], [row("a", state=State.PUBLISHED)], "", "", "b", ""),
    ("renamed, and its old name was missed first", [found("b")], [row("a", state=State.MISSING)], "", "", "b", ""),
    ("another file with a used inode number", [found("b", size=99)], [row("a")], "b", "", "", "a"),
]


@pytest.mark.parametrize(("case", "things", "known", "added", "changed", "moved", "gone"), CASES, ids=lambda c: str(c))
def test_a_listing_is_held_against_the_rows(case, things, known, added, changed, moved, gone):
    changes = compare(things, known, exists=lambda path: path in {t.file_path for t in things}, all_listed=True)
    assert [t.file_path for t in changes.added] == [f"/r/{name}" for name in added]
    assert [t.file_path for _, t in changes.changed] == [f"/r/{name}" for name in changed]
    assert [t.file_path for _, t in changes.moved] == [f"/r/{name}" for name in moved]
    assert [r.file_path for r in changes.gone] == [f"/r/{name}" for name in gone]


def test_a_hard_link_is_a_file_of_its_own_while_the_first_name_exists():
    changes = compare([found("a"), found("b")], [row("a")], exists=lambda path: True, all_listed=True)
    assert [t.file_path for t in changes.added] == ["/r/b"]
    assert not changes.moved


def full(catalog, *things):
    changes = compare(things, sync.rows_of_root(catalog.db, "/r"), exists=lambda p: False, all_listed=True)
    sync.apply(catalog.db, changes)
    return changes


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


def test_a_file_that_goes_and_returns_takes_up_where_it_was(catalog):
    full(catalog, found("a.mp4"))
    move(catalog.db, 1, State.RECORDED, State.EDITING)
    move(catalog.db, 1, State.EDITING, State.READY)
    full(catalog)
    assert states(catalog) == {"a.mp4": "missing"}
    full(catalog, found("a.mp4"))
    assert states(catalog) == {"a.mp4": "ready"}


def test_new_content_under_a_name_starts_over_unless_it_was_uploaded(catalog):
    full(catalog, found("a.mp4"), found("b.mp4", inode=2))
    for id, state in ((1, State.HELD), (2, State.PUBLISHED)):
        catalog.db["videos"].update(id, {"state": state, "attempts": 8})
    full(catalog, found("a.mp4", size=20), found("b.mp4", inode=2, size=20))
    assert states(catalog) == {"a.mp4": "recorded", "b.mp4": "published"}
    assert videos.get(catalog.db, 1)["attempts"] == 0


def test_an_interrupted_write_can_be_repeated(catalog):
    changes = Changes(added=[found("a.mp4")])
    sync.apply(catalog.db, changes)
    sync.apply(catalog.db, changes)
    assert states(catalog) == {"a.mp4": "recorded"}


def test_the_library_is_a_tree(catalog):
    names = ["top.mp4", "ann/1/P001.flv", "ann/1/P002.flv", "ann/2/P001.flv", "bob/1/P001.flv"]
    full(catalog, *(found(name, inode=n) for n, name in enumerate(names)))
    folders, here = videos.children(catalog.db, "/r")
    assert folders == [("ann", 3), ("bob", 1)]
    assert [video["path"] for video in here] == ["top.mp4"]
    folders, here = videos.children(catalog.db, "/r", "ann/1")
    assert (folders, [video["path"] for video in here]) == ([], ["ann/1/P001.flv", "ann/1/P002.flv"])


def test_rows_below_a_directory_do_not_include_its_namesakes(catalog):
    full(catalog, found("ann/a.mp4", inode=1), found("ann2/a.mp4", inode=2), found("a%n/x.mp4", inode=3))
    assert [r.file_path for r in sync.rows_below(catalog.db, "/r/ann")] == ["/r/ann/a.mp4"]
    assert [r.file_path for r in sync.rows_below(catalog.db, "/r/a%n")] == ["/r/a%n/x.mp4"]
