import pytest
from test_sync import found, full

from biliupd.catalog import library, records, sync, videos
from biliupd.catalog.states import State


@pytest.fixture
def shelf(catalog):
    """Six videos: two broadcasts of ann, one of 主播, dropped files."""
    ann, host = (records.streamer_id(catalog.db, name) for name in ("ann", "某主播"))
    things = [
        ("ann/1/P001.flv", "Opening night", ann, 300, 60.0), ("ann/1/P002.flv", "Opening night 2", ann, 200, 40.0),
        ("ann/2/P001.flv", "100% chess", ann, 100, 30.0), ("host/1/P001.flv", "歌回", host, 400, 90.0),
        ("top.mp4", "a_b", None, 50, 5.0), ("gone.mp4", "gone", None, 60, 6.0),
    ]  # fmt: skip
    full(catalog, *(
        found(path, inode=n, size=size)._replace(title=title, streamer_id=streamer)
        for n, (path, title, streamer, size, _) in enumerate(things)
    ))  # fmt: skip
    for path, *_, seconds in things:
        catalog.db.execute("update videos set duration = ? where path = ?", [seconds, path])
    catalog.db.execute("update videos set state = 'missing' where path = 'gone.mp4'")
    catalog.db.execute("update videos set state = 'published', bvid = 'BV1' where path = 'ann/1/P001.flv'")
    catalog.db.conn.commit()
    return catalog.db


def titles(page):
    return [video["title"] for video in page.videos]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("opening", ["Opening night 2", "Opening night"]), ("歌", ["歌回"]), ("主播", ["歌回"]), ("0%", ["100% chess"]),
     ("a_", ["a_b"]), ("_b", ["a_b"]), ("gone", []), ("x", []), ("\\", [])],
)  # fmt: skip
def test_a_search_looks_into_titles_and_names(shelf, text, expected):
    page = library.search(shelf, text)
    assert titles(page) == expected
    assert page.total == len(expected)


@pytest.mark.parametrize(
    ("sort", "first"),
    [("recorded_at", "Opening night"), ("created_at", "Opening night"), ("title", "100% chess"), ("duration", "a_b"),
     ("file_size", "a_b")],
)  # fmt: skip
def test_a_list_is_sorted_both_ways_and_paged(shelf, sort, first):
    up = [titles(library.search(shelf, sort=sort, descending=False, limit=2, offset=n)) for n in (0, 2, 4)]
    flat = [title for page in up for title in page]
    assert flat[0] == first
    assert sorted(flat) == sorted(["Opening night", "Opening night 2", "100% chess", "歌回", "a_b"])
    assert titles(library.search(shelf, sort=sort)) == flat[::-1]


def test_a_list_may_be_of_one_streamer_one_folder_one_state(shelf):
    assert library.search(shelf, streamer="ann").total == 3
    assert {video["streamer"] for video in library.search(shelf, streamer="ann").videos} == {"ann"}
    assert library.search(shelf, root="/r").total == 5
    assert library.search(shelf, root="/other").total == 0
    assert titles(library.search(shelf, states=[State.MISSING])) == ["gone"]
    assert titles(library.search(shelf, "night", streamer="ann", states=[State.PUBLISHED])) == ["Opening night"]


def test_a_folder_is_told_in_pages_by_name_and_counts_only_what_is_there(shelf):
    added = [found(f"top/{n}.mp4", inode=50 + n)._replace(title=f"{n}") for n in (5, 0, 6, 1, 4, 2, 3)]
    sync.apply(shelf, sync.Changes(added=added))
    assert library.folders(shelf, "/r") == [("ann", 3), ("host", 1), ("top", 7)]
    shelf.execute("update videos set state = 'missing' where path = 'top/3.mp4'")
    pages = [library.directly_in(shelf, "/r", "top", limit=4, offset=offset) for offset in (0, 4, 8)]
    assert [page.total for page in pages] == [6, 6, 6]
    assert [titles(page) for page in pages] == [["0", "1", "2", "4"], ["5", "6"], []]
    assert titles(library.directly_in(shelf, "/r", "")) == ["a_b"]
    assert library.children(shelf, "/r", "top") == ([], [*pages[0].videos, *pages[1].videos])


def test_sums_are_by_streamer(shelf):
    assert [sums[:6] for sums in sorted(library.sums(shelf))] == [
        ("", 1, 0, 0, 50, 5.0), ("ann", 3, 1, 0, 600, 130.0), ("某主播", 1, 0, 0, 400, 90.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lambda db: library.search(db, "night"), "videos_titles"),
        (lambda db: library.search(db, streamer="ann"), "videos_of_streamer"),
        (lambda db: library.search(db, sort="title"), "videos_titles"),
        (lambda db: library.search(db, root="/r"), "videos_tree"),
        (lambda db: library.children(db, "/r", "ann"), "videos_tree"),
        (videos.incomplete, "videos_incomplete"),
        (lambda db: videos.described(db, "/r"), "videos_described"),
        (lambda db: videos.described_below(db, "/r/a"), "sqlite_autoindex_videos_1"),
        (videos.with_other_sidecar, "videos_to_describe"),
        (videos.with_sources, "videos_spoken_for"),
        (lambda db: sync.rows_in(db, "/r", "ann/1"), "videos_tree"),
        (lambda db: sync.spoken_for(db, ["/r/a"]), "videos_making"),
    ],
)
def test_questions_go_by_an_index(shelf, ask, index):
    asked: list[str] = []
    shelf.conn.set_trace_callback(asked.append)
    ask(shelf)
    shelf.conn.set_trace_callback(None)
    plans = [row[3] for text in asked for row in shelf.execute(f"explain query plan {text}").fetchall()]
    assert any(index in step for step in plans), plans
