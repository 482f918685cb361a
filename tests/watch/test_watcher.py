"""Real directories, real inotify: whatever is done to them, everything that settles is told."""

import os
import threading
import time

import pytest
from support import wait_until

from biliupd.config import WatchConfig


def test_a_written_file_settles_once_after_its_quiet_time(watching, catalog, root):
    watching(root)
    began_at = time.monotonic()
    (root / "a.mp4").write_bytes(b"abc")
    wait_until(lambda: catalog.settled)
    assert time.monotonic() - began_at >= catalog.quiet_seconds
    (item,) = catalog.settled
    assert (item.path, item.growing, item.entries[0].size_bytes) == (str(root / "a.mp4"), False, 3)


def test_files_that_were_there_before_are_told_at_once(watching, catalog, root):
    (root / "d").mkdir()
    for n in range(1200):
        (root / "d" / f"{n}.mp4").write_bytes(b"x")
    old = time.time() - 3600
    watching(root, quiet_seconds=0.05)
    wait_until(lambda: len(catalog.known) == 1200)
    os.utime(root / "d" / "7.mp4", (old, old))
    assert catalog.listings[0][1:] == (1200, True)


def test_a_directory_moved_in_brings_all_its_files_and_stays_watched(watching, catalog, root, tmp_path):
    tree = tmp_path / "tree"
    files = [tree / "x" / f"{n}.mp4" for n in range(20)] + [tree / "y.mp4"]
    (tree / "x").mkdir(parents=True)
    for file in files:
        file.write_bytes(b"x")
    watching(root)
    tree.rename(root / "tree")
    inside = [root / file.relative_to(tmp_path) for file in files]
    wait_until(lambda: catalog.has(*inside))
    (root / "tree" / "x" / "later.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "tree" / "x" / "later.mp4"))


def test_a_file_that_grows_is_not_settled_until_it_is_whole(watching, catalog, root):
    watching(root, limit_seconds=0.8)
    path = root / "grows.mp4"
    stop = threading.Event()
    with path.open("wb") as file:
        began_at = time.monotonic()
        while time.monotonic() - began_at < 2:
            file.write(b"x" * 100)
            file.flush()
            stop.wait(0.1)
        with catalog.lock:
            assert catalog.growing
            assert all(item.growing for item in catalog.settled)
    wait_until(lambda: catalog.has(path))
    assert catalog.settled[-1].entries[0].size_bytes == path.stat().st_size


def test_a_preallocated_file_is_not_settled_while_its_writer_pauses(watching, catalog, root):
    watching(root)
    with (root / "a.mp4").open("wb") as file:
        file.truncate(1 << 20)
        with pytest.raises(AssertionError):
            wait_until(lambda: catalog.settled, seconds=4 * catalog.quiet_seconds)
        file.write(b"x" * (1 << 20))
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert len(catalog.settled) == 1


def test_a_playlist_and_its_segments_settle_together(watching, catalog, root):
    watching(root)
    (root / "show").mkdir()
    for n in range(5):
        (root / "show" / f"{n}.ts").write_bytes(b"x")
        (root / "show" / "index.m3u8").write_text("#EXTM3U")
    wait_until(lambda: catalog.settled)
    (item,) = catalog.settled
    assert item.path == str(root / "show")
    assert [os.path.basename(entry.path) for entry in item.entries] == [*(f"{n}.ts" for n in range(5)), "index.m3u8"]


def test_deleted_segments_are_told_one_by_one_and_their_directory_stays(watching, catalog, root):
    (root / "show").mkdir()
    (root / "show" / "0.ts").write_bytes(b"x")
    (root / "show" / "index.m3u8").write_text("#EXTM3U")
    (root / "show" / "whole.mp4").write_bytes(b"x")
    watching(root)
    wait_until(lambda: catalog.has(root / "show" / "0.ts", root / "show" / "whole.mp4"))
    (root / "show" / "0.ts").unlink()
    (root / "show" / "index.m3u8").unlink()
    wait_until(lambda: len(catalog.gone) == 2)
    assert sorted(catalog.gone) == [str(root / "show" / "0.ts"), str(root / "show" / "index.m3u8")]
    assert catalog.has(root / "show" / "whole.mp4")


def test_a_directory_moved_away_is_told_as_gone_as_a_whole(watching, catalog, root, tmp_path):
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "a.mp4").write_bytes(b"x")
    watching(root)
    wait_until(lambda: catalog.has(root / "d" / "e" / "a.mp4"))
    (root / "d").rename(tmp_path / "away")
    (tmp_path / "away" / "e" / "phantom.mp4").write_bytes(b"x")
    wait_until(lambda: str(root / "d") in catalog.gone)
    assert catalog.known == {}


def test_a_deleted_file_is_told_as_gone(watching, catalog, root):
    (root / "a.mp4").write_bytes(b"x")
    watching(root)
    wait_until(lambda: catalog.has(root / "a.mp4"))
    (root / "a.mp4").unlink()
    wait_until(lambda: catalog.gone == [str(root / "a.mp4")])


