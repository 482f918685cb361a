"""What needs mounts or limits of its own: run by test_namespaces.py as root of a user and mount namespace.

    unshare -Urm python namespace.py SCENARIO DIRECTORY

A scenario that fails ends with a traceback.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from listener import Catalog  # noqa: E402
from support import wait_until  # noqa: E402

from biliupd.watch import roots, watcher  # noqa: E402
from biliupd.watch.watcher import Watcher  # noqa: E402

watcher.CHECK_SECONDS, watcher.IDLE_SECONDS = 0.2, 0.1


@contextmanager
def watched(catalog: Catalog, *paths: Path, **settings: object) -> Iterator[Watcher]:
    running = catalog.watcher(*paths, **settings)
    running.start()
    try:
        yield running
    finally:
        running.close(5)
        assert not running.is_alive()


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def unmount(path: Path) -> None:
    subprocess.run(["umount", "-l", str(path)], check=True)


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def watch_limit(base: Path) -> None:
    """A limit of 50 watches: 100 directories at the start, 60 later. Raised again, all are watched."""
    limit = Path("/proc/sys/user/max_inotify_watches")
    enough = limit.read_text()
    limit.write_text("50")
    root, catalog = base / "root", Catalog()
    files = [put(root / f"{n}" / "a.mp4") for n in range(100)]
    with watched(catalog, root, polling_seconds=0.5) as running:
        wait_until(lambda: running.status().roots[str(root)])
        trouble = running.status().roots[str(root)]
        assert trouble == ("unwatched in part: the kernel gives no more inotify watches; raise it: sysctl "
                           "user.max_inotify_watches=100 (is 50)"), trouble
        assert running.status().observed[str(root)].startswith("partly: the kernel gives no more")
        files += [put(root / f"{n}" / "later.mp4") for n in range(100)]
        files += [put(root / "new" / f"{n}" / "a.mp4") for n in range(60)]
        wait_until(lambda: catalog.has(*files))
        assert len(catalog.roots) == 1, catalog.roots  # said once
        limit.write_text(enough)
        wait_until(lambda: running.status().observed[str(root)] == "native")
        assert catalog.roots[-1] == ("root", "")
        last = put(root / "new" / "7" / "last.mp4")
        wait_until(lambda: catalog.has(last))
    assert catalog.told_twice() == []


def no_instance(base: Path) -> None:
    """No inotify instance at all: everything is found by scans."""
    limit = Path("/proc/sys/user/max_inotify_instances")
    enough = limit.read_text()
    limit.write_text("0")
    root, catalog = base / "root", Catalog()
    first = put(root / "a.mp4")
    with watched(catalog, root, polling_seconds=0.3) as running:
        wait_until(lambda: catalog.has(first))
        assert "max_inotify_instances=0" in running.status().roots[str(root)]
        second = put(root / "d" / "b.mp4")
        wait_until(lambda: catalog.has(second))
        limit.write_text(enough)
        wait_until(lambda: running.status().observed[str(root)] == "native")


def unmounted(base: Path, beneath: bool = False) -> None:
    """A file system goes and comes back."""
    root, disk, catalog = base / "root", base / "disk", Catalog()
    root.mkdir()
    disk.mkdir()
    if beneath:
        put(root / "beneath.mp4")
    mount("-t", "tmpfs", "tmpfs", disk)
    mount("--bind", disk, root)
    file = put(root / "a.mp4")
    with watched(catalog, root) as running:
        wait_until(lambda: catalog.has(file))
        unmount(root)
        wait_until(lambda: running.status().roots[str(root)].startswith("offline: "))
        put(disk / "b.mp4")
        mount("--bind", disk, root)
        wait_until(lambda: catalog.has(root / "b.mp4"))
        wait_until(lambda: running.status().roots[str(root)] == "")
        later = put(root / "d" / "c.mp4")
        wait_until(lambda: catalog.has(later))
    assert (catalog.gone, catalog.unseen) == ([], [])
    assert not catalog.has(root / "beneath.mp4")


def unmounted_from_a_filled_directory(base: Path) -> None:
    """The same when something lies in the directory beneath."""
    unmounted(base, beneath=True)


def mounted_over(base: Path) -> None:
    """Another file system is mounted over a root: an empty one is no emptied root, a filled one is looked through."""
    root, catalog = base / "root", Catalog()
    file = put(root / "a.mp4")
    with watched(catalog, root) as running:
        wait_until(lambda: catalog.has(file))
        mount("-t", "tmpfs", "tmpfs", root)
        wait_until(lambda: running.status().roots[str(root)].startswith("offline: is empty"))
        other = put(root / "other.mp4")
        wait_until(lambda: catalog.has(other))
        unmount(root)
        back = put(root / "back.mp4")
        wait_until(lambda: catalog.has(file, back))
        assert running.status().roots[str(root)] == ""
        assert catalog.gone == []


def mounted_below(base: Path) -> None:
    """A file system mounted below a root later is found and watched."""
    root, catalog = base / "root", Catalog()
    (root / "disk").mkdir(parents=True)
    with watched(catalog, root, rescan_seconds=1.0, polling_seconds=1.0) as running:
        wait_until(lambda: running.status().rescans)
        mount("-t", "tmpfs", "tmpfs", root / "disk")
        file = put(root / "disk" / "d" / "a.mp4")
        wait_until(lambda: catalog.has(file))
        unmount(root / "disk")


def read_only(base: Path) -> None:
    """Nothing is written to a root, and that one may not write there does no harm."""
    root, disk, catalog = base / "root", base / "disk", Catalog()
    roots.CANARY_SECONDS, roots.DEAF_SECONDS = 0.1, 0.3
    root.mkdir()
    first = put(disk / "a.mp4")
    mount("--bind", disk, root)
    mount("-o", "remount,ro,bind", root)
    with watched(catalog, root) as running:
        wait_until(lambda: catalog.has(root / first.name))
        put(disk / "b.mp4")
        wait_until(lambda: catalog.has(root / "b.mp4"))
        assert running.status().roots[str(root)] == ""
        assert set(running.status().rescans) == {"start"}
    assert sorted(path.name for path in disk.iterdir()) == ["a.mp4", "b.mp4"]


SCENARIOS: dict[str, Callable[[Path], None]] = {
    scenario.__name__: scenario
    for scenario in (watch_limit, no_instance, unmounted, unmounted_from_a_filled_directory, mounted_over,
                     mounted_below, read_only)
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
