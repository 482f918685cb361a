"""From a closed file to its row: the watcher, the intake and a catalog, against the clock and against find.

    .venv/bin/python tests/bench/watch/bench.py

Three measurements: 10,000 files by `rsync -a` at full speed (none may be missing), how long after its quiet period a
closed file has its row (alone, and while 10,000 others are dropped), and a scan of 100,000 files in 1,000 directories
beside `find -printf`. Only ratios of one run mean something.
"""

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
sys.path[:0] = [str(ROOT)]

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from biliupd.watch import listing  # noqa: E402

LONGEST_QUEUE = 100
LATE_SECONDS = 0.05
MISSING_SECONDS = 5.0
FIND = 1.3

console = Console()


class Daemon:
    """The process that watches `root`."""

    def __init__(self, directory: Path, quiet_seconds: float) -> None:
        self.directory, self.root = directory, directory / "root"
        self.quiet_seconds = quiet_seconds
        self.root.mkdir(parents=True)
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "ours.py"), str(directory), str(quiet_seconds)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        until(lambda: self.ask()["scans"], 30)

    def ask(self, what: str = "") -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def rows(self) -> int:
        with sqlite3.connect(f"file:{self.directory}/data/catalog.db?mode=ro", uri=True) as db:
            (count,) = db.execute("select count(*) from videos").fetchone()
        return int(count)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


@contextmanager
def daemon(base: Path, quiet_seconds: float) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(dir=base) as directory:
        running = Daemon(Path(directory), quiet_seconds)
        try:
            yield running
        finally:
            running.close()


def until(condition: Callable[[], object], seconds: float) -> float:
    """Wait for it; how long that took, or `seconds` when it did not come."""
    began = time.monotonic()
    while not condition() and time.monotonic() - began < seconds:
        time.sleep(0.02)
    return time.monotonic() - began


def fill(directory: Path, folders: int, files: int, size: int) -> None:
    """So many files in so many folders."""
    content = b"x" * size
    for folder in range(folders):
        (directory / f"folder {folder:04}").mkdir(parents=True)
    for number in range(files):
        (directory / f"folder {number % folders:04}" / f"recording {number:06}.mp4").write_bytes(content)


def by_rsync(base: Path, files: int, quiet_seconds: float) -> dict[str, float]:
    """`files` of 1 kB in 100 directories, copied at full speed."""
    with tempfile.TemporaryDirectory(dir=base) as source, daemon(base, quiet_seconds) as ours:
        fill(Path(source), 100, files, 1024)
        idle = ours.ask("forget")
        began = time.monotonic()
        subprocess.run(["rsync", "-a", f"{source}/", f"{ours.root}/"], check=True)
        took = time.monotonic() - began
        ended = time.monotonic()
        until(lambda: ours.rows() >= files, MISSING_SECONDS + quiet_seconds)
        exact = time.monotonic() - ended
        missing = files - ours.rows()
        until(lambda: ours.rows() >= files, 60)
        said = ours.ask()
        return {
            "rsync took, s": took, "rows missing after 5 s and the quiet period": missing,
            "exact after, s": exact - quiet_seconds if not missing else time.monotonic() - ended - quiet_seconds,
            "longest queue": said["longest"], "rescans": said["scans"] - idle["scans"],
            "CPU, s": said["cpu_seconds"] - idle["cpu_seconds"],
            "peak RSS, MiB": said["peak_bytes"] / 2**20, "peak RSS more than idle, MiB":
            (said["peak_bytes"] - idle["peak_bytes"]) / 2**20,
        }


def lateness(base: Path, crowd: int, quiet_seconds: float) -> list[float]:
    """How long after its quiet period a row comes, for each file, in seconds."""
    with daemon(base, quiet_seconds) as ours:
        ours.ask("forget")
        if crowd:
            fill(ours.root, 100, crowd, 1024)
            until(lambda: ours.rows() >= crowd, 60)
        else:
            for number in range(40):
                (ours.root / f"{number}.mp4").write_bytes(b"x")
                time.sleep(0.05)
            until(lambda: ours.rows() >= 40, 60)
        return sorted(ours.ask()["late"])


def scanned(base: Path, files: int, folders: int, rounds: int) -> tuple[float, float]:
    """Seconds of find and of our scan, the best of some rounds in turn."""
    with tempfile.TemporaryDirectory(dir=base) as directory:
        fill(Path(directory), folders, files, 0)
        find, ours = [], []
        for _ in range(rounds):
            began = time.perf_counter()
            with open(os.devnull, "wb") as nowhere:
                subprocess.run(["find", directory, "-printf", "%p %s %T@ %i\n"], stdout=nowhere, check=True)
            find.append(time.perf_counter() - began)
            began = time.perf_counter()
            count = sum(len(entries) for _, entries in listing.scan(directory))
            ours.append(time.perf_counter() - began)
            if count != files:
                raise RuntimeError(f"the scan found {count} of {files} files")
        return min(find), min(ours)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="how many are dropped at once")
    parser.add_argument("--scan", type=int, default=100_000, help="how many are scanned")
    parser.add_argument("--quiet", type=float, default=5.0, help="the quiet period in seconds")
    parser.add_argument("--rounds", type=int, default=5, help="of the scan")
    parser.add_argument("--dir", type=Path, help="where the files go")
    options = parser.parse_args()
    aims: dict[str, bool] = {}
    if shutil.which("rsync"):
        copied = by_rsync(options.dir, options.files, options.quiet)
        table = Table(title=f"{options.files} files by rsync -a")
        for column in ("", ""):
            table.add_column(column)
        for name, figure in copied.items():
            table.add_row(name, f"{figure:.2f}".removesuffix(".00"))
        console.print(table)
        aims["no row is missing 5 s after rsync and the quiet period"] = not copied[
            "rows missing after 5 s and the quiet period"]
        aims[f"the queue is never longer than {LONGEST_QUEUE}"] = copied["longest queue"] <= LONGEST_QUEUE
    else:
        console.print("no rsync here: left out")
    table = Table(title="closed to row, less the quiet period, in milliseconds")
    for column in ("", "files", "p50", "p99", "max"):
        table.add_column(column)
    for name, crowd in (("one after the other", 0), (f"{options.files} at once", options.files)):
        late = [1000 * seconds for seconds in lateness(options.dir, crowd, options.quiet)]
        worst = statistics.quantiles(late, n=100, method="inclusive")[98]
        table.add_row(name, str(len(late)), f"{statistics.median(late):.1f}", f"{worst:.1f}", f"{late[-1]:.1f}")
        aims[f"{name}: p99 {worst:.0f} ms, wanted ≤ {1000 * LATE_SECONDS:.0f}"] = worst <= 1000 * LATE_SECONDS
    console.print(table)
    find, ours = scanned(options.dir, options.scan, max(1, options.scan // 100), options.rounds)
    console.print(f"scan of {options.scan} files: find -printf {find:.3f} s, ours {ours:.3f} s")
    aims[f"scan {ours / find:.2f}, wanted ≤ {FIND} × find"] = ours <= FIND * find
    for aim, met in aims.items():
        console.print(f"{'met   ' if met else 'MISSED'} {aim}")
    return 0 if all(aims.values()) else 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