def test_a_failing_catalog_loses_nothing(watching, catalog, root):
    watcher = watching(root)
    catalog.failures = 2
    (root / "a.mp4").write_bytes(b"x")
    (root / "b.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "a.mp4", root / "b.mp4"))
    assert catalog.failed == 2
    assert watcher.status().held_back == 0


def test_a_scan_the_catalog_did_not_take_is_repeated(watching, catalog, root):
    (root / "a.mp4").write_bytes(b"x")
    catalog.failures = 2
    watching(root)
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert catalog.failed == 2


def test_suspended_it_sees_nothing_and_resumed_it_finds_all(watching, catalog, root):
    watcher = watching(root)
    watcher.suspend()
    wait_until(lambda: not watcher.status().watching)
    (root / "a.mp4").write_bytes(b"x")
    with pytest.raises(AssertionError):
        wait_until(lambda: catalog.settled, seconds=3 * catalog.quiet_seconds)
    assert watcher.status().suspended
    assert watcher.is_alive()
    watcher.resume()
    wait_until(lambda: catalog.has(root / "a.mp4"))
    (root / "b.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "b.mp4"))
    assert watcher.status().watching


def test_a_polled_root_sees_changes_too_and_a_scan_does_not_begin_the_quiet_time_anew(watching, catalog, root):
    watcher = watching(root, observer="polling", polling_seconds=0.2, network_quiet_seconds=0.5)
    (root / "d").mkdir()
    (root / "d" / "a.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "d" / "a.mp4"))
    (root / "d" / "a.mp4").write_bytes(b"xyz")
    wait_until(lambda: len(catalog.settled) == 2)
    assert catalog.settled[-1].entries[0].size_bytes == 3
    (root / "d" / "a.mp4").unlink()
    wait_until(lambda: str(root / "d" / "a.mp4") in catalog.unseen)
    assert watcher.status().observed == {str(root): "polled: it is set so"}
    assert watcher.status().watching


def test_a_symlinked_root_is_watched_and_keeps_its_own_name(watching, catalog, root, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(root)
    (root / "before.mp4").write_bytes(b"x")
    watching(link)
    (root / "d").mkdir()
    (root / "d" / "after.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(link / "before.mp4", link / "d" / "after.mp4"))


def test_roots_can_be_added_and_dropped_while_it_runs(watching, catalog, root, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.mp4").write_bytes(b"x")
    watcher = watching(root)
    watcher.apply(WatchConfig(quiet_seconds=catalog.quiet_seconds), [other])
    wait_until(lambda: catalog.has(other / "a.mp4"))
    assert list(watcher.status().roots) == [str(other)]
    (root / "b.mp4").write_bytes(b"x")
    (other / "b.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(other / "b.mp4"))
    assert not catalog.has(root / "b.mp4")


def test_nothing_is_told_any_more_of_a_missing_root_that_is_dropped(watching, catalog, root, tmp_path):
    watcher = watching(root, tmp_path / "missing", scanned=False)
    wait_until(lambda: catalog.roots and catalog.roots[-1][1].startswith("offline: "))
    watcher.apply(WatchConfig(quiet_seconds=catalog.quiet_seconds), [root])
    wait_until(lambda: catalog.roots[-1] == ("missing", ""))


def test_another_kind_of_observer_and_other_names_apply_while_it_runs(watching, catalog, root):
    watcher = watching(root)
    polling = {"observer": "polling", "polling_seconds": 0.2, "network_quiet_seconds": 0.3, "ignore": ["*.bak"]}
    watcher.apply(WatchConfig(quiet_seconds=catalog.quiet_seconds, **polling), [root])
    wait_until(lambda: watcher.status().observed[str(root)].startswith("polled"))
    (root / "a.bak").write_bytes(b"x")
    (root / "a.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert not catalog.has(root / "a.bak")


def test_a_rescan_can_be_asked_for(watching, catalog, root):
    watcher = watching(root)
    watcher.rescan()
    wait_until(lambda: watcher.status().rescans.get("asked") == 1)
    assert watcher.status().last_scan_entries == 0


def test_the_timer_scans_again(watching, catalog, root):
    watcher = watching(root, rescan_seconds=0.2)
    wait_until(lambda: watcher.status().rescans.get("timer", 0) >= 2)


def test_a_file_moved_out_does_not_hold_up_the_others(watching, catalog, root, tmp_path):
    watching(root, quiet_seconds=0.01)
    took = []
    for n in range(5):
        (root / "out.mp4").write_bytes(b"x")
        wait_until(lambda: catalog.has(root / "out.mp4"))
        (root / "out.mp4").rename(tmp_path / "out.mp4")
        began_at = time.monotonic()
        (root / f"{n}.mp4").write_bytes(b"x")
        wait_until(lambda n=n: catalog.has(root / f"{n}.mp4"))
        took.append(time.monotonic() - began_at)
        wait_until(lambda: not catalog.has(root / "out.mp4"))
    assert min(took) < 0.4
