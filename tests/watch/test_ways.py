"""Every way a file gets into a directory, done for real under one watcher; then each is asked what was told of it.

A slow copy over SMB or NFS looks like `in_pieces` and `preallocated` to the machine that holds the disk; to the machine
that mounts it, like the polled roots of test_watcher.py.
"""

import ctypes
import mmap
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from listener import Catalog
from support import wait_until

Way = Callable[[Path, Path], "list[str]"]
WAYS: dict[str, Way] = {}
SIZE = 70_000
CONTENT = bytes(range(256)) * (SIZE // 256)


def way(function: Way) -> Way:
    """`function(here, outside)` makes files in an empty watched directory and names those that must be told, once."""
    WAYS[function.__name__.strip("_")] = function
    return function


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def rsync(*arguments: str | Path) -> None:
    subprocess.run(["rsync", *map(str, arguments)], check=True)


@way
def create(here, outside):
    put(here / "a.mp4")
    return ["a.mp4"]


@way
def copied_with_its_old_times(here, outside):
    source = put(outside / "a.mp4")
    os.utime(source, (986000000, 986000000))
    shutil.copy2(source, here / "a.mp4")
    return ["a.mp4"]


@way
def in_pieces(here, outside):
    with (here / "a.mp4").open("wb", buffering=0) as file:
        for start in range(0, len(CONTENT), 10_000):
            file.write(CONTENT[start:start + 10_000])
            threading.Event().wait(0.05)
    return ["a.mp4"]


@way
def opened_and_closed_again_and_again(here, outside):
    for _ in range(20):
        with (here / "a.mp4").open("ab") as file:
            file.write(b"x" * 100)
    return ["a.mp4"]


@way
def preallocated(here, outside):
    with (here / "a.mp4").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, len(CONTENT))
        file.write(CONTENT)
    return ["a.mp4"]


@way
def truncated_and_rewritten(here, outside):
    put(here / "a.mp4", b"old")
    put(here / "a.mp4")
    return ["a.mp4"]


@way
def mapped(here, outside):
    put(here / "a.mp4", bytes(len(CONTENT)))
    with (here / "a.mp4").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:] = CONTENT
    return ["a.mp4"]


@way
def sparse(here, outside):
    with (here / "a.mp4").open("wb") as file:
        file.truncate(8 << 30)
    return ["a.mp4"]


@way
def hard_linked(here, outside):
    os.link(put(outside / "a.mp4"), here / "a.mp4")
    return ["a.mp4"]


@way
def hard_linked_inside(here, outside):
    os.link(put(here / "a.mp4"), here / "b.mp4")
    return ["a.mp4", "b.mp4"]


@way
def without_a_name_then_linked(here, outside):
    file = os.open(here, os.O_TMPFILE | os.O_WRONLY)
    os.write(file, CONTENT)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.linkat(-100, f"/proc/self/fd/{file}".encode(), -100, os.fsencode(here / "a.mp4"), 0x400)
    os.close(file)
    assert done == 0
    return ["a.mp4"]


@way
def moved_in(here, outside):
    put(outside / "a.mp4").rename(here / "a.mp4")
    return ["a.mp4"]


@way
def moved_in_over_another(here, outside):
    put(here / "a.mp4", b"old")
    put(outside / "a.mp4").rename(here / "a.mp4")
    return ["a.mp4"]


@way
def moved_inside(here, outside):
    put(here / "a.mp4").rename(here / "b.mp4")
    return ["b.mp4"]


@way
def moved_inside_to_another_directory(here, outside):
    (here / "d").mkdir()
    put(here / "a.mp4").rename(here / "d" / "a.mp4")
    return ["d/a.mp4"]


@way
def moved_out(here, outside):
    put(here / "a.mp4").rename(outside / "a.mp4")
    return []


@way
def deleted(here, outside):
    put(here / "a.mp4").unlink()
    return []


@way
def directory_moved_in_full(here, outside):
    for n in range(30):
        put(outside / "d" / f"{n % 3}" / f"{n}.mp4")
    (outside / "d").rename(here / "d")
    return [f"d/{n % 3}/{n}.mp4" for n in range(30)]


@way
def directories_made_filled_and_renamed(here, outside):
    for n in range(100):
        put(here / "tmp" / "a.mp4")
        (here / "tmp").rename(here / f"{n}")
    return [f"{n}/a.mp4" for n in range(100)]


@way
def nested_directories_filled_at_once(here, outside):
    for n in range(50):
        put(here / f"{n}" / "a" / "b" / "c.mp4")
    return [f"{n}/a/b/c.mp4" for n in range(50)]


@way
def directory_deleted_and_made_again(here, outside):
    for _ in range(20):
        put(here / "d" / "a.mp4")
        shutil.rmtree(here / "d")
    put(here / "d" / "a.mp4")
    return ["d/a.mp4"]


@way
def directory_moved_out(here, outside):
    put(here / "d" / "a.mp4")
    (here / "d").rename(outside / "d")
    put(outside / "d" / "phantom.mp4")
    return []


@way
def rsync_as_it_is(here, outside):
    for n in range(20):
        put(outside / f"{n % 2}" / f"{n}.mp4")
    rsync("-a", f"{outside}/", here)
    return [f"{n % 2}/{n}.mp4" for n in range(20)]


@way
def rsync_in_place(here, outside):
    put(outside / "a.mp4")
    rsync("-a", "--inplace", f"{outside}/", here)
    return ["a.mp4"]


