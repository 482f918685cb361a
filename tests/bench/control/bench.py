"""The API under load: pages of videos, a websocket's fan-out, and what other threads of the daemon lose meanwhile.

    .venv/bin/python tests/bench/control/bench.py --rows 100000 --clients 200 --seconds 4

The peer of `GET /api/videos` is a bare FastAPI route under the same uvicorn that answers a constant of the same size,
without login, catalog or headers. The thread that may lose something hashes and writes a MiB every 20 ms, as an upload
of 400 Mbit/s does, in the server's own process. Only ratios of one run mean something.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect

from biliupd.catalog import videos
from biliupd.catalog.database import connect as connect_catalog
from biliupd.catalog.database import write
from biliupd.catalog.states import State

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1] / "control"), str(HERE.parents[1])]

from stage import Stage  # noqa: E402
from support import wait_until  # noqa: E402

CONNECTIONS = 8  #: that ask without a pause
CALM = 20  #: requests a second of the calm load
CHANGES = 4  #: rows a second that change meanwhile
CHUNK = b"\x5a" * 2**20
CHUNK_SECONDS = 0.02

console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=("ours", "peer"))
    parser.add_argument("--base", type=Path)
    parser.add_argument("--size", type=int)
    given = parser.parse_args()
    if given.serve == "ours":
        serve(given.base, given.rows)
    elif given.serve == "peer":
        serve_peer(given.size)
    else:
        with tempfile.TemporaryDirectory(prefix="biliupd-bench-") as base:
            asyncio.run(measure(Path(base), given))


# -- the servers, each a process of its own


def serve(base: Path, rows: int) -> None:
    """Ours. A line of stdin with a number of seconds: what work can be done beside it in that time."""
    stage = Stage(base)
    stage.sample(40)
    fill(stage, rows)
    stage.start()
    wait_until(lambda: stage.control.port)
    say({"port": stage.control.port, "token": stage.token("viewer")})
    for line in sys.stdin:
        say({**work(base / "upload", float(line)), "rss": rss()})  # on the main thread: the server has its own
    stage.close()


def fill(stage: Stage, rows: int) -> None:
    states = list(State)
    chance = random.Random(1)
    with write(stage.catalog.db):
        stage.catalog.db.conn.executemany(
            "insert into videos (streamer_id, title, file_path, root, path, parent_path, kind, file_size, mtime_ns,"
            " inode, device, duration, width, height, video_codec, audio_codec, bitrate, state, since, bvid,"
            " thumbnail_path, created_at) values (?, ?, ?, '/r', ?, ?, 'file', ?, 0, ?, 1, 3600.5, 1920, 1080, 'h264',"
            " 'aac', 6000000, ?, '2026-01-01T00:00:00.000+00:00', 'BV1xx411c7mD', '/t.jpg',"
            " '2026-01-01T00:00:00.000+00:00')",
            ((1 + n % 7, f"【歌回】周末的夜晚 {n}", f"/r/{n // 100}/{n} 直播录像.mp4", f"{n // 100}/{n} 直播录像.mp4",
              str(n // 100), chance.randint(1, 2**32), n,
              State.PUBLISHED if n % 20 else states[chance.randint(0, 9)]) for n in range(rows)),
        )  # fmt: skip


def work(path: Path, seconds: float) -> dict[str, float]:
    """Hash and write at an even pace; how much was done, and how long its pieces took (ms)."""
    took, done, began = [], 0, time.monotonic()
    with open(path, "wb", buffering=0) as file:
        while (at := time.monotonic()) - began < seconds:
            hashlib.md5(CHUNK, usedforsecurity=False).digest()
            file.write(CHUNK)
            done += 1
            if done % 64 == 0:
                file.seek(0)
            took.append((time.monotonic() - at) * 1000)
            time.sleep(max(began + done * CHUNK_SECONDS - time.monotonic(), 0))
    took.sort()
    return {"rate": done * len(CHUNK) / (time.monotonic() - began), "p50": took[len(took) // 2],
            "p99": took[int(len(took) * 0.99)]}  # fmt: skip


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def serve_peer(size: int) -> None:
    app, body = FastAPI(), b'"' + b"x" * (size - 2) + b'"'

    @app.get("/api/videos")
    def constant() -> Response:
        return Response(body, media_type="application/json")

    server = uvicorn.Server(uvicorn.Config(app, port=0, access_log=False, log_level="critical", http="h11"))
    threading.Thread(target=server.run, daemon=True).start()
    wait_until(lambda: server.started)
    say({"port": server.servers[0].sockets[0].getsockname()[1]})
    sys.stdin.read()


def say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Child:
    """One of them, as seen from here."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, *words], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
        self.told = self.hear()

    def hear(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def ask(self, line: str) -> dict[str, Any]:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.hear()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(20)


# -- the measurements


async def measure(base: Path, given: argparse.Namespace) -> None:
    ours = await asyncio.to_thread(Child, "--serve", "ours", "--base", str(base), "--rows", str(given.rows))
    port, token = ours.told["port"], ours.told["token"]
    size, etag = await one_page(port, token)
    peer = await asyncio.to_thread(Child, "--serve", "peer", "--size", str(size))
    try:
        await pages(base, given, ours, peer.told["port"], etag, size)
        await fan_out(base, given, port, token)
        await losses(base, given, ours)
    finally:
        ours.close()
        peer.close()


async def pages(base: Path, given: argparse.Namespace, ours: Child, peer: int, etag: str, size: int) -> None:
    port, login = ours.told["port"], f"Authorization: Bearer {ours.told['token']}\r\n"
    kinds = {
        "peer: a constant": (peer, "", False), "a page": (port, login, False),
        "a page, rows change meanwhile": (port, login, True),
        "an unchanged page (304)": (port, f"{login}If-None-Match: {etag}\r\n", False),
    }  # fmt: skip
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in kinds}
    for _ in range(given.rounds):
        for name, (where, head, writes) in kinds.items():
            if "304" in name:
                _, etag = await one_page(port, ours.told["token"])
                head = f"{login}If-None-Match: {etag}\r\n"
            stop = asyncio.Event()
            writer = asyncio.create_task(change(base, stop)) if writes else None
            found[name].append(await load(where, head, given.seconds))
            stop.set()
            if writer:
                await writer
    table = Table("GET /api/videos", "requests/s", "p50 ms", "p99 ms", "ratio to the peer",
                  title=f"{given.rows} rows, 50 on a page ({size} bytes), {CONNECTIONS} connections")  # fmt: skip
    best = max(found["peer: a constant"])
    for name, rounds in found.items():
        rate, p50, p99 = max(rounds)
        table.add_row(name, f"{rate:.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{rate / best[0]:.2f}")
    console.print(table)


