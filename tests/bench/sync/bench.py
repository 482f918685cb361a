"""Sync a library of many files: the first time, and again when nothing changed, beside `find` and `sqlite3 .import`.

    .venv/bin/python tests/bench/sync/bench.py --files 100000 --rounds 3

The peer of a first sync is `find -printf` into a file and `sqlite3 .import` of it into a table with a key; that of a
restart is `find -printf` alone. The daemon's memory is that of a real one, started on the library. Only ratios of one
run mean something.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from biliupd.catalog.database import connect

HERE = Path(__file__).parent
PER_FOLDER = 100
PRINT = "%p\\t%s\\t%T@\\t%i\\n"

console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="biliupd-bench-") as name:
        base = Path(name)
        root = make(base / "library", given.files)
        rounds = [one_round(base, root, given.files) for _ in range(given.rounds)]
        memory = of_daemon(base, root)
    show(rounds, memory, given.files)


def make(root: Path, files: int) -> Path:
    """Small files as a library has them: folders of a hundred."""
    for n in range(0, files, PER_FOLDER):
        folder = root / f"streamer{n // PER_FOLDER % 50:02}" / f"2026-11-{n // PER_FOLDER:05} an evening"
        folder.mkdir(parents=True)
        for number in range(PER_FOLDER):
            (folder / f"P{number:03} 直播录像.mp4").write_bytes(b"x")
    time.sleep(1)  # older than the quiet time: a library is
    return root


def one_round(base: Path, root: Path, files: int) -> dict[str, Any]:
    data = base / "data"
    shutil.rmtree(data, ignore_errors=True)
    ours("warm up", root, base / "aside", 0, "--only-scan")
    shutil.rmtree(base / "aside")
    find = timed(f"find {root} -type f -printf '{PRINT}' > {base}/list")
    (base / "peer.db").unlink(missing_ok=True)
    make_table = "create table files (path text primary key, size integer, mtime real, inode integer)"
    imported = timed(
        f"sqlite3 {base}/peer.db 'pragma journal_mode=wal' '{make_table}' '.mode tabs' '.import {base}/list files'"
    )
    first = ours("first", root, data, files)
    again = ours("again", root, data, files, "--only-scan")
    assert first["rows"] == files, first
    assert again["written"] == 0, again
    return {"find": find, "import": imported, "first": first, "again": again}


def ours(what: str, root: Path, data: Path, files: int, *words: str) -> dict[str, Any]:
    """A child's own figures."""
    data.mkdir(exist_ok=True)
    if what == "warm up":
        subprocess.run(["find", root, "-type", "f", "-printf", PRINT], check=True, stdout=subprocess.DEVNULL)
        return {}
    argv = [sys.executable, str(HERE / "ours.py"), str(root), str(data), str(files), *words]
    found: dict[str, Any] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    return found


def timed(command: str) -> float:
    began = time.perf_counter()
    subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def of_daemon(base: Path, root: Path) -> dict[str, float]:
    """A real daemon on the synced library: when it is ready, and its memory after the first scan."""
    db = connect(base / "data" / "catalog.db")
    db.execute("update videos set state = 'ignored'")  # nothing for the workers to do: it is the sync that is measured
    db.conn.commit()
    db.conn.close()
    config = base / "config.yaml"
    config.write_text(json.dumps({
        "recordings": {"directory": str(base / "recordings"), "data_directory": str(base / "data")},
        "drop_folders": [{"directory": str(root)}], "control": {"port": 0},
        "log": {"file": str(base / "log"), "level": "DEBUG"},
    }))  # fmt: skip
    began = time.perf_counter()
    daemon = subprocess.Popen([sys.executable, "-m", "biliupd", "run", "-c", str(config)], stderr=subprocess.DEVNULL)
    while "ready: " not in (base / "log").read_text() if (base / "log").exists() else True:
        time.sleep(0.02)
    ready = time.perf_counter() - began
    time.sleep(10)  # it has scanned all by then
    text = Path(f"/proc/{daemon.pid}/status").read_text()
    daemon.send_signal(signal.SIGTERM)
    daemon.wait(60)
    lines = dict(line.split(":", 1) for line in text.splitlines())
    return {"ready": ready, **{name: int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}}


def show(rounds: list[dict[str, Any]], memory: dict[str, float], files: int) -> None:
    def median(of: Any) -> float:
        return statistics.median(of(one) for one in rounds)

    find, imported = median(lambda one: one["find"]), median(lambda one: one["import"])
    first, again = median(lambda one: one["first"]["seconds"]), median(lambda one: one["again"]["seconds"])
    table = Table(title=f"{files} files, medians of {len(rounds)} rounds, {os.cpu_count()} cores", title_justify="left")
    for column in ("", "seconds", "peer", "ratio", "aim"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("first sync / find + .import", f"{first:.2f}", f"{find + imported:.2f}",
                  f"{median(lambda one: one['first']['seconds'] / (one['find'] + one['import'])):.2f}", "≤ 2")
    table.add_row("nothing changed / find", f"{again:.2f}", f"{find:.2f}",
                  f"{median(lambda one: one['again']['seconds'] / one['find']):.2f}", "≤ 2")
    console.print(table)
    peak = median(lambda one: one["first"]["peak_bytes"]) / 2**20
    console.print(f"rows written by the second: {sum(one['again']['written'] for one in rounds)}; "
                  f"peak of the process that synced first: {peak:.0f} MiB")
    console.print(f"daemon on it: ready after {memory['ready']:.1f} s, RSS {memory['VmRSS']:.0f} MiB, "
                  f"peak {memory['VmHWM']:.0f} MiB (aim ≤ 120)")


if __name__ == "__main__":
    main()