@way
def rsync_partial(here, outside):
    put(outside / "a.mp4")
    (here / ".rsync-partial").mkdir()
    put(here / ".rsync-partial" / "a.mp4", CONTENT[:5000])
    rsync("-a", "--partial", "--partial-dir=.rsync-partial", f"{outside}/", here)
    return ["a.mp4"]


@way
def rsync_delay_updates(here, outside):
    for n in range(5):
        put(outside / f"{n}.mp4")
    rsync("-a", "--delay-updates", f"{outside}/", here)
    return [f"{n}.mp4" for n in range(5)]


def under_a_temporary_name(temporary: str) -> Way:
    def function(here, outside):
        put(here / temporary).rename(here / "a.mp4")
        return ["a.mp4"]

    return function


WAYS |= {f"under_the_name_{name}_first": under_a_temporary_name(name) for name in (
    ".syncthing.a.mp4.tmp", "~syncthing~a.mp4.tmp", "a.mp4.crdownload", "a.mp4.part", "a.mp4.partial", "a.mp4.aria2",
    ".a.mp4.AbCdEf", "a.mp4.filepart", "~$a.mp4", "a.mp4.!qB")}


@way
def nobody_wants(here, outside):
    for name in (".DS_Store", "._a.mp4", "Thumbs.db", "@eaDir/a.mp4", ".stversions/a.mp4", "$RECYCLE.BIN/a.mp4"):
        put(here / name)
    return []


@way
def time_in_the_future(here, outside):
    soon = time.time() + 10 * 365 * 86400
    os.utime(put(here / "a.mp4"), (soon, soon))
    return ["a.mp4"]


@way
def time_of_1970(here, outside):
    os.utime(put(here / "a.mp4"), (0, 0))
    return ["a.mp4"]


@way
def not_regular_but_called_so(here, outside):
    """None of these is told, nothing hangs, and the segments beside them are not hidden."""
    os.mkfifo(here / "fifo.mp4")
    os.mkfifo(here / "x.m3u8")
    os.mkfifo(here / "x.ts")
    (here / "d.mp4").mkdir()
    (here / "d.m3u8").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"/proc/self/fd/{os.open(here, os.O_RDONLY)}/s.mp4")
    listener.close()
    if os.geteuid() == 0:
        os.mknod(here / "null.mp4", 0o020666, os.makedev(1, 3))
    put(here / "d.mp4" / "a.mp4")
    put(here / "1.ts")
    return ["d.mp4/a.mp4", "1.ts"]


@way
def linked_to(here, outside):
    """A link to a file in the root is that file; nothing outside it, and no loop, is followed."""
    put(here / "a.mp4")
    put(outside / "secret.mp4")
    (here / "inside.mp4").symlink_to(here / "a.mp4")
    (here / "outside.mp4").symlink_to(outside / "secret.mp4")
    (here / "outside").symlink_to(outside)
    (here / "loop").symlink_to(here)
    (here / "nothing.mp4").symlink_to(here / "none")
    (here / "itself.mp4").symlink_to(here / "itself.mp4")
    return ["a.mp4", "inside.mp4"]


@way
def odd_names(here, outside):
    names = ["a\nb.mp4", "tab\t.mp4", "'\".mp4", "{x}%s.mp4", "-x.mp4", "\U0001f600.mp4", "\u00e9.mp4", "e\u0301.mp4",
             "\u202egpj.mp4", os.fsdecode(b"\xff\xfe.mp4"), "x" * 251 + ".mp4"]
    for name in names:
        put(here / name)
    return names


class Told(NamedTuple):
    expected: dict[str, list[str]]
    told: dict[str, list[str]]  # of each way, below its directory
    sizes: dict[str, int]
    rescans: dict[str, int]


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Told:
    """All ways at once under one watcher, left alone until nothing has been told for some quiet times."""
    base = tmp_path_factory.mktemp("ways")
    root, catalog, expected = base / "root", Catalog(), {}
    catalog.quiet_seconds = 0.6  # longer than any tool pauses between two steps
    for name in WAYS:
        (root / name).mkdir(parents=True)
        (base / "outside" / name).mkdir(parents=True)
    watcher = catalog.watcher(root)
    watcher.start()
    try:
        wait_until(lambda: watcher.status().rescans)
        for name, function in WAYS.items():
            expected[name] = function(root / name, base / "outside" / name)
        paths = [root / name / below for name, found in expected.items() for below in found]
        with suppress(AssertionError):  # the tests say which is missing
            wait_until(lambda: catalog.has(*paths) and not watcher.status().settling)
        rescans = watcher.status().rescans
    finally:
        watcher.close(5)
    told: dict[str, list[str]] = {name: [] for name in WAYS}
    sizes = {}
    for item in catalog.settled:
        for entry in item.entries:
            name, _, below = entry.path[len(str(root)) + 1:].partition("/")
            told[name].append(below)
            sizes[f"{name}/{below}"] = entry.size_bytes
    return Told(expected, told, sizes, rescans)


@pytest.mark.parametrize("name", WAYS)
def test_it_is_told_once_and_nothing_else_is(told, name):
    assert sorted(told.told[name]) == sorted(told.expected[name])


@pytest.mark.parametrize("name", ["in_pieces", "opened_and_closed_again_and_again", "preallocated", "mapped",
                                  "truncated_and_rewritten", "rsync_in_place", "moved_in_over_another"])
def test_it_is_told_whole(told, name):
    size = 2000 if name.startswith("opened") else len(CONTENT)
    assert told.sizes[f"{name}/a.mp4"] == size


def test_events_told_of_all_of_it(told):
    assert set(told.rescans) <= {"start", "overflow", "replaced", "unwatched"}, "no timer was needed"
