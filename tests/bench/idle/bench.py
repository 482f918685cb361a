"""A daemon that has nothing to do: its memory, and what looking at 200 rooms a minute costs.

    .venv/bin/python tests/bench/idle/bench.py --rooms 200 --seconds 60

All rooms are offline. The peer asks the same server for the same rooms at the same pace, with one requests.Session and
a loop: what the looks cost alone. Both are measured at the same time; only their ratio means something.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests
import yaml
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1])]

from support import wait_until  # noqa: E402

INTERVAL_SECONDS = 60.0
RSS_BYTES, CORE = 90 << 20, 0.01  #: the aims
TICKS = os.sysconf("SC_CLK_TCK")

console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--peer", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
    elif given.peer:
        ask(given.peer, given.rooms)
    else:
        measure(given.rooms, given.seconds)


class Room(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += self.path != "/asked"
        room = {"room_id": self.path.rsplit("/", 1)[-1], "live_status": "offline", "title": "later", "cover": "",
                "live_id": "", "started_at": None, "streams": [], "asked": self.asked}  # fmt: skip
        body = json.dumps(room).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing to stderr."""


def serve() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Room)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    console.print(server.server_port)
    sys.stdin.read()


def ask(url: str, rooms: int) -> None:
    session, at = requests.Session(), time.monotonic()
    while True:
        for number in range(rooms):
            at += INTERVAL_SECONDS / rooms
            time.sleep(max(0.0, at - time.monotonic()))
            session.get(f"{url}/api/rooms/room{number}", timeout=10).json()


def measure(rooms: int, seconds: float) -> None:
    table = Table("", "CPU, % of a core", "of the peer's", "RSS, MiB", "PSS with its nursery", title=f"{rooms} rooms")
    with tempfile.TemporaryDirectory() as directory:
        for name, page in (("with its page", True), ("without", False)):
            cpu, peer, rss, pss = _pair(Path(directory) / name, rooms, seconds, page)
            table.add_row(name, f"{100 * cpu:.2f}", f"{cpu / peer:.2f}", f"{rss / 2**20:.1f}", f"{pss / 2**20:.1f}")
    console.print(table)
    console.print(f"aims: {100 * CORE:g} % of a core, {RSS_BYTES >> 20} MiB")


def _pair(base: Path, rooms: int, seconds: float, page: bool) -> tuple[float, float, int, int]:
    base.mkdir()
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout
    url = f"http://127.0.0.1:{server.stdout.readline().decode().strip()}"
    settings = {
        "recordings": {"directory": "recordings", "data_directory": "data"}, "control": {"enabled": page, "port": 0},
        "live": {"check_interval": INTERVAL_SECONDS},
        "streamers": [{"name": f"room{one}", "url": f"rehearsal+{url}/rooms/room{one}"} for one in range(rooms)],
    }  # fmt: skip
    (base / "config.yaml").write_text(yaml.safe_dump(settings))
    peer = subprocess.Popen([sys.executable, __file__, "--peer", url, "--rooms", str(rooms)])
    with (base / "log").open("w") as log:
        ours = subprocess.Popen([sys.executable, "-m", "biliupd", "run", "-c", str(base / "config.yaml")],
                                stderr=log, stdin=subprocess.DEVNULL)  # fmt: skip
    try:
        wait_until(_all_asked(url, rooms), 3 * INTERVAL_SECONDS, "all rooms were looked at", every=1)
        began, own, other = time.monotonic(), cpu_seconds(ours.pid), cpu_seconds(peer.pid)
        wait_until(lambda: time.monotonic() >= began + seconds, seconds + 10, every=0.1)
        passed = time.monotonic() - began
        cpu, peers = cpu_seconds(ours.pid) - own, cpu_seconds(peer.pid) - other
        pss = sum(memory_bytes(pid, "smaps_rollup", "Pss") for pid in family(ours.pid))
        return cpu / passed, peers / passed, memory_bytes(ours.pid, "status", "VmRSS"), pss
    finally:
        for process in (ours, peer, server):
            process.terminate()
            process.wait(30)


def _all_asked(url: str, rooms: int) -> Callable[[], bool]:
    """By the daemon, which spreads its first looks, and by the peer beside it."""
    return lambda: requests.get(f"{url}/asked", timeout=10).json()["asked"] >= 2.2 * rooms


def family(pid: int) -> list[int]:
    """A process and those it started."""
    children = [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu_seconds(pid: int) -> float:
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_bytes(pid: int, file: str, name: str) -> int:
    (kib,) = re.findall(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    return int(kib) * 1024


if __name__ == "__main__":
    main()
