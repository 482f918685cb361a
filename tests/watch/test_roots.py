"""A root that goes away is offline: no file of it counts as deleted, and none is missed when it is back."""

import shutil

import pytest
from support import wait_until

from biliupd.watch.roots import Root, examine


def offline(catalog):
    return bool(catalog.roots) and catalog.roots[-1][1].startswith("offline: ")


def online(catalog):
    return bool(catalog.roots) and catalog.roots[-1][1] == ""


@pytest.fixture
def filled(root):
    for n in range(3):
        (root / "d").mkdir(exist_ok=True)
        (root / "d" / f"{n}.mp4").write_bytes(b"x")
    return [root / "d" / f"{n}.mp4" for n in range(3)]


def test_a_root_renamed_away_is_offline_and_comes_back(watching, catalog, root, filled, tmp_path):
    watching(root)
    wait_until(lambda: catalog.has(*filled))
    root.rename(tmp_path / "away")
    (tmp_path / "away" / "d" / "0.mp4").unlink()
    (tmp_path / "away" / "d" / "new.mp4").write_bytes(b"x")
    wait_until(lambda: offline(catalog))
    listings = len(catalog.listings)
    (tmp_path / "away").rename(root)
    wait_until(lambda: catalog.has(root / "d" / "new.mp4"))
    assert catalog.gone == []
    assert online(catalog)
    assert [found for _, found, _ in catalog.listings[listings:]] == [3]
    (root / "d" / "later.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "d" / "later.mp4"))


def test_an_empty_directory_in_its_place_is_no_listing_until_something_lies_in_it(watching, catalog, root, filled,
                                                                                 tmp_path):
    watcher = watching(root)
    wait_until(lambda: catalog.has(*filled))
    root.rename(tmp_path / "away")
    root.mkdir()
    wait_until(lambda: offline(catalog))
    watcher.rescan()
    assert watcher.status().roots[str(root)].startswith("offline: is empty")
    (root / "new.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "new.mp4", *filled))
    assert (catalog.gone, online(catalog)) == ([], True)
    assert 0 not in [found for _, found, _ in catalog.listings]


def test_a_root_deleted_with_all_in_it_is_offline_and_nothing_counts_as_deleted(watching, catalog, root, filled):
    watching(root)
    wait_until(lambda: catalog.has(*filled))
    shutil.rmtree(root)
    wait_until(lambda: offline(catalog))
    assert catalog.gone == []
    assert catalog.has(*filled)


def test_a_root_missing_at_the_start_is_waited_for(watching, catalog, tmp_path):
    root = tmp_path / "root"
    watcher = watching(root, scanned=False)
    wait_until(lambda: offline(catalog))
    assert watcher.status().roots == {str(root): "offline: No such file or directory"}
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.mp4").write_bytes(b"x")
    (tmp_path / "made").rename(root)
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert catalog.roots == [("root", "offline: No such file or directory"), ("root", "")]


def test_a_file_in_the_place_of_a_root_is_offline(watching, catalog, tmp_path):
    (tmp_path / "root").write_bytes(b"x")
    watching(tmp_path / "root", scanned=False)
    wait_until(lambda: offline(catalog))
    assert catalog.listings == []


def test_one_root_gone_does_not_keep_the_other_from_working(watching, catalog, root, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    watching(root, other)
    shutil.rmtree(root)
    wait_until(lambda: offline(catalog))
    (other / "a.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(other / "a.mp4"))


def test_another_link_target_is_watched_when_the_link_changes(watching, catalog, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.mp4").write_bytes(b"x")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "one")
    watching(link)
    link.unlink()
    link.symlink_to(tmp_path / "two")
    wait_until(lambda: catalog.has(link / "two.mp4"))
    (tmp_path / "two" / "later.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(link / "later.mp4"))


def test_a_root_that_is_really_inside_another_is_not_used_until_it_is_elsewhere(watching, catalog, root, tmp_path):
    (root / "inside").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(root / "inside")
    (tmp_path / "parent").symlink_to(tmp_path)
    watcher = watching(root, tmp_path / "link", tmp_path / "parent", scanned=False)
    wait_until(lambda: all(watcher.status().roots[str(tmp_path / name)] for name in ("link", "parent")))
    assert watcher.status().roots == {
        str(root): "",
        str(tmp_path / "link"): f"offline: is really {str(root / 'inside')!a}, and overlaps {str(root)!a}: "
                                "watched folders stay apart",
        str(tmp_path / "parent"): f"offline: is really {str(tmp_path)!a}, and overlaps {str(root)!a}: "
                                  "watched folders stay apart",
    }
    assert watcher.status().observed[str(tmp_path / "link")] == ""
    (root / "inside" / "a.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "inside" / "a.mp4"))
    assert catalog.subjects() == [str(root / "inside" / "a.mp4")]
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "b.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(tmp_path / "link" / "b.mp4"))


def test_a_root_replaced_by_a_link_shows_what_lies_there_and_nothing_counts_as_deleted(watching, catalog, root, filled,
                                                                                      tmp_path):
    watching(root)
    wait_until(lambda: catalog.has(*filled))
    root.rename(tmp_path / "away")
    root.symlink_to(tmp_path / "away")
    (root / "d" / "new.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "d" / "new.mp4"))
    (root / "d" / "later.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "d" / "later.mp4"))
    assert (catalog.gone, catalog.unseen) == ([], [])


def test_a_dead_observer_is_built_anew_and_all_is_scanned(watching, catalog, root):
    watcher = watching(root)
    watcher._roots[str(root)]._observing._observer.stop()
    wait_until(lambda: watcher.status().rescans.get("observer", 0) >= 1)
    (root / "a.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert watcher.is_alive()


def test_a_dead_reader_of_one_root_is_built_anew(watching, catalog, root):
    watcher = watching(root)
    (emitter,) = watcher._roots[str(root)]._observing._observer.emitters
    emitter.stop()
    wait_until(lambda: watcher.status().rescans.get("observer", 0) >= 1)
    (root / "a.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "a.mp4"))


def test_an_exception_in_the_handler_costs_a_scan_and_nothing_else(watching, catalog, root):
    watcher = watching(root)
    watcher._queued = None  # the handler now raises for each event
    (root / "a.mp4").write_bytes(b"x")
    wait_until(lambda: watcher.status().rescans.get("overflow", 0) >= 1)
    watcher._queued = set()
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert watcher.status().watching


def test_a_root_knows_what_lies_below_it(tmp_path):
    root = Root("/r/a", print, print)
    assert [root.holds(path) for path in ("/r/a", "/r/a/b", "/r/ab", "/r")] == [True, True, False, False]
    assert Root("/", print, print).holds("/x")
    assert examine(str(tmp_path)).empty