async def one_page(port: int, token: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /api/videos HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    writer.close()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    return int(fields["content-length"]), fields["etag"]


async def load(port: int, head: str, seconds: float, pause_seconds: float = 0.0) -> tuple[float, float, float]:
    """Requests a second, and how long they took at half and at 99 of 100 (ms)."""
    request = f"GET /api/videos HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\n".encode()
    took: list[float] = []
    until = time.monotonic() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        while (began := time.monotonic()) < until:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer[9:12] in (b"200", b"304"), answer
            if answer[9:12] == b"200":
                length = answer.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
                await reader.readexactly(int(length))
            took.append((time.monotonic() - began) * 1000)
            if pause_seconds:
                await asyncio.sleep(pause_seconds)
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    took.sort()
    return len(took) / seconds, took[len(took) // 2], took[int(len(took) * 0.99)]


async def change(base: Path, stop: asyncio.Event) -> None:
    """Rows as an upload's progress, from another process."""
    def tick(number: int) -> None:
        db = connect_catalog(base / "data" / "catalog.db")
        videos.progress(db, 3, number, 1000, 1.0, None)
        db.conn.close()

    number = 0
    while not stop.is_set():
        await asyncio.to_thread(tick, number := number + 1)
        await asyncio.sleep(1 / CHANGES)


async def fan_out(base: Path, given: argparse.Namespace, port: int, token: str) -> None:
    last: list[float] = []
    samples = 30
    async with Lookers(port, token, given.clients) as lookers:
        for number in range(samples):
            await asyncio.sleep(random.uniform(0.05, 0.4))
            done = lookers.await_progress(number + 1)
            at = await asyncio.to_thread(commit, base, number + 1)
            last.append((await done - at) * 1000)
    last.sort()
    console.print(f"websocket: from a commit in another process to the last of {given.clients} clients: "
                  f"p50 {statistics.median(last):.0f} ms, p99 {last[int(samples * 0.99)]:.0f} ms "
                  "(the catalog is looked at every 250 ms)")  # fmt: skip


def commit(base: Path, number: int) -> float:
    db = connect_catalog(base / "data" / "catalog.db")
    videos.progress(db, 3, 10_000 + number, 20_000, 1.0, None)
    at = time.monotonic()
    db.conn.close()
    return at


class Lookers:
    """Many clients of the websocket."""

    def __init__(self, port: int, token: str, count: int) -> None:
        self._address, self._count = f"ws://127.0.0.1:{port}/api/ws", count
        self._head = {"Authorization": f"Bearer {token}"}
        self._jobs: list[asyncio.Task[None]] = []
        self._ready = asyncio.Semaphore(0)
        self._wanted = b""
        self._left = 0
        self._done: asyncio.Future[float]

    async def __aenter__(self) -> "Lookers":
        self._jobs = [asyncio.create_task(self._look()) for _ in range(self._count)]
        for _ in self._jobs:
            await self._ready.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def await_progress(self, number: int) -> "asyncio.Future[float]":
        """When the last client has heard of it."""
        self._wanted, self._left = f'"bytes_sent":{10_000 + number},'.encode(), self._count
        self._done = asyncio.get_running_loop().create_future()
        return self._done

    async def _look(self) -> None:
        async with connect(self._address, additional_headers=self._head, compression=None, max_size=None) as ws:
            await ws.recv()
            await ws.send('{"topics": ["videos", "status", "tasks"]}')
            for _ in range(3):
                await ws.recv()
            self._ready.release()
            async for message in ws:
                text = message.encode() if isinstance(message, str) else message
                if self._wanted and self._wanted in text and b'"topic":"videos"' in text[:40]:
                    self._left -= 1
                    if not self._left:
                        self._done.set_result(time.monotonic())


async def losses(base: Path, given: argparse.Namespace, ours: Child) -> None:
    port, token = ours.told["port"], ours.told["token"]
    head = f"Authorization: Bearer {token}\r\n"
    table = Table("what control does meanwhile", "MB/s", "ratio", "a piece: p50 ms", "p99 ms", "RSS MiB",
                  title="a thread of the same process that hashes and writes 1 MiB every 20 ms")  # fmt: skip
    rates: list[float] = []

    async def measured(name: str) -> None:
        found = await asyncio.to_thread(ours.ask, str(given.seconds))
        rates.append(found["rate"])
        table.add_row(name, f"{found['rate'] / 1e6:.1f}", f"{found['rate'] / rates[0]:.3f}", f"{found['p50']:.1f}",
                      f"{found['p99']:.1f}", f"{found['rss'] / 2**20:.0f}")  # fmt: skip

    await measured("nothing")
    stop = asyncio.Event()
    async with Lookers(port, token, given.clients):
        writer = asyncio.create_task(change(base, stop))
        asker = asyncio.create_task(load(port, head, given.seconds, CONNECTIONS / CALM))
        await measured(f"{given.clients} look on, {CHANGES} changes/s, {CALM} requests/s")
        await asker
        stop.set()
        await writer
    asker = asyncio.create_task(load(port, head, given.seconds))
    await measured("as many requests as it can")
    await asker
    await measured("nothing again")
    console.print(table)


if __name__ == "__main__":
    main()
