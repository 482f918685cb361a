"""The websocket, over a real server: who is let in, what they are told, and who is dropped."""

import asyncio
import json
import random
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
import requests
from support import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from biliupd.catalog import library, records, streamers, submissions, sync, tasks, videos
from biliupd.catalog.changes import latest, prune
from biliupd.catalog.database import Catalog, write
from biliupd.catalog.states import State, rows
from biliupd.catalog.sync import Changes, Found
from biliupd.control import hub
from biliupd.control import rows as shown
from biliupd.control.models import TOPICS, Figures

KEYS = {"accounts": "name"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("biliupd.control.server.Hub", Kept)
    monkeypatch.setattr(hub, "LOOK_SECONDS", 0.03)
    monkeypatch.setattr(hub, "STATUS_SECONDS", 0.05)
    monkeypatch.setattr(hub, "SAMPLE_SECONDS", 0.2)
    monkeypatch.setattr(hub, "CHECK_SECONDS", 0.2)


class Kept(hub.Hub):
    last: "Kept"

    def __init__(self, *given):
        super().__init__(*given)
        Kept.last = self


@pytest.fixture
def ready(stage):
    wait_until(lambda: stage.control.port and requests.get(f"{stage.url}/api/health", timeout=5).ok)
    return stage


class Looker:
    """A client as the page is one: it keeps what it is told, goes away, and comes back."""

    def __init__(self, stage, topics=TOPICS, role="viewer", **headers):
        self.stage, self.topics = stage, list(topics)
        self.headers = headers or {"Authorization": f"Bearer {stage.token(role)}"}
        self.seq = self.log = self.epoch = self.ws = None
        self.kept: dict[str, dict] = {}  #: by topic: rows by id
        self.status = None
        self.lines: list[int] = []
        self.told: list[dict] = []

    def come(self):
        self.ws = connect(f"{self.stage.url.replace('http', 'ws', 1)}/api/ws", additional_headers=self.headers,
                          compression=None, max_size=None, legacy=True)  # fmt: skip
        hello = json.loads(self.ws.recv(timeout=5))
        assert hello["type"] == "hello"
        self.ask(self.topics, epoch=self.epoch)
        self.epoch = hello["epoch"]
        return self

    def ask(self, topics, epoch=None):
        self.topics = list(topics)
        self.ws.send(json.dumps({"topics": self.topics, "seq": self.seq, "log": self.log, "epoch": epoch}))

    def go(self):
        self.ws.close()

    def hear(self, timeout=0.0):
        """Take one message, if there is one in this time."""
        try:
            message = json.loads(self.ws.recv(timeout=timeout))
        except TimeoutError:
            return None
        self.take(message)
        return message

    def hear_until(self, condition, seconds=10):
        def heard():
            while self.hear(0.01):
                pass
            return condition()

        wait_until(heard, seconds)

    def take(self, message):
        self.told.append(message)
        kind, topic = message["type"], message.get("topic")
        if kind == "log" or topic == "log":
            if kind == "snapshot":
                self.lines.clear()
            self.lines += [line["seq"] for line in message["lines"]]
            self.log = message["seq"]
            return
        if kind == "figures":
            return
        if message["seq"] is not None:
            assert self.seq is None or message["seq"] >= self.seq
            self.seq = message["seq"]
        if topic == "status":
            self.status = message["status"] if kind == "snapshot" else message["put"][0]
            return
        key = KEYS.get(topic, "id")
        if kind == "snapshot":
            self.kept[topic] = {row[key]: row for row in message[topic]}
            return
        for row in message["put"]:
            self.kept[topic][row[key]] = row
        for id in message["gone"]:
            self.kept[topic].pop(id, None)


def let_in(address, headers):
    """0, or why not: the code that the socket was closed with, or the HTTP status."""
    try:
        with connect(address, additional_headers=headers) as ws:
            return 0 if json.loads(ws.recv(timeout=5))["type"] == "hello" else -1
    except ConnectionClosed as error:
        return error.rcvd.code
    except InvalidStatus as error:
        return error.response.status_code


def test_nobody_but_who_is_logged_in_and_comes_from_our_page_is_let_in(ready):
    port = ready.control.port
    cookie = f"biliupd={ready.token('viewer', 'cookie')}"
    bearer = f"Bearer {ready.token('viewer')}"
    ours, theirs = f"http://127.0.0.1:{port}", "http://evil.example"
    for headers, code in (
        ({}, 4401), ({"Cookie": "biliupd=x"}, 4401), ({"Authorization": "Bearer x"}, 4401),
        ({"Cookie": cookie, "Origin": theirs}, 4403), ({"Cookie": cookie, "Origin": f"{ours}0"}, 4403),
        ({"Cookie": cookie, "Origin": "null"}, 4403), ({"Cookie": cookie, "Sec-Fetch-Site": "cross-site"}, 4403),
        ({"Cookie": cookie, "Origin": ours}, 0), ({"Cookie": cookie}, 0), ({"Authorization": bearer}, 0),
    ):  # fmt: skip
        assert let_in(f"ws://127.0.0.1:{port}/api/ws", headers) in ({code, 403} if code == 4403 else {code}), headers


@pytest.mark.parametrize("message", [
    "", "x", "[]", "{}", '{"topics": "tasks"}', '{"topics": ["secrets"]}', '{"topics": [], "seq": -1}', b"\x00\xff",
    '{"topics": [], "seq": 99999999999999999999}', '{"topics": [], "more": 1}', '{"topics": ["log"], "log": 1.5}',
])  # fmt: skip
def test_a_message_that_is_none_ends_it(shared, message):
    wait_until(lambda: shared.control.port and requests.get(f"{shared.url}/api/health", timeout=5).ok)
    headers = {"Authorization": f"Bearer {shared.token('viewer')}"}
    with connect(f"{shared.url.replace('http', 'ws', 1)}/api/ws", additional_headers=headers) as ws:
        ws.recv(timeout=5)
        ws.send(message)
        with pytest.raises(ConnectionClosed) as found:
            ws.recv(timeout=5)
        assert found.value.rcvd.code == 4400


def test_first_everything_then_what_changes(ready):
    ready.sample(30)
    looker = Looker(ready).come()
    looker.hear_until(lambda: looker.lines and len(looker.kept) == 5)
    assert [message["topic"] for message in looker.told[:7]] == list(TOPICS)
    assert [message["seq"] is None for message in looker.told[:6]] == [True] * 5 + [False]
    snapshot = next(message for message in looker.told if message["topic"] == "tasks")
    assert snapshot["sample_seconds"] == 0.2
    assert set(snapshot["bitrates"]) == set(looker.kept["tasks"])
    db = ready.catalog.db
    looker.hear_until(lambda: looker.status)
    del looker.told[:]
    videos.pin(db, 7, True)
    looker.hear_until(lambda: looker.kept["videos"][7]["pinned"])
    assert looker.seq == latest(db)
    records.notice(db, "disk", "it is full")
    looker.hear_until(lambda: "it is full" in [notice["text"] for notice in looker.status["notices"]])
    ready.house.say("a line", streamer="nightowl")
    looker.hear_until(lambda: looker.lines[-1] == ready.house.lines[-1].seq)
    records.account(db, "main", "waiting", "logged out")
    looker.hear_until(lambda: looker.kept["accounts"]["main"]["reason"] == "logged out")
    (name,) = [one.streamer for one in ready.house.waits]
    there = next(id for id, row in looker.kept["streamers"].items() if row["name"] == name)
    assert looker.kept["streamers"][there]["waiting"]
    ready.house.waits.clear()
    looker.hear_until(lambda: not looker.kept["streamers"][there]["waiting"])
    looker.hear_until(lambda: any(message["type"] == "figures" for message in looker.told))
    figures = next(message for message in looker.told if message["type"] == "figures")
    assert set(figures["tasks"]) == {run.task_id for run in ready.house.runs}
    looker.go()


def test_topics_can_be_changed_and_nothing_else_is_told(ready):
    ready.sample(6)
    looker = Looker(ready, ["accounts"]).come()
    looker.hear_until(lambda: "accounts" in looker.kept)
    videos.pin(ready.catalog.db, 1, True)
    looker.ask(["accounts", "videos"])
    looker.hear_until(lambda: "videos" in looker.kept)
    looker.ask(["videos"])
    records.account(ready.catalog.db, "main", "waiting", "logged out")
    videos.pin(ready.catalog.db, 2, True)
    looker.hear_until(lambda: looker.kept["videos"][2]["pinned"])
    assert {message["topic"] for message in looker.told} == {"accounts", "videos"}
    looker.go()


def test_who_was_away_is_told_the_lines_of_the_log_that_they_missed_and_no_other(ready):
    for number in range(5):
        ready.house.say(f"line {number}")
    looker = Looker(ready, ["log"]).come()
    looker.hear_until(lambda: looker.lines == [1, 2, 3, 4, 5])
    looker.go()
    ready.house.say("missed")
    looker.come()
    looker.hear_until(lambda: looker.lines == [1, 2, 3, 4, 5, 6])
    looker.go()
    for _ in range(20):
        ready.house.say("long ago")
    del ready.house.lines[:-3]
    looker.come()
    looker.hear_until(lambda: looker.lines == [24, 25, 26])
    looker.go()
    looker.epoch = "another daemon"
    looker.log = 25
    looker.come()
    looker.hear_until(lambda: looker.told[-1]["type"] == "snapshot")
    looker.go()


def test_too_many_changes_at_once_are_told_as_a_snapshot(ready, monkeypatch):
    monkeypatch.setattr(hub, "MOST_ROWS", 5)
    ready.sample(12)
    looker = Looker(ready, ["videos", "submissions"]).come()
    looker.hear_until(lambda: "submissions" in looker.kept)
    for count, kind in ((5, "change"), (6, "snapshot")):
        with write(ready.catalog.db):
            for id in range(1, count + 1):
                videos.pin(ready.catalog.db, id, count == 6)
        looker.hear_until(lambda: looker.seq == latest(ready.catalog.db))
        assert [(one["topic"], one["type"]) for one in looker.told[-2:]] == [("videos", kind), ("submissions", kind)]
        assert looker.told[-2]["seq"] < looker.told[-1]["seq"], "only the last one says that all is known"
    looker.go()
    for id in range(1, 12):
        videos.pin(ready.catalog.db, id, True)
    prune(ready.catalog.db, keep=2)
    looker.come()
    looker.hear_until(lambda: looker.seq == latest(ready.catalog.db))
    assert looker.told[-1]["type"] == "snapshot", "the log of changes does not reach back so far"
    looker.go()


def test_a_session_that_ends_ends_its_socket(ready):
    lookers = [Looker(ready, ["status"], role).come() for role in ("viewer", "operator", "admin")]
    for looker in lookers:
        looker.hear_until(lambda looker=looker: looker.status)
    ready.bearer("viewer")
    requests.post(f"{ready.url}/api/logout", json={}, headers=lookers[0].headers, timeout=5)
    ready.bearer("admin").patch(f"{ready.url}/api/users/{ready.user('operator')}", json={"role": "viewer"}, timeout=5)
    for looker in lookers[:2]:
        with pytest.raises(ConnectionClosed) as found:
            looker.hear_until(lambda: False, 5)
        assert found.value.rcvd.code == 4401
    records.notice(ready.catalog.db, "x", "still here")
    looker = lookers[2]
    looker.hear_until(lambda: looker.status["notices"])
    looker.go()


def test_who_does_not_read_is_dropped_and_nobody_else_notices(ready, monkeypatch):
    monkeypatch.setattr(hub, "MOST_BYTES", 200_000)
    ready.sample(30)
    good = Looker(ready, ["videos"]).come()
    good.hear_until(lambda: "videos" in good.kept)
    bad = socket.create_connection(("127.0.0.1", ready.control.port))
    bad.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    key = "GET /api/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    key += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    bad.sendall(f"{key}Authorization: Bearer {ready.token('viewer')}\r\n\r\n".encode())
    while b"\r\n\r\n" not in bad.recv(4096, socket.MSG_PEEK):
        pass
    wish = b'{"topics":["videos"]}'
    bad.sendall(bytes([0x81, 0x80 | len(wish), 0, 0, 0, 0]) + wish)
    clients = Kept.last._clients
    wait_until(lambda: len(clients) == 2)
    other = threading.Event()

    def write_on():
        mine = Catalog(ready.catalog.path)
        number = 0
        while not other.is_set():
            number += 1
            with write(mine.db):
                mine.db.execute("update videos set last_error = ?", [f"{number} " * 300])
        mine.close()

    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        good.hear_until(lambda: len(clients) == 1, 30)
    finally:
        other.set()
        thread.join()
    videos.pin(ready.catalog.db, 1, True)
    good.hear_until(lambda: good.seq == latest(ready.catalog.db))
    assert good.kept["videos"][1]["pinned"]
    bad.close()
    good.go()


def test_two_hundred_look_on_at_once(ready):
    ready.sample(12)
    token = ready.token("viewer")

    async def one(written, heard):
        from websockets.asyncio.client import connect as connect_async

        async with connect_async(f"ws://127.0.0.1:{ready.control.port}/api/ws", compression=None,
                                 additional_headers={"Authorization": f"Bearer {token}"}) as ws:  # fmt: skip
            await ws.recv()
            await ws.send('{"topics": ["videos"]}')
            assert json.loads(await ws.recv())["type"] == "snapshot"
            heard.release()
            await written.wait()
            while True:
                message = json.loads(await ws.recv())
                if any(row["id"] == 3 and row["pinned"] for row in message["put"]):
                    return message["seq"]

    async def all_of_them():
        written, heard = asyncio.Event(), asyncio.Semaphore(0)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            jobs = [group.create_task(one(written, heard)) for _ in range(200)]
            for _ in jobs:
                await heard.acquire()
            await asyncio.to_thread(lambda: videos.pin(ready.catalog.db, 3, True))
            written.set()
        return {job.result() for job in jobs}

    assert asyncio.run(all_of_them()) == {latest(ready.catalog.db)}
    wait_until(lambda: not Kept.last._clients)


WRITER = """
import random, sys
sys.path[:0] = sys.argv[3:]
from test_socket import scribble
from biliupd.catalog.database import Catalog
catalog = Catalog(__import__("pathlib").Path(sys.argv[1]))
for _ in range(60):
    scribble(catalog.db, random.Random(f"{sys.argv[2]} {_}"))
"""


def scribble(db, chance):
    """Change something, as some part of the daemon would."""
    id = chance.randint(1, 30)
    with write(db):
        match chance.randint(0, 8):
            case 0:
                db.execute("update videos set state = ?, since = ? where id = ?",
                           [chance.choice(list(State)), str(chance.random()), id])  # fmt: skip
            case 1:
                videos.progress(db, id, chance.randint(0, 100), 100, 1.0, None)
            case 2:
                db.execute("update videos set title = ? where id = ?", [f"title {chance.random()}", id])
            case 3:
                db.execute("update submissions set review = ? where id = ?", [str(chance.random()), id])
            case 4:
                records.account(db, f"account {id % 4}", "waiting", str(chance.random()))
            case 5:
                records.live_status(db, chance.choice(["nightowl", "夜雨声烦"]), "live", str(chance.random()))
            case 6:
                task = f"task {id}"
                if records.has_task(db, task):
                    records.task_stopped(db, task, "over", "2026-01-02")
                else:
                    records.task_started(db, task, 1 + id % 3, "0000000000000000", 1, "2026-01-01")
            case 7:
                rows(db, "broadcasts").update("0000000000000000", {"title": f"show {chance.random()}"})
            case 8:
                name = f"more {chance.randint(0, 10**9)}"
                found = Found(f"/r/{name}", "/r", "file", 1, 0, chance.randint(1, 10**9), 0, False, name)
                sync.apply(db, Changes(added=[found]))


@pytest.mark.parametrize("seed", range(2))
def test_who_comes_and_goes_knows_in_the_end_what_the_catalog_knows(ready, seed, monkeypatch):
    ready.sample(30)
    db, chance = ready.catalog.db, random.Random(seed)
    monkeypatch.setattr(hub, "MOST_ROWS", chance.choice([2, 10, 500]))
    stop = threading.Event()

    def write_on():
        mine = Catalog(ready.catalog.path)
        for number in range(60):
            scribble(mine.db, random.Random(f"{seed} thread {number}"))
            stop.wait(0.01)
        mine.close()

    thread = threading.Thread(target=write_on)
    places = [sys.path[0], *[path for path in sys.path if "tests" in path]]
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(ready.catalog.path), str(seed), *places])
    looker = Looker(ready).come()
    thread.start()
    try:
        while thread.is_alive() or process.poll() is None:
            for _ in range(chance.randint(0, 12)):
                looker.hear(chance.choice([0.0, 0.01]))
            if chance.random() < 0.3:
                with suppress(ConnectionClosed):
                    looker.go()
                if chance.random() < 0.1:
                    prune(db, keep=3)
                if len(looker.kept) < 5:
                    looker.seq = None  # it had no snapshot of all
                looker.come()
    finally:
        stop.set()
        thread.join()
        assert process.wait() == 0
    records.notice(db, "last", "word")
    ready.house.say("the last line")
    looker.hear_until(lambda: looker.status and any(n["key"] == "last" for n in looker.status["notices"]))
    records.account(db, "the last", "ok")
    looker.hear_until(lambda: "the last" in looker.kept["accounts"])
    house = ready.house
    expected = {
        "videos": ([shown.video(row) for row in library.current(db)],
                   lambda ids: [shown.video(row) for row in library.some(db, ids)]),
        "submissions": ([shown.submission(row) for row in submissions.current(db)],
                        lambda ids: [shown.submission(row) for row in submissions.some(db, ids)]),
        "tasks": (shown.tasks_of(tasks.current(db), house),
                  lambda ids: shown.tasks_of(tasks.some(db, ids), house)),
        "streamers": (shown.streamers(records.active_streamers(db), db, house),
                      lambda ids: shown.streamers(streamers.some(db, ids), db, house)),
        "accounts": (shown.accounts(db, house), None),
    }  # fmt: skip
    for topic, (current, some) in expected.items():
        key = KEYS.get(topic, "id")
        want = {row[key]: row for row in (one.model_dump(mode="json") for one in current)}
        kept = looker.kept[topic]
        assert {id: kept.get(id) for id in want} == want, topic
        further = [id for id in kept if id not in want]
        if further:
            old = {row[key]: row for row in (one.model_dump(mode="json") for one in some(further))}
            assert {id: kept[id] for id in further} == old, topic
    looker.go()


def test_bitrates_are_kept_while_nobody_looks(ready):
    ready.sample(6)
    run = ready.house.runs[0]
    asker = ready.bearer("viewer")

    def told():
        return asker.get(f"{ready.url}/api/tasks/{run.task_id}/status", timeout=5).json()

    wait_until(lambda: told()["bitrates"])
    ready.house.runs[0] = run._replace(figures=Figures(bitrate=123.0))
    wait_until(lambda: told()["bitrates"][-1] == 123.0)
    assert told()["task"]["figures"]["bitrate"] == 123.0
